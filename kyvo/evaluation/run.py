"""A whole evaluation: every row of a table, for every checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from kyvo.common.config import as_override
from kyvo.common.errors import InputError
from kyvo.common.files import check_free_space, folder_lock
from kyvo.decoding import plan_generations, run_generations
from kyvo.evaluation.measure import Result, measure
from kyvo.evaluation.report import write_report
from kyvo.evaluation.table import check_rows, choose_rows, load_table

OWN = "here"
"""Name of the column where every config brings its own checkpoint."""


def evaluate(
    table: Path,
    output: Path,
    checkpoints: Sequence[Path] = (),
    only: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> list[Result]:
    """Generate, decode and measure everything; the report is written anew after every run.

    A stopped evaluation goes on where it was.

    Args:
        checkpoints: each is taken for all rows, its results go to a folder of its own under
            ``output``; none: every config's own checkpoint and folder.
        only: words of the names of the rows to measure.
        overrides: ``key=value`` for every generation config.

    Raises:
        InputError: listing every problem of every config and row, before anything is generated.
    """
    rows = choose_rows(load_table(table), only)
    labels = _labels(checkpoints)
    check_free_space(output, 0, "report")
    results = [Result(row, {label: [] for label in labels}) for row in rows]
    jobs = [
        (label, result, config)
        for label in labels
        for result in results
        for config in result.row.configs
    ]
    plans = plan_generations(
        (config, [*overrides, *_own_overrides(labels[label], output / label)])
        for label, _, config in jobs
    )
    check_rows([result.row for _, result, _ in jobs], plans)
    with folder_lock(output):
        for (label, result, _), (plan, summary) in zip(jobs, run_generations(plans), strict=True):
            result.measurements[label].append(measure(plan, summary, result.row))
            write_report(results, output)
            tqdm.write(f"{plan.config.run_identifier}: {summary}")
    return results


def _own_overrides(checkpoint: Path | None, output: Path) -> list[str]:
    if checkpoint is None:
        return []
    return [as_override("checkpoint", checkpoint), as_override("output_dir", output)]


def _labels(checkpoints: Sequence[Path]) -> dict[str, Path | None]:
    """A short name for every checkpoint: as much of the end of its path as is its own."""
    if not checkpoints:
        return {OWN: None}
    paths = [path.resolve() for path in checkpoints]
    for depth in range(2, max(len(path.parts) for path in paths) + 1):
        names = ["_".join(path.parts[-depth:]).replace("/", "") for path in paths]
        if len(set(names)) == len(names):
            return dict(zip(names, checkpoints, strict=True))
    twice = next(str(path) for path in checkpoints if paths.count(path.resolve()) > 1)
    raise InputError(f"--checkpoint: {twice} is given twice. Give each once.")

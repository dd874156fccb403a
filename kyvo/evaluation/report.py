"""An evaluation's results as Markdown and as JSON."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from kyvo.evaluation.measure import Measurement, Result
from kyvo.files import atomic_file, write_json

# Metric: how it is called, how it is written.
_METRICS = {
    "jaccard": ("Jaccard, mean over tau", "{:.4f}"),
    "accuracy": ("accuracy", "{:.4f}"),
    "ssim": ("SSIM", "{:.4f}"),
    "l2": ("L2", "{:.5f}"),
}
_OTHER_FIGURES = {
    "objects_read": ("objects read whole", "{:.4f}"),
    "images_read": ("images read", "{:.4f}"),
}


def write_report(results: Sequence[Result], output: Path) -> None:
    """Write ``evaluation.md`` and ``evaluation.json`` into ``output``."""
    text = f"# Evaluation\n\n{main_table(results)}\n\n{_details(results)}"
    with atomic_file(output / "evaluation.md") as path:
        path.write_text(text)
    write_json(output / "evaluation.json", {"rows": [_as_json(result) for result in results]})


def main_table(results: Sequence[Result]) -> str:
    """The paper's table: one line a metric, the paper's figure and baselines beside ours."""
    checkpoints = list(results[0].measurements)
    lines = [["task", "data", "metric", *checkpoints, "paper", "others"]]
    for result in results:
        row, metrics = result.row, _measured(result)
        if not metrics:
            lines.append([row.task, row.data, "not measured yet", *("" for _ in lines[0][3:])])
        for metric in metrics:
            title, form = _METRICS[metric]
            figures = [_form(form, result.figure(name, metric)) for name in checkpoints]
            paper = _form(form, row.paper.get(metric))
            others = _others(result, metric, is_first=metric == metrics[0])
            lines.append([row.task, row.data, title, *figures, paper, others])
    return _markdown(lines)


def _details(results: Sequence[Result]) -> str:
    """Every run: its samples, every tau, parse rates, what it was compared with."""
    parts = []
    for result in results:
        for checkpoint, runs in result.measurements.items():
            if runs:
                parts.append(f"## {result.row.name} ({checkpoint})\n\n{_runs_table(runs)}")
                parts += [_notes(run) for run in runs]
    return "\n\n".join(parts) + "\n"


def _runs_table(runs: Sequence[Measurement]) -> str:
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.figures))
    known = {metric: (metric, "{:.4f}") for metric in metrics} | _OTHER_FIGURES | _METRICS
    lines = [["run", "samples", *(known[metric][0] for metric in metrics)]]
    for run in runs:
        figures = [_form(known[metric][1], run.figures.get(metric)) for metric in metrics]
        lines.append([run.run_identifier, f"{run.num_samples} of {run.num_available}", *figures])
    return _markdown(lines)


def _notes(run: Measurement) -> str:
    lines = [f"- weights: `{run.weights}`"]
    lines += [f"- {metric} against `{truth}`" for metric, truth in run.compared_with.items()]
    lines += [f"- {note}" for note in run.notes]
    return f"{run.run_identifier}:\n\n" + "\n".join(lines)


def _measured(result: Result) -> list[str]:
    return [metric for metric in _METRICS if any(metric in r.figures for r in result.all_runs)]


def _others(result: Result, metric: str, is_first: bool) -> str:
    """Baselines: as measured here where that was possible, and as published."""
    measured = {name for run in result.all_runs for name in run.baselines}
    published = {b.name: b.figure for b in result.row.baselines} if is_first else {}
    form = _METRICS[metric][1]
    parts = []
    for name in [*published, *sorted(measured - published.keys())]:
        here, paper = result.baseline(name, metric), published.get(name)
        figures = [form.format(here)] if here is not None else []
        figures += [f"{form.format(paper)} (paper)"] if paper is not None else []
        if figures:
            parts.append(f"{name} {', '.join(figures)}")
    return "; ".join(parts)


def _form(form: str, value: float | None) -> str:
    return form.format(value) if value is not None else ""


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])


def _as_json(result: Result) -> dict[str, object]:
    row = result.row
    return {
        "task": row.task,
        "data": row.data,
        "paper": row.paper,
        "published_baselines": {b.name: b.figure for b in row.baselines if b.figure is not None},
        "figures": {
            checkpoint: {metric: result.figure(checkpoint, metric) for metric in _METRICS}
            for checkpoint in result.measurements
        },
        "runs": {
            checkpoint: [dataclasses.asdict(run) for run in runs]
            for checkpoint, runs in result.measurements.items()
        },
    }

"""An evaluation's results as Markdown and as JSON."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from kyvo.common.files import atomic_file, write_json
from kyvo.evaluation.measure import Measurement, Result
from kyvo.metrics.registry import METRICS

_SHARES = {
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
    """The paper's table: one line a metric, the paper's value and baselines beside ours."""
    checkpoints = list(results[0].measurements)
    lines = [["task", "data", "metric", "samples", *checkpoints, "paper", "others"]]
    for result in results:
        row, metrics = result.row, _measured(result)
        if not metrics:
            lines.append([row.task, row.data, "not measured yet", *("" for _ in lines[0][3:])])
        for metric in metrics:
            cells = [_cell(result, name, metric) for name in checkpoints]
            paper = _form(METRICS[metric].form, row.paper.get(metric))
            others = _others(result, metric, is_first=metric == metrics[0])
            title = _title(result, metric)
            lines.append([row.task, row.data, title, _samples(result), *cells, paper, others])
    return _markdown(lines)


def _title(result: Result, metric: str) -> str:
    """The metric, and what it compares with where that is not the original."""
    row, modality = result.row, METRICS[metric].modality
    is_decoded = modality == "image" and row.images is None
    is_tokenised = modality == "three_d" and row.scenes is None
    against = " (to the decoded truth)" * is_decoded + " (to the tokenised truth)" * is_tokenised
    return METRICS[metric].title + against


def _samples(result: Result) -> str:
    runs = next(iter(result.measurements.values()))
    done, there = sum(run.num_samples for run in runs), sum(run.num_available for run in runs)
    return f"{done}" if done == there else f"{done} of {there}"


def _cell(result: Result, checkpoint: str, metric: str) -> str:
    """A value; of images it says how many could be scored, if not all."""
    text = _form(METRICS[metric].form, result.value(checkpoint, metric))
    runs = result.measurements[checkpoint]
    num = sum(run.num_samples for run in runs)
    read = round(sum(run.values.get("images_read", 1) * run.num_samples for run in runs))
    is_part = METRICS[metric].modality == "image" and read < num
    return f"{text} ({read} of {num} images)" if is_part else text


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
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.values))
    known = {metric: (metric, "{:.4f}") for metric in metrics} | _SHARES
    known |= {metric.name: (metric.title, metric.form) for metric in METRICS.values()}
    lines = [["run", "samples", *(known[metric][0] for metric in metrics)]]
    for run in runs:
        values = [_form(known[metric][1], run.values.get(metric)) for metric in metrics]
        lines.append([run.run_identifier, f"{run.num_samples} of {run.num_available}", *values])
    return _markdown(lines)


def _notes(run: Measurement) -> str:
    lines = [f"- weights: `{run.weights}`"]
    lines += [f"- {metric} against `{truth}`" for metric, truth in run.compared_with.items()]
    lines += [f"- {note}" for note in run.notes]
    return f"{run.run_identifier}:\n\n" + "\n".join(lines)


def _measured(result: Result) -> list[str]:
    """Metrics of the row, in the table's order."""
    seen = {metric for run in result.all_runs for metric in run.values}
    if "images_read" in seen:
        seen |= {metric.name for metric in METRICS.values() if metric.modality == "image"}
    return [metric for metric in METRICS if metric in seen]


def _others(result: Result, metric: str, is_first: bool) -> str:
    """Baselines: as measured here where that was possible, and as published."""
    measured = {name for run in result.all_runs for name in run.baselines}
    published = {b.name: b.value for b in result.row.baselines} if is_first else {}
    form = METRICS[metric].form
    parts = []
    for name in [*published, *sorted(measured - published.keys())]:
        here, paper = result.baseline(name, metric), published.get(name)
        values = [form.format(here)] if here is not None else []
        values += [f"{form.format(paper)} (paper)"] if paper is not None else []
        if values:
            parts.append(f"{name} {', '.join(values)}")
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
        "published_baselines": {b.name: b.value for b in row.baselines if b.value is not None},
        "values": {
            checkpoint: {metric: result.value(checkpoint, metric) for metric in METRICS}
            for checkpoint in result.measurements
        },
        "runs": {
            checkpoint: [dataclasses.asdict(run) for run in runs]
            for checkpoint, runs in result.measurements.items()
        },
    }

"""The sections on how the models learned and how long everything took."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kyvo.common.errors import InputError
from kyvo.common.files import read_json
from kyvo.metrics.fields import expect
from kyvo.report.content import Bar, Figure, Headline, Section
from kyvo.report.inputs import ReportInputs
from kyvo.report.plots import Line, curves, rank_histogram
from kyvo.report.records import Row, read_log, read_numbers, series

_NO_LOSS_TERM = {"step", "epoch", "learning_rate", "gradient_norm", "seconds"}
_NO_LOSS_PREFIX = ("val_", "codebook_")
_NO_LOSS_SUFFIX = "_per_second"


def training_section(inputs: ReportInputs) -> Section:
    """Loss and accuracy curves of each language model."""
    title = "How the language models learned"
    if not inputs.training_logs:
        return Section(title, notes=("Needs --training-logs: not given.",))
    text = (
        "Loss is the cross-entropy per predicted token, in nats. Accuracy is the share of tokens "
        "that are predicted rightly when all those before them are given.",
    )
    figures = [figure for entry in inputs.training_logs for figure in _log_figures(entry)]
    return Section(title, text, figures=tuple(figures))


def tokenizer_section(inputs: ReportInputs) -> Section:
    """Curves of the VQGAN's losses and of its codebook, and how often each code is used."""
    title = "How the tokenizer learned"
    text = (
        "The tokenizer cuts an image into a grid and writes each cell as one code of its "
        "codebook. A good codebook is used evenly: perplexity is the number of codes that it would "
        "take, were all used equally often.",
    )
    figures: list[Figure] = []
    notes = []
    if inputs.vqgan_log:
        figures += _tokenizer_curves(read_log(inputs.vqgan_log))
    else:
        notes.append("Needs --vqgan-log for the curves: not given.")
    if inputs.codes:
        figures.append(_code_histogram(inputs.codes, inputs.num_codes))
    else:
        notes.append("Needs --codes for the use of codes: not given.")
    return Section(title, text if figures else (), tuple(notes), figures=tuple(figures))


def timings_section(inputs: ReportInputs) -> Section:
    """How long each stage took."""
    title = "How long it took"
    if inputs.timings is None:
        return Section(title, notes=("Needs --timings: not given.",))
    seconds = read_numbers(inputs.timings, "timings")
    longest = max(seconds.values(), default=0) or 1
    bars = [Bar(stage, _duration(value), value / longest) for stage, value in seconds.items()]
    bars.append(Bar("all", _duration(sum(seconds.values())), 0))
    return Section(title, bars=tuple(bars))


def total_time(inputs: ReportInputs) -> tuple[Headline, ...]:
    """The time of all stages, if known."""
    if inputs.timings is None:
        return ()
    total = sum(read_numbers(inputs.timings, "timings").values())
    return (Headline(_duration(total), "from nothing to this report"),)


def _log_figures(entry: str) -> list[Figure]:
    name, _, path = entry.rpartition("=")
    if not name:
        raise InputError(
            f"--training-logs: {entry!r}: expected NAME=FILE, e.g. recognition=a.jsonl"
        )
    rows = read_log(path)
    groups = (
        ("loss", (("training", "loss", False), ("held out", "val_loss", True))),
        ("accuracy", (("training", "accuracy", False), ("held out", "val_accuracy", True))),
    )
    plots = ((label, _lines(rows, names)) for label, names in groups)
    return [Figure(f"{name}: {label}", svg=curves(lines, label)) for label, lines in plots if lines]


def _lines(rows: list[Row], names: Sequence[tuple[str, str, bool]]) -> list[Line]:
    """The curves of (label, logged name, marked) that are not empty or zero throughout."""
    lines = [Line(label, *series(rows, name), marked) for label, name, marked in names]
    return [line for line in lines if any(line.values)]


def _tokenizer_curves(rows: list[Row]) -> list[Figure]:
    terms = [name for name in dict.fromkeys(key for row in rows for key in row) if _is_term(name)]
    plots = (
        ("loss terms", "loss", [(name, name, False) for name in terms], True),
        ("share of codes in use", "share", [("usage", "codebook_usage", False)], False),
        ("perplexity of the codes", "codes", [("perplexity", "codebook_perplexity", False)], False),
        ("mean squared error, held out", "MSE", [("error", "val_mse", True)], True),
        ("peak signal-to-noise ratio, held out", "dB", [("ratio", "val_psnr", True)], False),
    )
    return [
        Figure(f"tokenizer: {title}", svg=curves(lines, label, log_scale))
        for title, label, names, log_scale in plots
        if (lines := _lines(rows, names))
    ]


def _is_term(name: str) -> bool:
    return (
        name not in _NO_LOSS_TERM
        and not name.startswith(_NO_LOSS_PREFIX)
        and not name.endswith(_NO_LOSS_SUFFIX)
    )


def _code_histogram(path: Path, num_codes: int | None) -> Figure:
    counts = _count_codes(path, num_codes)
    shares = counts[counts > 0] / max(1, counts.sum())
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    caption = (
        f"use of the codes in {path.name}: {np.count_nonzero(counts)} of {len(counts)} occur, "
        f"perplexity {perplexity:.0f}"
    )
    return Figure(caption, svg=rank_histogram(counts.tolist()))


def _count_codes(path: Path, num_codes: int | None) -> np.ndarray:
    """How often each code occurs in ``{key: [codes]}``."""
    images = expect(read_json(path, "codes"), dict, f"codes: {path}")
    counts: Counter[int] = Counter()
    for key, codes in images.items():
        place = f"codes: {path}: {key}"
        counts.update(expect(code, int, place) for code in expect(codes, list, place))
    highest = max(counts, default=0)
    size = num_codes or highest + 1
    if min(counts, default=0) < 0 or highest >= size:
        raise InputError(
            f"codes: {path}: codes from {min(counts)} to {highest}; expected 0 to {size - 1}. "
            "Check --num-codes."
        )
    return np.array([counts[code] for code in range(size)])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"

"""Write RESULTS.md, and its plot, from the JSON files of the benchmarks.

    python3 benchmarks/make_results.py
    python3 benchmarks/make_results.py --check

Every file is one run of one script on one machine; runs of one title share a table. Any set of
files will do. Nobody edits RESULTS.md by hand; --check fails where it is not what the files give.
"""

import argparse
import ast
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from bench import Row

import kyvo.common.cli
from kyvo.common.errors import InputError, MissingDependencyError
from kyvo.common.files import atomic_file, read_json
from kyvo.report.plots import INK, PALETTE

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "benchmarks/RESULTS.md"
PLOT = ROOT / "docs/benchmarks.png"
KEYS = {"script": str, "command": str, "date": str, "machine": dict, "ceilings": dict, "rows": list}

LOWER_IS_BETTER = frozenset({"s", "ms", "MB", "GB", "GiB", "L2", "levels", "nats"})
"""Units of which less is better."""

INTRODUCTION = """\
# Results

Made by `python3 benchmarks/make_results.py` from the files in `benchmarks/results`. The best of
each, by device:
"""
EXPLANATION = """\
"mini" are the small models of the quick start; without it they have the paper's size.

"Times better" is the value over its reference, and "of the ceiling" the value over the most that
the machine could give; of times, memory and errors, where less is better, the other way round.

![Times better than the reference, and share of the ceiling](../docs/benchmarks.png)
"""
COLUMNS = ("what", "value", "reference", "times better", "ceiling", "of the ceiling", "device")
CEILINGS = {
    "matmul_flops_per_s": ("large matmuls", "TFLOP/s", 1e12),
    "copy_bytes_per_s": ("copies", "GB/s", 1e9),
}
"""The measured ceilings of a machine: name, unit, and what one unit is."""


@dataclass(frozen=True)
class Headline:
    """One line of the summary: the best row of one script that fits.

    Attributes:
        name: what the line is called.
        script: the file's name without its ending.
        what: a pattern of the row's words, from their beginning.
        unit: the row's unit.
    """

    name: str
    script: str
    what: str
    unit: str


HEADLINES = (
    Headline("quick start, from nothing to its report", "quickstart", "all stages", "s"),
    Headline("quick start: recognition", "quickstart", "recognition, held-out", "Jaccard"),
    Headline("quick start: rendering", "quickstart", "rendering, held-out", "SSIM"),
    Headline("training, recognition", "training", "recognition, .*: samples", "samples/s"),
    Headline("generating scenes", "generation", "recognition, batch", "samples/s"),
    Headline("generating images", "generation", "rendering, batch", "samples/s"),
    Headline("encoding images", "vqgan", "encode, ", "images/s"),
    Headline("decoding images", "vqgan", "decode, ", "images/s"),
    Headline("ray tracing, 256 x 256", "world", "rendering, 256 x 256", "images/s"),
    Headline("opening pretokenised data", "data_store", "open from the cache", "s"),
)


@dataclass(frozen=True)
class Table:
    """One file of results: one run."""

    title: str
    sentence: str
    script: str
    command: str
    date: str
    machine: Mapping[str, str]
    ceilings: Mapping[str, float]
    rows: Sequence[Row]

    @property
    def device(self) -> str:
        """Name of the processor or GPU."""
        return self.machine.get("device", "any machine")

    @property
    def size(self) -> str:
        """Which model was measured, if the command says so."""
        found = re.search(r"--(?:model|config) (\w+)", self.command)
        return found[1] if found else ""


class Legend:
    """Gives the sources and notes of a table letters, in the order in which they come."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """Such as `` (a)``, the same for the same text; nothing for no text."""
        if not text:
            return ""
        first, second = divmod(len(self._letters), len(ascii_lowercase))
        new = ascii_lowercase[first - 1 : first] + ascii_lowercase[second]
        return f" ({self._letters.setdefault(text, new)})"

    def __str__(self) -> str:
        return "; ".join(f"({letter}) {text}" for text, letter in self._letters.items())


def read_table(path: Path) -> Table:
    """Read one file of results.

    Raises:
        InputError: it is not such a file.
    """
    record = read_json(path, "benchmark results")
    if not isinstance(record, dict):
        raise InputError(f"benchmark results: {path}: no JSON object. Make it again.")
    wrong = [key for key, kind in KEYS.items() if not isinstance(record.get(key), kind)]
    if wrong:
        raise InputError(f"benchmark results: {path}: no good {', '.join(wrong)}. Make it again.")
    rows = [_read_row(row, f"{path}, row {index}") for index, row in enumerate(record["rows"])]
    title, _, sentence = (record.get("title") or _first_line(record["script"])).partition(": ")
    return Table(
        title.rstrip("."),
        sentence,
        record["script"],
        record["command"],
        record["date"],
        record["machine"],
        record["ceilings"],
        rows,
    )


def _read_row(record: Any, where: str) -> Row:
    known = {field.name for field in fields(Row)}
    if not isinstance(record, dict) or set(record) != known:
        raise InputError(f"{where}: expected the keys {', '.join(sorted(known))}. Make it again.")
    numbers = [record[key] for key in ("value", "reference", "ceiling")]
    if not all(number is None or math.isfinite(number) for number in numbers):
        raise InputError(f"{where}: {numbers}: expected finite numbers. Make it again.")
    return Row(**record)


def _first_line(script: str) -> str:
    """What a script says that it measures."""
    text = ast.get_docstring(ast.parse((ROOT / script).read_text()))
    assert text, f"{script} has no docstring"
    return text.splitlines()[0]


def better_by(row: Row, other: float | None) -> float | None:
    """How many times better the value is than ``other``; None: there is nothing to divide."""
    if not other or not row.value:
        return None
    return other / row.value if row.unit in LOWER_IS_BETTER else row.value / other


def number(value: float) -> str:
    """Three digits, or all of a larger number's whole part."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def times(ratio: float | None) -> str:
    """Such as ``3.14``, ``31.4`` or ``314``."""
    return "" if ratio is None else number(ratio) if ratio >= 10 else f"{ratio:.2f}"


def share(fraction: float | None) -> str:
    """Such as ``31 %`` or ``3.1 %``."""
    if fraction is None:
        return ""
    percent = 100 * fraction
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


def page(tables: Sequence[Table]) -> str:
    """The text of RESULTS.md."""
    return "\n".join([INTRODUCTION, _summary(tables), EXPLANATION, *map(_section, _runs(tables))])


def _runs(tables: Iterable[Table]) -> list[list[Table]]:
    """The tables by title, in the order in which the titles come first."""
    groups: dict[str, list[Table]] = {}
    for table in tables:
        groups.setdefault(table.title, []).append(table)
    return list(groups.values())


def _heading(runs: Sequence[Table]) -> str:
    """The title of the runs, with the device such as ``Training (AMD EPYC)`` if all share it."""
    return runs[0].title if _devices_differ(runs) else f"{runs[0].title} ({runs[0].device})"


def _devices_differ(runs: Sequence[Table]) -> bool:
    return len({table.device for table in runs}) > 1


def _summary(tables: Sequence[Table]) -> str:
    """A line for every headline and a column for every device that some file has a row of."""
    by_device: dict[str, list[str]] = {}
    for device in dict.fromkeys(table.device for table in tables):
        measured = [table for table in tables if table.device == device]
        cells = [_best(headline, measured) for headline in HEADLINES]
        if any(cells):
            by_device[device] = cells
    names = [headline.name for headline in HEADLINES]
    lines = [line for line in zip(names, *by_device.values(), strict=True) if any(line[1:])]
    return _markdown(["best of", *by_device], lines) + "\n"


def _best(headline: Headline, tables: Iterable[Table]) -> str:
    """The best row of a headline: value, model, and times better; empty if there is none."""
    fitting = [
        (row, table)
        for table in tables
        if Path(table.script).stem == headline.script
        for row in table.rows
        if re.match(headline.what, row.what) and row.unit == headline.unit
    ]
    if not fitting:
        return ""
    best = min if headline.unit in LOWER_IS_BETTER else max
    row, table = best(fitting, key=lambda pair: pair[0].value)
    ratio = better_by(row, row.reference)
    notes = [table.size, f"{times(ratio)} x the reference" if ratio else ""]
    note = ", ".join(filter(None, notes))
    return f"{number(row.value)} {row.unit}" + (f" ({note})" if note else "")


def _section(runs: Sequence[Table]) -> str:
    """The table of all runs that share a title, and how each was made."""
    legend = Legend()
    devices = [table.device if _devices_differ(runs) else "" for table in runs]
    cells = [
        [*_cells(row, legend), device]
        for table, device in zip(runs, devices, strict=True)
        for row in table.rows
    ]
    used = [i for i in range(len(COLUMNS)) if any(line[i] for line in cells)]
    sentences = dict.fromkeys(_capital(table.sentence) for table in runs)
    parts = [
        f"## {_heading(runs)}",
        *sentences,
        "\n".join(map(_run, runs)),
        _markdown([COLUMNS[i] for i in used], [[line[i] for i in used] for line in cells]),
        str(legend),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _run(table: Table) -> str:
    """When, on what and how one run was made."""
    machine = ", ".join(f"{name} {value}" for name, value in table.machine.items())
    command = f"; `{table.command}`" if table.command else ""
    return f"- {table.date}; {machine}{_ceilings(table.ceilings)}{command}"


def _markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table: the first column to the left, the others to the right."""
    ruler = ["---", *["--:"] * (len(header) - 1)]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    rows = [f"| {' | '.join(cells)} |" for cells in (header, *escaped)]
    return "\n".join([rows[0], f"|{'|'.join(ruler)}|", *rows[1:]])


def _cells(row: Row, legend: Legend) -> list[str]:
    """The cells of a row, one for each of ``COLUMNS`` but the last."""
    return [
        row.what + legend.mark(row.note),
        f"{number(row.value)} {row.unit}",
        _beside(row.reference, row.reference_source, legend),
        times(better_by(row, row.reference)),
        _beside(row.ceiling, row.ceiling_source, legend),
        share(better_by(row, row.ceiling)),
    ]


def _beside(value: float | None, source: str, legend: Legend) -> str:
    return "" if value is None else number(value) + legend.mark(source)


def _ceilings(measured: Mapping[str, float]) -> str:
    """What the machine reached in the same run."""
    known = [(CEILINGS[key], value) for key, value in measured.items() if key in CEILINGS]
    reached = [f"{name} at {number(value / one)} {unit}" for (name, unit, one), value in known]
    return f"; measured: {', '.join(reached)}" if reached else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Bar:
    """One line of the plot; ``row`` is None in the line that names a table."""

    label: str
    color: str
    row: Row | None = None


def plot(tables: Sequence[Table], path: Path) -> None:
    """Draw every row that has a reference or a ceiling.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("matplotlib", "the plot", "report") from None
    bars = [bar for index, runs in enumerate(_runs(tables)) for bar in _bars(index, runs)]
    figure = Figure(figsize=(11, 1 + 0.19 * len(bars)), layout="constrained")
    ratios, shares = figure.subplots(1, 2, sharey=True)
    ratios.set_xscale("log")
    ratios.set_xlabel("times better than the reference")
    shares.set_xlabel("share of the ceiling")
    for place, bar in enumerate(bars):
        if bar.row:
            _draw(ratios, place, 1, better_by(bar.row, bar.row.reference), times, bar.color)
            _draw(shares, place, 0, better_by(bar.row, bar.row.ceiling), share, bar.color)
    ratios.set_yticks(range(len(bars)), [bar.label for bar in bars], fontsize=7.5)
    for tick, bar in zip(ratios.get_yticklabels(), bars, strict=True):
        tick.set_fontweight("normal" if bar.row else "bold")
    ratios.set_ylim(len(bars) - 0.4, -0.6)
    for axes, style in ((ratios, "{x:g}"), (shares, "{x:.0%}")):
        _tidy(axes)
        axes.xaxis.set_major_formatter(style)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def _bars(index: int, runs: Sequence[Table]) -> list[Bar]:
    color = PALETTE[index % len(PALETTE)]
    bars = [
        Bar(f"{row.what} [{row.unit}]" + (f", {table.device}" * _devices_differ(runs)), color, row)
        for table in runs
        for row in table.rows
        if row.reference or row.ceiling
    ]
    return [Bar(_heading(runs), color), *bars] if bars else []


def _draw(
    axes: Any,
    place: int,
    start: float,
    value: float | None,
    text: Callable[[float], str],
    color: str,
) -> None:
    """Draw a bar from ``start`` to ``value``, and write the value beside it."""
    if value is not None:
        axes.barh(place, value - start, left=start, height=0.7, color=color)
        side = (3, "left") if value >= start else (-3, "right")
        axes.annotate(
            text(value),
            (value, place),
            (side[0], 0),
            textcoords="offset points",
            ha=side[1],
            va="center",
            fontsize=7,
            color=INK,
        )


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.margins(x=0.15)
    axes.tick_params(axis="y", length=0, colors=INK)
    axes.grid(axis="x", color=INK, alpha=0.12, lw=0.6)
    axes.set_axisbelow(True)


def read_tables(folder: Path) -> list[Table]:
    """All tables of a folder, by file name; those of earlier measurements come last.

    Raises:
        InputError: there are none, or a file is not one.
    """
    paths = sorted(folder.glob("*.json"), key=lambda path: (path.stem.startswith("earlier"), path))
    if not paths:
        raise InputError(f"benchmark results: {folder}: no .json files. Run a benchmark first.")
    return [read_table(path) for path in paths]


def check(text: str, path: Path) -> None:
    """Raise InputError if the file is not ``text``."""
    if not path.is_file() or path.read_text() != text:
        raise InputError(
            f"{path} is not what the files of results give. Run: python3 benchmarks/make_results.py"
        )


def main(argv: Sequence[str]) -> None:
    """Parse, read, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; compare the page")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of JSON files")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page")
    parser.add_argument("--plot", type=Path, default=PLOT, help="PNG of the plot")
    args = parser.parse_args(argv)
    tables = read_tables(args.results)
    text = page(tables)
    if args.check:
        check(text, args.page)
        return
    with atomic_file(args.page) as temporary:
        temporary.write_text(text)
    plot(tables, args.plot)
    print(f"{len(tables)} runs in {args.page}, plot in {args.plot}")


if __name__ == "__main__":
    kyvo.common.cli.run(main)

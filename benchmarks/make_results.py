"""Write RESULTS.md, and its plot, from the JSON files of the benchmarks.

    python3 benchmarks/make_results.py
    python3 benchmarks/make_results.py --check

Every file is one table: one run of one script on one machine. Nobody edits RESULTS.md by hand;
--check fails where it is not what the files give.
"""

import argparse
import ast
import math
from collections.abc import Callable, Mapping, Sequence
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

Made by `python3 benchmarks/make_results.py` from the files in `benchmarks/results`; each table is
one run of one script on one machine. "Times better" is the figure over its reference, and "of the
ceiling" the figure over the most that the machine could give; of times, memory and errors, where
less is better, the other way round.

![Times better than the reference, and share of the ceiling](../docs/benchmarks.png)
"""
HEADER = (
    "| what | figure | reference | times better | ceiling | of the ceiling |\n"
    "|---|--:|--:|--:|--:|--:|"
)
CEILINGS = {
    "matmul_flops_per_s": ("products of large matrices", "TFLOP/s", 1e12),
    "copy_bytes_per_s": ("copies", "GB/s", 1e9),
}
"""The measured ceilings of a machine: name, unit, and what one unit is."""


@dataclass(frozen=True)
class Table:
    """One file of results."""

    title: str
    sentence: str
    command: str
    date: str
    machine: Mapping[str, str]
    ceilings: Mapping[str, float]
    rows: Sequence[Row]


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
    """How many times better the figure is than ``other``; None: there is nothing to divide."""
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
    return "\n".join([INTRODUCTION, *map(_section, tables)])


def _section(table: Table) -> str:
    legend = Legend()
    lines = [_line(row, legend) for row in table.rows]
    machine = ", ".join(f"{name} {value}" for name, value in table.machine.items())
    parts = [
        f"## {table.title} ({table.machine.get('device', 'any machine')})",
        _capital(table.sentence),
        f"{table.date}; {machine}{_ceilings(table.ceilings)}.",
        f"`{table.command}`" if table.command else "",
        "\n".join([HEADER, *lines]),
        str(legend),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _line(row: Row, legend: Legend) -> str:
    cells = [
        row.what + legend.mark(row.note),
        f"{number(row.value)} {row.unit}",
        _beside(row.reference, row.reference_source, legend),
        times(better_by(row, row.reference)),
        _beside(row.ceiling, row.ceiling_source, legend),
        share(better_by(row, row.ceiling)),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


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
    bars = [bar for index, table in enumerate(tables) for bar in _bars(index, table)]
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


def _bars(index: int, table: Table) -> list[Bar]:
    color = PALETTE[index % len(PALETTE)]
    device = table.machine.get("device", "")
    rows = [row for row in table.rows if row.reference or row.ceiling]
    bars = [Bar(f"{row.what} [{row.unit}]", color, row) for row in rows]
    return [Bar(f"{table.title} ({device})", color), *bars] if bars else []


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
    """All tables of a folder, by file name; those of earlier figures come last.

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
    print(f"{len(tables)} tables in {args.page}, plot in {args.plot}")


if __name__ == "__main__":
    kyvo.common.cli.run(main)

"""What a report consists of; the template knows these parts and nothing else."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A picture: either SVG markup, or an image as a data URI."""

    caption: str
    svg: str = ""
    image: str = ""


@dataclass(frozen=True)
class Example:
    """One scene: figures side by side, and remarks below."""

    title: str
    figures: tuple[Figure, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first column names the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Bar:
    """A labelled bar; ``share`` is its length in [0, 1]."""

    label: str
    value: str
    share: float


@dataclass(frozen=True)
class Headline:
    """A figure to be seen first."""

    value: str
    label: str
    detail: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        text: what is shown, in plain words, one paragraph each.
        notes: what is missing and why.
    """

    title: str
    text: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    table: Table | None = None
    legend: tuple[Figure, ...] = ()
    examples: tuple[Example, ...] = ()
    figures: tuple[Figure, ...] = ()
    bars: tuple[Bar, ...] = ()

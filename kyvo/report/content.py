"""What a report consists of; the template knows these parts and nothing else."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A plot or an image, with its caption.

    Attributes:
        caption: shown below it.
        svg: a plot's markup.
        image: an image as a data URI.
    """

    caption: str
    svg: str = ""
    image: str = ""


@dataclass(frozen=True)
class Example:
    """One scene.

    Attributes:
        title: its heading.
        figures: side by side.
        remarks: one line each, below.
    """

    title: str
    figures: tuple[Figure, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        header: titles of the columns; the first column names the row.
        rows: as many texts each as the header has.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Bar:
    """A labelled bar.

    Attributes:
        label: what it is about.
        value: as text.
        share: its length in [0, 1].
    """

    label: str
    value: str
    share: float


@dataclass(frozen=True)
class Headline:
    """A value to be seen first.

    Attributes:
        value: as text.
        label: what it is.
        detail: what it is compared with.
    """

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
        table: of values, if there is one.
        legend: the signs in the examples' plots.
        examples: single scenes.
        figures: plots.
        bars: of shares.
    """

    title: str
    text: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    table: Table | None = None
    legend: tuple[Figure, ...] = ()
    examples: tuple[Example, ...] = ()
    figures: tuple[Figure, ...] = ()
    bars: tuple[Bar, ...] = ()

"""The id space: one range of ids per block of tokens. Every id in the project comes from here.

Blocks follow each other: text, numbers, markers, image codes, shape codes. The released data
sets and models fix the first three presets (Kyvo, arXiv 2506.08002, and its released code). An
own domain has its vocabulary in a yaml file (DATA.md).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from kyvo.common.config import load_config
from kyvo.common.errors import InputError, Problems

SCENE_START, SCENE_END = "[SCENE-START]", "[SCENE-END]"
OBJECT_START, OBJECT_END = "[OBJECT-START]", "[OBJECT-END]"
IMAGE_START, IMAGE_END = "[IMAGE-START]", "[IMAGE-END]"
TEXT_START, TEXT_END = "[TEXT-START]", "[TEXT-END]"
OUTPUT_START = "[OUTPUT-START]"

Modality = Literal["image", "three_d", "text"]
BRACKETS: Mapping[Modality, tuple[str, str]] = {
    "image": (IMAGE_START, IMAGE_END),
    "three_d": (SCENE_START, SCENE_END),
    "text": (TEXT_START, TEXT_END),
}
"""The markers around each modality in a sequence. Stored scenes and texts have theirs; images are
stored as bare codes."""

_MOST_NUMBERS, _MOST_DECIMALS = 100_000, 6
_MARKER = re.compile(r"\[[A-Z0-9_-]+\]")
_AROUND = (IMAGE_START, IMAGE_END, TEXT_START, TEXT_END, OUTPUT_START)
_OBJECT = (SCENE_START, SCENE_END, OBJECT_START, OBJECT_END)
_CLEVR_MARKERS = (*_OBJECT, "[SIZE]", "[COLOR]", "[MATERIAL]", "[SHAPE]", "[LOCATION]", *_AROUND)
_OBJECTRON_MARKERS = (*_OBJECT, "[CATEGORY]", "[CENTER_CAM]", "[DIMENSIONS]", *_AROUND)


@dataclass(frozen=True)
class Block:
    """A contiguous range of ids."""

    name: str
    start: int
    size: int

    @property
    def stop(self) -> int:
        """The first id after the block."""
        return self.start + self.size

    def __contains__(self, token_id: int) -> bool:
        return self.start <= token_id < self.stop


@dataclass(frozen=True)
class Vocabulary:
    """Ids of text, numbers, markers, image codes and shape codes.

    Attributes:
        name: the preset's name.
        num_text: ids of the text tokenizer, 0 .. num_text - 1.
        bos, eos: text ids that open and close every sequence.
        numbers: the number strings in id order (ascending values).
        markers: the structure tokens in id order.
        num_image_codes: size of the VQGAN codebook.
        num_shape_codes: size of the 3D shape codebook, 0 if there is none.
        spare_number_rows: embedding rows of the number block that no string uses.
        shipped_tokenizer: file of the package with the text tokenizer; None: the user's own.
    """

    name: str
    num_text: int
    bos: int
    eos: int
    numbers: tuple[str, ...]
    markers: tuple[str, ...]
    num_image_codes: int
    num_shape_codes: int = 0
    # The released Objectron models have 104 number rows for 103 strings, so their marker ids
    # start one row early and [SCENE-START] is embedded as the last number row. Loading them
    # needs exactly that; see ``number_rows`` and ``added_rows``.
    spare_number_rows: int = 0
    shipped_tokenizer: str | None = None

    @property
    def text(self) -> Block:
        """Ids of the text tokenizer."""
        return Block("text", 0, self.num_text)

    @property
    def number(self) -> Block:
        """Ids of the number strings."""
        return Block("number", self.num_text, len(self.numbers))

    @property
    def marker(self) -> Block:
        """Ids of the structure tokens."""
        return Block("marker", self.number.stop, len(self.markers))

    @property
    def image(self) -> Block:
        """Ids of the image codes."""
        return Block("image", self.marker.stop + self.spare_number_rows, self.num_image_codes)

    @property
    def shape(self) -> Block:
        """Ids of the shape codes."""
        return Block("shape", self.image.stop, self.num_shape_codes)

    @property
    def size(self) -> int:
        """Number of rows of the embedding and of the head."""
        return self.shape.stop

    @property
    def number_rows(self) -> Block:
        """Rows that the number embedding covers (Objectron: one more than there are numbers)."""
        return Block("number rows", self.num_text, len(self.numbers) + self.spare_number_rows)

    @property
    def added_rows(self) -> Block:
        """Rows that the marker embedding covers, up to the image codes."""
        return Block("added rows", self.number_rows.stop, self.image.start - self.number_rows.stop)

    @cached_property
    def _marker_ids(self) -> dict[str, int]:
        return {name: self.marker.start + i for i, name in enumerate(self.markers)}

    @cached_property
    def _number_ids(self) -> dict[str, int]:
        return {string: self.number.start + i for i, string in enumerate(self.numbers)}

    def marker_id(self, marker: str) -> int:
        """The id of a structure token such as ``"[SCENE-START]"``."""
        return self._lookup(self._marker_ids, marker, "marker")

    def brackets(self, modality: Modality) -> tuple[int, int]:
        """The ids that open and close a segment of ``modality``."""
        start, end = BRACKETS[modality]
        return self.marker_id(start), self.marker_id(end)

    def number_id(self, string: str) -> int:
        """The id of a number string such as ``"-0.550"``."""
        return self._lookup(self._number_ids, string, "number")

    def _lookup(self, table: dict[str, int], key: str, kind: str) -> int:
        if key not in table:
            raise InputError(
                f"{kind} {key!r} is not in the vocabulary '{self.name}'. "
                "Choose the vocabulary that the data was tokenised with."
            )
        return table[key]

    def token_string(self, token_id: int) -> str | None:
        """The string of a number or a marker; None for ids of other blocks."""
        if token_id in self.marker:
            return self.markers[token_id - self.marker.start]
        if token_id in self.number:
            return self.numbers[token_id - self.number.start]
        return None


def number_strings(low: float, high: float, step: float, decimals: int) -> tuple[str, ...]:
    """Strings of low, low + step, ..., high; zero is never written with a minus sign."""
    count = round((high - low) / step)
    return tuple(format_number(low + i * step, decimals) for i in range(count + 1))


def format_number(value: float, decimals: int) -> str:
    """``value`` with a fixed number of decimals; "-0.000" becomes "0.000"."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def _objectron_numbers() -> tuple[str, ...]:
    """The released bins in metres: x, y, z of the centre, then length, width and height."""
    ranges = [(-0.2, 0.2, 0.01), (-0.2, 0.1, 0.01), (0.0, 3.0, 0.05), (0.0, 1.2, 0.05)]
    strings = {s for low, high, step in ranges for s in number_strings(low, high, step, 2)}
    strings |= {format_number(z, 2) for z in (5, 7.5, 10, 12.5, 15, 17.5)}
    return tuple(sorted(strings, key=float))


_FINE_GRID = number_strings(-3, 3, 0.005, 3)
_PAPER_GRID = number_strings(-3, 3, 0.05, 3)


def _llama_preset(
    name: str,
    numbers: tuple[str, ...],
    markers: tuple[str, ...],
    num_shape_codes: int = 0,
    spare_number_rows: int = 0,
) -> Vocabulary:
    """A vocabulary on top of Llama 3.2's 128,256 text ids, with 1,024 image codes."""
    return Vocabulary(
        name,
        num_text=128256,
        bos=128000,
        eos=128001,
        numbers=numbers,
        markers=markers,
        num_image_codes=1024,
        num_shape_codes=num_shape_codes,
        spare_number_rows=spare_number_rows,
    )


_PRESETS = (
    _llama_preset("clevr", _FINE_GRID, _CLEVR_MARKERS),
    _llama_preset("objaworld", _FINE_GRID, _CLEVR_MARKERS),
    _llama_preset("objectron", _objectron_numbers(), _OBJECTRON_MARKERS, spare_number_rows=1),
    # The paper's final settings: the coarser grid that it found best, without and with shapes.
    _llama_preset("clevr_005", _PAPER_GRID, _CLEVR_MARKERS),
    _llama_preset("paper", _PAPER_GRID, _CLEVR_MARKERS, num_shape_codes=8192),
    # For models that train on a laptop: thousands of rows instead of 130,000.
    Vocabulary(
        "mini",
        num_text=512,
        bos=0,
        eos=1,
        numbers=_PAPER_GRID,
        markers=_CLEVR_MARKERS,
        num_image_codes=512,
        shipped_tokenizer="mini_tokenizer.json",
    ),
)
VOCABULARIES = {preset.name: preset for preset in _PRESETS}


@dataclass(frozen=True)
class NumberRange:
    """The numbers low, low + step, ..., high, as a yaml file gives them."""

    low: float
    high: float
    step: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.low, self.high, self.step))):
            raise InputError("low, high and step: expected finite numbers")
        if self.step <= 0 or self.high < self.low:
            raise InputError("expected low <= high and a step above 0")
        steps = (self.high - self.low) / self.step
        if steps > _MOST_NUMBERS:
            raise InputError(
                f"{steps:.0f} steps from low to high, expected {_MOST_NUMBERS} at most"
            )
        if abs(steps - round(steps)) > 1e-6:
            raise InputError(f"{steps:.6g} steps from low to high, expected a whole number")

    @property
    def values(self) -> tuple[float, ...]:
        """The numbers, ascending."""
        count = round((self.high - self.low) / self.step)
        return tuple(round(self.low + i * self.step, 9) for i in range(count + 1))


def check_markers(markers: Sequence[str]) -> None:
    """Raise InputError, for all that is wrong, unless fields can have these markers."""
    problems = Problems()
    for index, marker in enumerate(markers):
        problems.attempt(_check_marker, marker, markers[:index])
    problems.raise_any()


def _check_marker(marker: str, earlier: Sequence[str]) -> None:
    if not _MARKER.fullmatch(marker):
        raise InputError(f"marker {marker!r}: expected capitals in brackets, such as [SIZE]")
    if marker in _OBJECT or marker in _AROUND:
        raise InputError(f"marker {marker!r}: every vocabulary has it. Choose another name.")
    if marker in earlier:
        raise InputError(f"marker {marker!r} stands there twice. Choose another name.")


def check_numbers(ranges: Sequence[NumberRange], decimals: int) -> None:
    """Raise InputError if a number is lost when it is written with so many decimals."""
    if not 0 <= decimals <= _MOST_DECIMALS:
        raise InputError(f"decimals: expected 0 to {_MOST_DECIMALS}, found {decimals}")
    for value in (value for numbers in ranges for value in numbers.values):
        if float(format_number(value, decimals)) != value:
            raise InputError(
                f"{value} cannot be written with {decimals} decimals. "
                "Raise decimals, or choose a coarser step."
            )


def _check_count(key: str, count: int) -> None:
    if count < 1:
        raise InputError(f"{key}: expected 1 or more, found {count}")


@dataclass(frozen=True)
class _VocabularyFile:
    """The keys of a vocabulary's yaml file."""

    text: Literal["llama", "mini"]
    numbers: tuple[NumberRange, ...]
    decimals: int
    markers: tuple[str, ...]
    num_image_codes: int

    def __post_init__(self) -> None:
        problems = Problems()
        problems.attempt(check_numbers, self.numbers, self.decimals)
        problems.attempt(check_markers, self.markers)
        problems.attempt(_check_count, "num_image_codes", self.num_image_codes)
        problems.raise_any()

    @property
    def number_strings(self) -> tuple[str, ...]:
        """The distinct strings of all ranges, ascending."""
        values = {value for numbers in self.numbers for value in numbers.values}
        return tuple(format_number(value, self.decimals) for value in sorted(values))


# The presets whose text ids, BOS, EOS and tokenizer a file may take over.
_TEXTS = {"llama": "clevr", "mini": "mini"}


def _read_vocabulary(path: str) -> Vocabulary:
    file = load_config(_VocabularyFile, path)
    return replace(
        VOCABULARIES[_TEXTS[file.text]],
        name=path,
        numbers=file.number_strings,
        markers=(*_OBJECT, *file.markers, *_AROUND),
        num_image_codes=file.num_image_codes,
    )


def get_vocabulary(name: str) -> Vocabulary:
    """The preset called ``name``, or the vocabulary of the yaml file ``name``.

    Raises:
        InputError: there is no such preset, or the file has problems; it lists them.
    """
    if name.endswith(".yaml"):
        return _read_vocabulary(name)
    if name not in VOCABULARIES:
        known = ", ".join(VOCABULARIES)
        raise InputError(f"no vocabulary '{name}'; known: {known}, or the path of a .yaml file")
    return VOCABULARIES[name]

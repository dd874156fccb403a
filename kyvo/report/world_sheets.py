"""A look at a world: a contact sheet of its items, and plots of what they hold."""

import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kyvo.common.errors import InputError, MissingDependencyError
from kyvo.common.files import atomic_file, read_json
from kyvo.images.preprocessing import list_images, load_image

_CELL = 2.6  # inches
_CAPTION_WIDTH = 34  # characters beneath one picture


@dataclass(frozen=True)
class WorldItem:
    """An item of a world on disk: its pictures side by side, its scenes, and what is said."""

    pictures: tuple[Path, ...]
    scenes: tuple[dict[str, Any], ...]
    texts: Mapping[str, Any]

    @property
    def caption(self) -> str:
        """The instruction, the question with its answer, or the number of objects."""
        for text in self.texts.values():
            if "instruction" in text:
                return f"{text['instruction']}\n({text['kind']})"
            return f"{text['question']} - {text['answer']}\n({text['family']})"
        return f"{len(self.scenes[0]['objects'])} objects"


def read_items(folder: Path) -> Iterator[WorldItem]:
    """The items of a split, ``WORLD/SPLIT``, in the order of their numbers.

    Raises:
        InputError: no pictures, or a file of an item is missing.
    """
    sides = [folder / name for name in ("source", "target") if (folder / name).is_dir()] or [folder]
    said = [folder / name for name in ("instructions", "questions") if (folder / name).is_dir()]
    for first in list_images(sides[0]):
        scenes = [read_json(side / "scenes" / f"{first.stem}.json", "scene") for side in sides]
        texts = {place.name: read_json(place / f"{first.stem}.json", "text") for place in said}
        pictures = tuple(side / "images" / first.name for side in sides)
        yield WorldItem(pictures, tuple(scenes), texts)


def write_contact_sheet(folder: Path, output: Path, count: int = 12, columns: int = 4) -> None:
    """Draw the first ``count`` items of a split with their captions into a PNG.

    Raises:
        InputError: the split has no items; MissingDependencyError without matplotlib.
    """
    items = list(islice(read_items(folder), count))
    width = len(items[0].pictures)
    columns = min(max(columns // width, 1), len(items))
    rows = -(-len(items) // columns)
    size = (columns * width * _CELL, rows * (_CELL + 0.55))
    figure, axes = _subplots(rows, columns, size)
    for axis in axes:
        axis.axis("off")
    for axis, item in zip(axes, items, strict=False):
        axis.imshow(_side_by_side(item.pictures))
        caption = textwrap.fill(item.caption.split("\n")[0], _CAPTION_WIDTH * width)
        kind = item.caption.partition("\n")[2]
        axis.set_title(f"{caption}\n{kind}".strip(), fontsize=7, y=0, va="top", pad=-4)
    _save(figure, output)


def write_distributions(folder: Path, output: Path) -> None:
    """Plot objects per scene, words, places, and kinds and answers of a split into a PNG.

    Raises:
        InputError: the split has no items, or objects of another layout;
            MissingDependencyError without matplotlib.
    """
    items = list(read_items(folder))
    scenes = [scene for item in items for scene in item.scenes]
    objects = [item for scene in scenes for item in scene["objects"]]
    if not all("3d_coords" in item for item in objects):
        raise InputError(
            f"{folder}: its objects have no '3d_coords': plots are of worlds in CLEVR's or "
            "ObjaWorld's layout only. Leave out --plots."
        )
    counts: dict[str, Counter[Any]] = {
        "objects in a scene": Counter(len(scene["objects"]) for scene in scenes)
    }
    for name in ("size", "material", "shape", "color"):
        # ObjaWorld's shapes name a variant: bench-05.
        words = Counter(item[name].partition("-")[0] for item in objects if name in item)
        counts |= {name: words} if words else {}
    for text in (text for item in items for text in item.texts.values()):
        for name in ("kind", "family", "answer"):
            if name in text:
                counts.setdefault(name, Counter())[text[name]] += 1
    panels: list[Callable[[Any], None]] = [_bars(name, count) for name, count in counts.items()]
    panels.append(_places(objects))
    columns = 3
    rows = -(-len(panels) // columns)
    figure, axes = _subplots(rows, columns, (columns * 4.2, rows * 3.2))
    for axis in axes[len(panels) :]:
        axis.axis("off")
    for axis, draw in zip(axes, panels, strict=False):
        draw(axis)
    figure.suptitle(f"{len(items)} items of {folder.parent.name}/{folder.name}", fontsize=9)
    figure.tight_layout()
    _save(figure, output)


def _bars(name: str, counts: Counter[Any]) -> Callable[[Any], None]:
    def draw(axis: Any) -> None:
        keys = sorted(counts)
        axis.bar([str(key) for key in keys], [counts[key] for key in keys], color="#4269d0")
        axis.set_title(name, fontsize=9)
        turn = 60 if len(keys) > 6 or max(len(str(key)) for key in keys) > 8 else 0
        axis.tick_params(axis="x", labelsize=6, rotation=turn)
        axis.tick_params(axis="y", labelsize=6)

    return draw


def _places(objects: Sequence[Mapping[str, Any]]) -> Callable[[Any], None]:
    def draw(axis: Any) -> None:
        places_N3 = np.array([item["3d_coords"][:3] for item in objects])
        axis.scatter(places_N3[:, 0], places_N3[:, 1], s=2, alpha=0.4, color="#4269d0")
        axis.set_title("places: x, y (scene units)", fontsize=9)
        axis.set_aspect("equal")
        axis.tick_params(labelsize=6)

    return draw


def _side_by_side(paths: Sequence[Path]) -> np.ndarray:
    """Pictures in a row with a white gap, uint8 (H, W, 3)."""
    pictures = [load_image(path) for path in paths]
    gap = np.full((pictures[0].shape[0], max(pictures[0].shape[1] // 40, 1), 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis=1)


def _subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("matplotlib", "the look at a world", "report") from None
    figure = Figure(figsize=size, dpi=110)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _save(figure: Any, output: Path) -> None:
    if output.suffix != ".png":
        raise InputError(f"output: {output}: expected a name that ends in .png.")
    with atomic_file(output) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")

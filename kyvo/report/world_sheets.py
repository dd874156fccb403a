"""An overview of a world: a contact sheet of its items, and plots of what they hold."""

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
from kyvo.common.image_files import list_images, read_image
from kyvo.metrics.fields import take
from kyvo.scenes import SCHEMAS, Scene, SceneObject, Schema

_CELL = 2.6  # inches
_CAPTION_WIDTH = 34  # characters beneath one image


@dataclass(frozen=True)
class WorldItem:
    """An item of a world on disk.

    Attributes:
        images: side by side: one, or source and target.
        scenes: theirs.
        schema: of the scenes' objects.
        texts: what is said about the item, by the folder that holds it.
    """

    images: tuple[Path, ...]
    scenes: tuple[Scene, ...]
    schema: Schema
    texts: Mapping[str, Mapping[str, object]]

    @property
    def caption(self) -> str:
        """The instruction, the question with its answer, or the number of objects."""
        for text in self.texts.values():
            if "instruction" in text:
                return f"{text['instruction']}\n({text['kind']})"
            return f"{text['question']} - {text['answer']}\n({text['family']})"
        return f"{len(self.scenes[0].objects)} objects"


def read_items(folder: Path) -> Iterator[WorldItem]:
    """The items of a split, ``WORLD/SPLIT``, in the order of their numbers.

    Raises:
        InputError: no images, a file of an item is missing, or its objects fit no schema.
    """
    sides = [folder / name for name in ("source", "target") if (folder / name).is_dir()] or [folder]
    said = [folder / name for name in ("instructions", "questions") if (folder / name).is_dir()]
    for first in list_images(sides[0]):
        read = [_read_scene(side / "scenes" / f"{first.stem}.json") for side in sides]
        texts = {place.name: read_json(place / f"{first.stem}.json", "text") for place in said}
        images = tuple(side / "images" / first.name for side in sides)
        yield WorldItem(images, tuple(scene for scene, _ in read), read[0][1], texts)


def _read_scene(path: Path) -> tuple[Scene, Schema]:
    """A scene of a world, and the schema that its objects fit."""
    objects = take(read_json(path, "scene"), "objects", list, f"scene: {path}")
    fitting = (s for s in SCHEMAS.values() if not any(s.faults(item) for item in objects))
    schema = next(fitting, None)
    if schema is None:
        raise InputError(
            f"scene: {path}: its objects fit none of the schemas {', '.join(SCHEMAS)}, of whose "
            "worlds plots are made."
        )
    return schema.parse_scene(objects, str(path)), schema


def write_contact_sheet(folder: Path, output: Path, count: int = 12, columns: int = 4) -> None:
    """Draw the first ``count`` items of a split with their captions into a PNG.

    Raises:
        InputError: the split has no items; MissingDependencyError without matplotlib.
    """
    items = list(islice(read_items(folder), count))
    width = len(items[0].images)
    columns = min(max(columns // width, 1), len(items))
    rows = -(-len(items) // columns)
    size = (columns * width * _CELL, rows * (_CELL + 0.55))
    figure, axes = _subplots(rows, columns, size)
    for axis in axes:
        axis.axis("off")
    for axis, item in zip(axes, items, strict=False):
        axis.imshow(_side_by_side(item.images))
        caption = textwrap.fill(item.caption.split("\n")[0], _CAPTION_WIDTH * width)
        kind = item.caption.partition("\n")[2]
        axis.set_title(f"{caption}\n{kind}".strip(), fontsize=7, y=0, va="top", pad=-4)
    _save(figure, output)


def write_distributions(folder: Path, output: Path) -> None:
    """Plot objects per scene, words, positions, and kinds and answers of a split into a PNG.

    Raises:
        InputError: the split has no items, or objects that fit no schema;
            MissingDependencyError without matplotlib.
    """
    items = list(read_items(folder))
    scenes = [scene for item in items for scene in item.scenes]
    objects = [item for scene in scenes for item in scene.objects]
    counts: dict[str, Counter[Any]] = {
        "objects in a scene": Counter(len(scene.objects) for scene in scenes)
    }
    for fld in items[0].schema.word_fields:
        counts[fld.key] = Counter(item.words[fld.key] for item in objects)
    for text in (text for item in items for text in item.texts.values()):
        for name in ("kind", "family", "answer"):
            if name in text:
                counts.setdefault(name, Counter())[text[name]] += 1
    panels: list[Callable[[Any], None]] = [_bars(name, count) for name, count in counts.items()]
    panels.append(_positions(objects))
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


def _positions(objects: Sequence[SceneObject]) -> Callable[[Any], None]:
    def draw(axis: Any) -> None:
        positions_N2 = np.array([item.position[:2] for item in objects]).reshape(-1, 2)
        axis.scatter(positions_N2[:, 0], positions_N2[:, 1], s=2, alpha=0.4, color="#4269d0")
        axis.set_title("positions: x, y (scene units)", fontsize=9)
        axis.set_aspect("equal")
        axis.tick_params(labelsize=6)

    return draw


def _side_by_side(paths: Sequence[Path]) -> np.ndarray:
    """Images in a row with a white gap, uint8 (H, W, 3)."""
    images = [read_image(path) for path in paths]
    gap = np.full((images[0].shape[0], max(images[0].shape[1] // 40, 1), 3), 255, np.uint8)
    parts = [part for image in images for part in (image, gap)]
    return np.concatenate(parts[:-1], axis=1)


def _subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("matplotlib", "the overview of a world", "report") from None
    figure = Figure(figsize=size, dpi=110)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _save(figure: Any, output: Path) -> None:
    if output.suffix != ".png":
        raise InputError(f"output: {output}: expected a name that ends in .png.")
    with atomic_file(output) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")

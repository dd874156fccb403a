"""A scene from above: true objects filled, predicted ones outlined, both to scale.

What an object looks like is its schema's ``Drawing``. x and y are the first two numbers of the
position.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from kyvo.metrics import Matches
from kyvo.metrics.matching import is_scorable
from kyvo.report.content import Figure
from kyvo.report.plots import INK, new_axes, to_svg
from kyvo.scenes import Scene, SceneObject, Schema
from kyvo.scenes.drawing import Color, Outline

T = TypeVar("T")
_RIGHT = "#2fa56a"
_FAULT = "#e5383b"
_NEUTRAL: Color = (59, 130, 214)
_FAR = 3.0
"""How far from the middle an object may be to be drawn, in widths of the position's grid."""
_SAMPLE_RADIUS = 0.7
"""Radius of the objects in the legend, whose plots are 2.2 wide."""


@dataclass(frozen=True)
class Marker:
    """What a plot shows of an object, in the unit of the position."""

    x: float
    y: float
    radius: float
    color: Color = _NEUTRAL
    outline: Outline = "circle"
    has_glint: bool = False


@dataclass(frozen=True)
class Map:
    """Draws the scenes of one schema.

    Attributes:
        schema: it must have a position of two numbers or more, and a rule of matching.
    """

    schema: Schema

    @property
    def is_possible(self) -> bool:
        """Whether the schema has a position that a plot can show."""
        place = self.schema.position_field
        return place is not None and len(place.axes) > 1

    def is_drawable(self, item: SceneObject) -> bool:
        """Whether an object has all that is scored, known words, and a place near the scene."""
        words = ((f, item.words.get(f.key)) for f in self.schema.word_fields)
        return (
            is_scorable(item, self.schema.rule)
            and all(word in fld.words for fld, word in words)
            and len(item.position) > 1
            and self._is_near(item.position)
        )

    def describe(self, item: SceneObject) -> str:
        """An object in words, such as ``large red metal cube at (1.00, -2.00)``."""
        keys = [fld.key for fld in self.schema.word_fields]
        words = " ".join(item.words.get(key, f"(no {key})")[:40] for key in keys)
        if self.is_drawable(item):
            return f"{words} at ({item.position[0]:.2f}, {item.position[1]:.2f})"
        position = list(item.position) or None
        return f"{words}, position {position!r:.40}"

    def plot(self, predicted: Scene, groundtruth: Scene, matches: Matches) -> str:
        """Draw both scenes from above as SVG; x to the right, y up, in the position's unit.

        Objects that are not drawable are left out.
        """
        figure, axes = new_axes(4.2, 4.2)
        named, true = self._markers(predicted), self._markers(groundtruth)
        wrong = [index for index in matches.false_positives if index in named]
        for marker in true.values():
            _draw_object(axes, marker, filled=True)
        for index, marker in named.items():
            _draw_object(axes, marker, filled=False, faint_fill=index in wrong)
        for predicted_index, true_index in matches.pairs:
            if predicted_index in named and true_index in true:
                _draw_link(axes, named[predicted_index], true[true_index])
        for index in wrong:
            _draw_cross(axes, named[index])
        for index in true.keys() & set(matches.false_negatives):
            _draw_ring(axes, true[index], self._width / 65)
        self._frame(axes, [*named.values(), *true.values()])
        return to_svg(figure)

    def legend(self) -> tuple[Figure, ...]:
        """Small samples of every sign in ``plot``, each with its meaning."""
        drawing = self.schema.drawing
        plain = Marker(0, 0, _SAMPLE_RADIUS)
        shapes = [(word, replace(plain, outline=o)) for word, o in drawing.outlines.items()]
        glint = replace(plain, has_glint=True)
        shapes += [(f"{word} has a glint", glint) for word in drawing.glints]
        return (
            *(Figure(caption, svg=_sample(marker)) for caption, marker in shapes),
            *(Figure(caption, svg=_sample(plain, sign)) for caption, sign in _SIGNS),
        )

    def _markers(self, scene: Scene) -> dict[int, Marker]:
        """Markers of the drawable objects, by index."""
        items = enumerate(scene.objects)
        return {index: self.marker(item) for index, item in items if self.is_drawable(item)}

    def marker(self, item: SceneObject) -> Marker:
        """What the plot shows of a drawable object."""
        drawing, words = self.schema.drawing, list(item.words.values())
        return Marker(
            item.position[0],
            item.position[1],
            _first(drawing.radii, words, self._width / 40),
            _first(drawing.colors, words, _NEUTRAL),
            _first(drawing.outlines, words, "circle"),
            any(word in drawing.glints for word in words),
        )

    @property
    def _ranges(self) -> tuple[tuple[float, float], ...]:
        """Ends of the position's grid along x and y."""
        place = self.schema.position_field
        assert place is not None, "the schema has no position"
        return tuple((axis.grid[0], axis.grid[-1]) for axis in place.axes[:2])

    @property
    def _width(self) -> float:
        return max(high - low for low, high in self._ranges)

    def _is_near(self, position: tuple[float, ...]) -> bool:
        middles = [(low + high) / 2 for low, high in self._ranges]
        return all(
            abs(value - middle) <= _FAR * self._width
            for value, middle in zip(position[:2], middles, strict=True)
        )

    def _frame(self, axes: Any, markers: Iterable[Marker]) -> None:
        """Equal axes that show every object, and from where the images are seen."""
        place, drawing = self.schema.position_field, self.schema.drawing
        assert place is not None, "the schema has no position"
        margin = 0.1 * self._width if drawing.margin is None else drawing.margin
        points = [(marker.x, marker.y) for marker in markers]
        limits = []
        for axis, (low, high) in enumerate(self._ranges):
            values = [point[axis] for point in points]
            limits.append((min([low, *values]) - margin, max([high, *values]) + margin))
        names = [axis.name for axis in place.axes[:2]]
        axes.set(xlim=limits[0], ylim=limits[1], aspect="equal", xlabel=names[0], ylabel=names[1])
        if drawing.viewpoint is not None:
            _draw_viewpoint(axes, drawing.viewpoint, limits)


def _first(hints: Mapping[str, T], words: Sequence[str], default: T) -> T:
    """The hint of the first word that has one."""
    return next((hints[word] for word in words if word in hints), default)


_SIGNS = (
    ("outline: a prediction that is right, joined to its object", "right"),
    ("cross: a prediction that matches nothing (false positive)", "cross"),
    ("red ring: an object that was missed (false negative)", "ring"),
)


def _sample(marker: Marker, sign: str = "") -> str:
    """One object with a sign."""
    figure, axes = new_axes(0.5, 0.5)
    if sign != "cross":
        _draw_object(axes, marker, filled=True)
    if sign == "right":
        shifted = replace(marker, x=0.18, y=0.12)
        _draw_object(axes, shifted, filled=False)
        _draw_link(axes, shifted, marker)
    elif sign == "cross":
        _draw_object(axes, marker, filled=False, faint_fill=True)
        _draw_cross(axes, marker)
    elif sign == "ring":
        _draw_ring(axes, marker, 0.12)
    axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
    axes.set_axis_off()
    return to_svg(figure)


def _draw_object(axes: Any, marker: Marker, filled: bool, faint_fill: bool = False) -> None:
    color = tuple(channel / 255 for channel in marker.color)
    face = (*color, 1.0) if filled else (*color, 0.45 if faint_fill else 0.0)
    style = {"facecolor": face, "edgecolor": "none" if filled else INK, "linewidth": 1.3}
    axes.add_patch(_patch(marker, marker.radius, **style))
    detail = {"fill": False, "linewidth": 0.9, "edgecolor": "white" if filled else INK}
    if marker.outline == "ring":
        axes.add_patch(_patch(marker, 0.75 * marker.radius, **detail, alpha=0.7))
    if marker.has_glint and (filled or faint_fill):
        _draw_glint(axes, marker)


def _patch(marker: Marker, radius: float, **style: Any) -> Any:
    from matplotlib.patches import Circle, Rectangle

    if marker.outline == "square":
        return Rectangle((marker.x - radius, marker.y - radius), 2 * radius, 2 * radius, **style)
    return Circle((marker.x, marker.y), radius, **style)


def _draw_glint(axes: Any, marker: Marker) -> None:
    from matplotlib.patches import Ellipse

    radius = marker.radius
    center = (marker.x - 0.33 * radius, marker.y + 0.33 * radius)
    style: dict[str, Any] = {"angle": 45, "color": "white", "alpha": 0.9}
    axes.add_patch(Ellipse(center, 0.45 * radius, 0.28 * radius, **style))


def _draw_link(axes: Any, predicted: Marker, groundtruth: Marker) -> None:
    xs, ys = [groundtruth.x, predicted.x], [groundtruth.y, predicted.y]
    axes.plot(xs, ys, color="white", lw=3.6, solid_capstyle="round")
    axes.plot(xs, ys, color=_RIGHT, lw=2.0, solid_capstyle="round", marker="o", ms=2.4)


def _draw_cross(axes: Any, marker: Marker) -> None:
    axes.plot([marker.x], [marker.y], color=_FAULT, marker="x", ms=9, mew=2.2)


def _draw_ring(axes: Any, marker: Marker, gap: float) -> None:
    from matplotlib.patches import Circle

    radius = marker.radius * (math.sqrt(2) if marker.outline == "square" else 1.0) + gap
    style: dict[str, Any] = {"edgecolor": _FAULT, "lw": 1.6, "ls": (0, (4, 2))}
    axes.add_patch(Circle((marker.x, marker.y), radius, fill=False, **style))


def _draw_viewpoint(
    axes: Any, viewpoint: tuple[float, float], limits: list[tuple[float, float]]
) -> None:
    """An arrow, from the plot's edge, to where the camera is."""
    half = min(max(map(abs, ends)) for ends in limits)
    x, y = (0.97 * half * value / max(map(abs, viewpoint)) for value in viewpoint)
    axes.annotate(
        "camera",
        xy=(0.8 * x, 0.8 * y),
        xytext=(x, y),
        ha="right",
        va="center",
        color=INK,
        fontsize=8,
        arrowprops={"arrowstyle": "->", "color": INK},
    )

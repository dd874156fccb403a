"""A scene from above: true objects filled, predicted ones outlined, both to scale."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kyvo.metrics import RULES, Matches
from kyvo.metrics.matching import SceneObject
from kyvo.report.content import Figure
from kyvo.report.plots import INK, new_axes, to_svg
from kyvo.world.constants import CAMERA, COLORS, MATERIALS, SHAPES, SIZES

_HIT = "#2fa56a"
_FAULT = "#e5383b"
_HALF_WIDTH = 4.0
"""Half the plot's width in scene units; objects lie within 3, their edges within 3.7."""
_FAR = 20.0
_WORDS: Mapping[str, Collection[str]] = {
    "size": SIZES,
    "color": COLORS,
    "material": MATERIALS,
    "shape": SHAPES,
}


def is_drawable(item: SceneObject) -> bool:
    """Whether an object has all its fields, known words, and a place near the scene."""
    return (
        RULES["clevr"].read(item) is not None
        and len(item["3d_coords"]) > 1
        and all(item[field] in words for field, words in _WORDS.items())
        and max(map(abs, place(item))) <= _FAR
    )


def place(item: SceneObject) -> tuple[float, float]:
    """x and y of a drawable object."""
    x, y = item["3d_coords"][:2]
    return x, y


def describe(item: SceneObject) -> str:
    """An object in words, such as ``large red metal cube at (1.00, -2.00)``."""
    words = " ".join(str(item.get(field, f"(no {field})"))[:40] for field in _WORDS)
    if not is_drawable(item):
        return f"{words}, position {item.get('3d_coords')!r:.40}"
    x, y = place(item)
    return f"{words} at ({x:.2f}, {y:.2f})"


def plot_scene(
    predicted: Sequence[SceneObject], groundtruth: Sequence[SceneObject], matches: Matches
) -> str:
    """Draw both scenes from above as SVG; x to the right, y up, in scene units.

    Objects that are not drawable are left out.
    """
    figure, axes = new_axes(4.2, 4.2)
    named, true = _drawable(predicted), _drawable(groundtruth)
    wrong = [index for index in matches.false_positives if index in named]
    for item in true.values():
        _draw_object(axes, item, filled=True)
    for index, item in named.items():
        _draw_object(axes, item, filled=False, faint_fill=index in wrong)
    for predicted_index, true_index in matches.pairs:
        if predicted_index in named and true_index in true:
            _draw_link(axes, named[predicted_index], true[true_index])
    for index in wrong:
        _draw_cross(axes, named[index])
    for index in true.keys() & set(matches.false_negatives):
        _draw_ring(axes, true[index])
    _frame(axes, [*named.values(), *true.values()])
    return to_svg(figure)


def legend() -> tuple[Figure, ...]:
    """Small samples of every sign in ``plot_scene``, each with its meaning."""
    return tuple(Figure(caption, svg=_sample(**parts)) for caption, parts in _SAMPLES)


_SAMPLES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("cube", {"shape": "cube"}),
    ("sphere", {"shape": "sphere"}),
    ("cylinder", {"shape": "cylinder"}),
    ("metal has a glint, rubber none", {"material": "metal"}),
    ("outline: a prediction that is right, joined to its object", {"sign": "hit"}),
    ("cross: a prediction that matches nothing (false positive)", {"sign": "cross"}),
    ("red ring: an object that was missed (false negative)", {"sign": "ring"}),
)


def _drawable(items: Sequence[SceneObject]) -> dict[int, SceneObject]:
    return {index: item for index, item in enumerate(items) if is_drawable(item)}


def _sample(shape: str = "sphere", material: str = "rubber", sign: str = "") -> str:
    item = {"size": "large", "color": "cyan", "material": material, "shape": shape}
    figure, axes = new_axes(0.5, 0.5)
    centred = {**item, "3d_coords": [0.0, 0.0, 0.7]}
    shifted = {**item, "3d_coords": [0.18, 0.12, 0.7]}
    if sign != "cross":
        _draw_object(axes, centred, filled=True)
    if sign == "hit":
        _draw_object(axes, shifted, filled=False)
        _draw_link(axes, shifted, centred)
    elif sign == "cross":
        _draw_object(axes, centred, filled=False, faint_fill=True)
        _draw_cross(axes, centred)
    elif sign == "ring":
        _draw_ring(axes, centred)
    axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
    axes.set_axis_off()
    return to_svg(figure)


def _draw_object(axes: Any, item: SceneObject, filled: bool, faint_fill: bool = False) -> None:
    color = tuple(channel / 255 for channel in COLORS[item["color"]])
    face = (*color, 1.0) if filled else (*color, 0.45 if faint_fill else 0.0)
    style = {"facecolor": face, "edgecolor": "none" if filled else INK, "linewidth": 1.3}
    radius = SIZES[item["size"]]
    axes.add_patch(_outline(item, radius, **style))
    detail = {"fill": False, "linewidth": 0.9, "edgecolor": "white" if filled else INK}
    if item["shape"] == "cylinder":
        axes.add_patch(_outline(item, 0.75 * radius, **detail, alpha=0.7))
    if item["material"] == "metal" and (filled or faint_fill):
        _draw_glint(axes, item, radius)


def _outline(item: SceneObject, radius: float, **style: Any) -> Any:
    from matplotlib.patches import Circle, Rectangle

    x, y = place(item)
    if item["shape"] == "cube":
        return Rectangle((x - radius, y - radius), 2 * radius, 2 * radius, **style)
    return Circle((x, y), radius, **style)


def _draw_glint(axes: Any, item: SceneObject, radius: float) -> None:
    from matplotlib.patches import Ellipse

    x, y = place(item)
    center = (x - 0.33 * radius, y + 0.33 * radius)
    style: dict[str, Any] = {"angle": 45, "color": "white", "alpha": 0.9}
    axes.add_patch(Ellipse(center, 0.45 * radius, 0.28 * radius, **style))


def _draw_link(axes: Any, predicted: SceneObject, groundtruth: SceneObject) -> None:
    (x0, y0), (x1, y1) = place(groundtruth), place(predicted)
    axes.plot([x0, x1], [y0, y1], color="white", lw=3.6, solid_capstyle="round")
    axes.plot([x0, x1], [y0, y1], color=_HIT, lw=2.0, solid_capstyle="round", marker="o", ms=2.4)


def _draw_cross(axes: Any, item: SceneObject) -> None:
    x, y = place(item)
    axes.plot([x], [y], color=_FAULT, marker="x", ms=9, mew=2.2)


def _draw_ring(axes: Any, item: SceneObject) -> None:
    from matplotlib.patches import Circle

    reach = math.sqrt(2) if item["shape"] == "cube" else 1.0
    radius = SIZES[item["size"]] * reach + 0.12
    axes.add_patch(
        Circle(place(item), radius, fill=False, edgecolor=_FAULT, lw=1.6, ls=(0, (4, 2)))
    )


def _frame(axes: Any, items: Sequence[SceneObject]) -> None:
    """Equal axes that show every object, and where the camera stands."""
    reach = [abs(value) + 1 for item in items for value in place(item)]
    half = max([_HALF_WIDTH, *reach])
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal", xlabel="x", ylabel="y")
    x, y = (0.97 * half * value / max(map(abs, CAMERA[:2])) for value in CAMERA[:2])
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

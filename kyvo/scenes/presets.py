"""The released data sets' schemas: words, grids, rules of matching, and how they are drawn."""

import math

from kyvo.scenes.drawing import Drawing
from kyvo.scenes.folders import ENVIRONMENTS
from kyvo.scenes.matching_rule import MatchingRule, Tolerance
from kyvo.scenes.schema import Axis, NumberField, Schema, WordField


def _grid(low: float, high: float, step: float) -> tuple[float, ...]:
    return tuple(round(low + i * step, 6) for i in range(round((high - low) / step) + 1))


_SPACE = _grid(-3, 3, 0.05)

CLEVR = Schema(
    "clevr",
    (
        WordField("[SIZE]", "size", ("large", "small")),
        WordField(
            "[COLOR]",
            "color",
            ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
        ),
        WordField("[MATERIAL]", "material", ("rubber", "metal")),
        WordField("[SHAPE]", "shape", ("cube", "sphere", "cylinder")),
        NumberField(
            "[LOCATION]", "3d_coords", tuple(Axis(n, "scene units", _SPACE) for n in "xyz")
        ),
    ),
    decimals=3,
    matching=MatchingRule(
        words=("size", "color", "material", "shape"),
        position="3d_coords",
        distance_axes=2,
        broadcasts=True,
    ),
    drawing=Drawing(
        colors={
            "gray": (87, 87, 87),
            "red": (173, 35, 35),
            "blue": (42, 75, 215),
            "green": (29, 105, 20),
            "brown": (129, 74, 25),
            "purple": (129, 38, 192),
            "cyan": (41, 208, 208),
            "yellow": (255, 238, 51),
        },
        radii={"large": 0.7, "small": 0.35},
        outlines={"cube": "square", "sphere": "circle", "cylinder": "ring"},
        glints=("metal",),
        margin=1.0,
        viewpoint=(7.48113155, -6.50763988),
        is_traced=True,
    ),
)

OBJAWORLD = Schema(
    "objaworld",
    (
        WordField(
            "[SHAPE]",
            "shape",
            ("person", "bird", "bench", "lamppost", "sofa", "table", "chair", "barrel"),
        ),
        NumberField(
            "[LOCATION]",
            "3d_coords",
            (
                *(Axis(n, "scene units", _SPACE) for n in "xyz"),
                # The released number block ends at 3.000, so a yaw near pi is written as 3.000.
                Axis("yaw", "radians", _SPACE, reach=0.15, period=2 * math.pi),
            ),
        ),
    ),
    decimals=3,
    variant_separator="-",
    yaw_key="rotation",
    matching=MatchingRule(
        words=("shape",),
        position="3d_coords",
        distance_axes=2,
        tolerances=(
            Tolerance("3d_coords", (2,), 0.05),
            Tolerance("3d_coords", (3,), 0.15, period=2 * math.pi),
        ),
    ),
    scene_folder=ENVIRONMENTS,
)

OBJECTRON = Schema(
    "objectron",
    (
        WordField(
            "[CATEGORY]",
            "category",
            (
                "bicycle",
                "book",
                "bottle",
                "camera",
                "cereal box",
                "chair",
                "cup",
                "laptop",
                "shoes",
            ),
        ),
        NumberField(
            "[CENTER_CAM]",
            "center_cam",
            (
                Axis("x", "metres", _grid(-0.2, 0.2, 0.01)),
                Axis("y", "metres", _grid(-0.2, 0.1, 0.01)),
                Axis("z", "metres", (*_grid(0, 3, 0.05), 5, 7.5, 10, 12.5, 15, 17.5)),
            ),
        ),
        NumberField(
            "[DIMENSIONS]",
            "dimensions",
            (
                Axis("length", "metres", _grid(0, 1, 0.05)),
                Axis("width", "metres", _grid(0, 1, 0.05)),
                Axis("height", "metres", _grid(0, 1.2, 0.05)),
            ),
        ),
    ),
    decimals=2,
    name_field="file_path",
    matching=MatchingRule(
        words=("category",),
        position="center_cam",
        distance_axes=3,
        dimensions=Tolerance("dimensions", (0, 1, 2), 0.05, is_inclusive=True),
        is_nearest=True,
    ),
    scene_folder=None,
)

SCHEMAS = {schema.name: schema for schema in (CLEVR, OBJAWORLD, OBJECTRON)}
DEFAULT_SCHEMA = CLEVR.name
"""The schema of a command that is given none, as the released commands have it."""

OMNI3D = OBJECTRON
"""The schema of the objects in Omni3D's files, where a command names none that has their fields."""

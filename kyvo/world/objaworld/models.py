"""The objects of the ObjaWorld-like world: what each kind is built of, and its variants.

Every kind looks different from each side, so that an image shows its yaw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from kyvo.world.json_values import Vector
from kyvo.world.objaworld.parts import Part, Pose, assemble, corners
from kyvo.world.render.description import Primitive


@dataclass(frozen=True)
class Variant:
    """One of a kind: its length (along its view), width and height (metres), and its colours.

    Heights are multiples of 0.1, so that the z of the centre is on the number grid of 0.05.
    """

    size: Vector
    paints: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A kind of object.

    Attributes:
        size: length, width and height of the parts as they are written here (metres).
        parts: see ``Part``.
        paints: linear RGB of the colours that all variants share.
        variants: "bench-05" is number 5 of the bench.
    """

    size: Vector
    parts: Sequence[Part]
    paints: Mapping[str, Vector]
    variants: Sequence[Variant]

    def primitives(
        self, number: int, x: float, y: float, yaw: float, object_index: int
    ) -> list[Primitive]:
        """Return variant ``number`` at (x, y) as primitives."""
        variant = self.variants[number]
        length, width, height = np.divide(variant.size, self.size).tolist()
        pose = Pose(x, y, yaw, (length, width, height))
        return assemble(self.parts, {**self.paints, **variant.paints}, pose, object_index)


WHITE = (0.75, 0.75, 0.72)
BLACK = (0.02, 0.02, 0.02)
IRON = (0.05, 0.055, 0.06)
RED = (0.55, 0.04, 0.04)
BLUE = (0.06, 0.14, 0.55)
GREEN = (0.05, 0.3, 0.1)
YELLOW = (0.75, 0.5, 0.04)
ORANGE = (0.8, 0.25, 0.02)
PURPLE = (0.28, 0.06, 0.4)
TEAL = (0.03, 0.35, 0.36)
GREY = (0.25, 0.25, 0.27)
TAN = (0.5, 0.33, 0.18)
OAK = (0.42, 0.22, 0.08)
BIRCH = (0.85, 0.7, 0.45)
WALNUT = (0.14, 0.06, 0.025)

PERSON = Model(
    size=(0.76, 0.72, 1.7),
    parts=(
        Part("cylinder", (0.1, 0.11, 0.44), (0.085, 0.085, 0.42), "trousers", (0, -0.25, 0)),
        Part("cylinder", (-0.1, -0.11, 0.44), (0.085, 0.085, 0.42), "trousers", (0, 0.25, 0)),
        Part("cube", (0.26, 0.11, 0.05), (0.15, 0.075, 0.05), "shoes"),
        Part("cube", (-0.14, -0.11, 0.05), (0.15, 0.075, 0.05), "shoes"),
        Part("cylinder", (0, 0, 1.08), (0.16, 0.23, 0.3), "shirt"),
        Part("cylinder", (-0.1, 0.3, 1.12), (0.06, 0.06, 0.29), "shirt", (0, 0.4, 0)),
        Part("cylinder", (0.12, -0.3, 1.14), (0.06, 0.06, 0.29), "shirt", (0, -0.6, 0)),
        Part("sphere", (0.02, 0, 1.53), (0.14, 0.13, 0.17), "skin"),
        Part("sphere", (-0.035, 0, 1.57), (0.14, 0.145, 0.135), "hair"),
        Part("cube", (-0.24, 0, 1.14), (0.11, 0.18, 0.22), "bag"),
    ),
    paints={"skin": (0.6, 0.34, 0.22), "shoes": BLACK, "hair": WALNUT},
    variants=(
        Variant((0.75, 0.7, 1.7), {"shirt": RED, "trousers": BLUE, "bag": YELLOW}),
        Variant((0.8, 0.8, 1.8), {"shirt": BLUE, "trousers": GREY, "bag": ORANGE}),
        Variant((0.75, 0.7, 1.6), {"shirt": YELLOW, "trousers": BLACK, "bag": PURPLE}),
        Variant((0.6, 0.6, 1.3), {"shirt": WHITE, "trousers": PURPLE, "bag": RED}),
    ),
)

BIRD = Model(
    size=(1.13, 0.41, 0.8),
    parts=(
        Part("sphere", (-0.05, 0, 0.4), (0.32, 0.18, 0.19), "body", (0, -0.2, 0)),
        Part("sphere", (-0.1, 0.16, 0.43), (0.24, 0.045, 0.13), "wing", (0, -0.2, 0)),
        Part("sphere", (-0.1, -0.16, 0.43), (0.24, 0.045, 0.13), "wing", (0, -0.2, 0)),
        Part("cylinder", (0.22, 0, 0.56), (0.075, 0.075, 0.16), "body", (0, 0.25, 0)),
        Part("sphere", (0.27, 0, 0.67), (0.14, 0.12, 0.13), "body"),
        Part("sphere", (0.42, 0, 0.66), (0.15, 0.05, 0.04), "beak"),
        Part("cube", (-0.4, 0, 0.35), (0.16, 0.1, 0.025), "wing", (0, 0.2, 0)),
        Part("cylinder", (0, 0.08, 0.12), (0.025, 0.025, 0.12), "beak"),
        Part("cylinder", (0, -0.08, 0.12), (0.025, 0.025, 0.12), "beak"),
    ),
    paints={"beak": ORANGE},
    variants=(
        Variant((1.1, 0.4, 0.8), {"body": WHITE, "wing": GREY}),
        Variant((1.0, 0.4, 0.7), {"body": (0.1, 0.25, 0.65), "wing": (0.04, 0.08, 0.3)}),
        Variant((1.0, 0.4, 0.7), {"body": (0.65, 0.1, 0.06), "wing": (0.3, 0.04, 0.03)}),
        Variant((0.9, 0.4, 0.6), {"body": YELLOW, "wing": (0.4, 0.22, 0.02)}),
    ),
)

BENCH = Model(
    size=(0.6, 1.6, 0.8),
    parts=(
        Part("cube", (0.17, 0, 0.42), (0.1, 0.8, 0.03), "wood"),
        Part("cube", (-0.07, 0, 0.42), (0.1, 0.8, 0.03), "wood"),
        Part("cube", (-0.21, 0, 0.55), (0.025, 0.8, 0.065), "wood", (0, -0.2, 0)),
        Part("cube", (-0.25, 0, 0.73), (0.025, 0.8, 0.065), "wood", (0, -0.2, 0)),
        Part("cube", (0.02, 0.6, 0.195), (0.24, 0.04, 0.195), "frame"),
        Part("cube", (0.02, -0.6, 0.195), (0.24, 0.04, 0.195), "frame"),
        Part("cube", (-0.25, 0.6, 0.55), (0.03, 0.04, 0.24), "frame", (0, -0.2, 0)),
        Part("cube", (-0.25, -0.6, 0.55), (0.03, 0.04, 0.24), "frame", (0, -0.2, 0)),
    ),
    paints={"frame": IRON},
    variants=(
        Variant((0.6, 1.6, 0.8), {"wood": OAK}),
        Variant((0.6, 1.8, 0.8), {"wood": (0.5, 0.07, 0.03)}),
        Variant((0.6, 1.3, 0.8), {"wood": WHITE, "frame": GREEN}),
        Variant((0.7, 1.5, 0.9), {"wood": WALNUT, "frame": GREY}),
        Variant((0.6, 1.4, 0.8), {"wood": (0.1, 0.2, 0.4), "frame": WHITE}),
        Variant((0.7, 1.7, 0.9), {"wood": YELLOW}),
    ),
)

LAMPPOST = Model(
    size=(0.97, 0.4, 2.4),
    parts=(
        Part("cylinder", (0, 0, 0.1), (0.2, 0.2, 0.1), "iron"),
        Part("cylinder", (0, 0, 1.25), (0.065, 0.065, 1.15), "iron"),
        Part("cube", (0.25, 0, 2.3), (0.32, 0.04, 0.04), "iron"),
        Part("cylinder", (0.5, 0, 2.22), (0.18, 0.18, 0.06), "iron"),
        Part("sphere", (0.5, 0, 2.12), (0.15, 0.15, 0.15), "bulb"),
        Part("cube", (-0.17, 0, 1.75), (0.12, 0.02, 0.25), "banner"),
    ),
    paints={"bulb": (1.0, 0.9, 0.55)},
    variants=(
        Variant((0.9, 0.4, 2.4), {"iron": BLACK, "banner": RED}),
        Variant((0.9, 0.4, 2.2), {"iron": (0.02, 0.1, 0.05), "banner": YELLOW}),
        Variant((0.8, 0.4, 2.0), {"iron": GREY, "banner": BLUE}),
        Variant((1.0, 0.4, 2.4), {"iron": WHITE, "banner": PURPLE}),
    ),
)

SOFA = Model(
    size=(0.9, 1.9, 0.8),
    parts=(
        Part("cube", (0, 0, 0.2), (0.44, 0.9, 0.2), "fabric"),
        Part("cube", (-0.33, 0, 0.5), (0.12, 0.95, 0.3), "fabric"),
        Part("cube", (0.02, 0.83, 0.3), (0.43, 0.12, 0.3), "fabric"),
        Part("cube", (0.02, -0.83, 0.3), (0.43, 0.12, 0.3), "fabric"),
        Part("cube", (0.11, 0.355, 0.46), (0.33, 0.345, 0.08), "cushion"),
        Part("cube", (0.11, -0.355, 0.46), (0.33, 0.345, 0.08), "cushion"),
        Part("cube", (-0.1, 0.5, 0.61), (0.06, 0.2, 0.18), "pillow", (0, -0.3, 0)),
    ),
    paints={},
    variants=(
        Variant((0.9, 1.9, 0.8), {"fabric": GREY, "cushion": (0.4, 0.4, 0.42), "pillow": RED}),
        Variant((0.9, 1.7, 0.8), {"fabric": RED, "cushion": (0.7, 0.12, 0.1), "pillow": WHITE}),
        Variant((0.9, 1.8, 0.8), {"fabric": TEAL, "cushion": (0.1, 0.5, 0.5), "pillow": YELLOW}),
        Variant((0.9, 1.4, 0.9), {"fabric": TAN, "cushion": (0.65, 0.5, 0.33), "pillow": BLUE}),
    ),
)

TABLE = Model(
    size=(0.9, 1.5, 1.0),
    parts=(
        Part("cube", (0, 0, 0.71), (0.45, 0.75, 0.04), "wood"),
        Part("cube", (0.36, 0.66, 0.335), (0.045, 0.045, 0.335), "wood"),
        Part("cube", (0.36, -0.66, 0.335), (0.045, 0.045, 0.335), "wood"),
        Part("cube", (-0.36, 0.66, 0.335), (0.045, 0.045, 0.335), "wood"),
        Part("cube", (-0.36, -0.66, 0.335), (0.045, 0.045, 0.335), "wood"),
        Part("cylinder", (0, 0.42, 0.82), (0.08, 0.08, 0.07), "vase"),
        Part("sphere", (0, 0.42, 0.9), (0.13, 0.13, 0.1), "flowers"),
        Part("cube", (0.15, -0.35, 0.77), (0.17, 0.24, 0.02), "book"),
    ),
    paints={"flowers": (0.75, 0.1, 0.3), "vase": WHITE, "book": BLUE},
    variants=(
        Variant((0.9, 1.5, 1.0), {"wood": BIRCH}),
        Variant((0.8, 1.2, 0.9), {"wood": WALNUT, "book": YELLOW}),
        Variant((0.8, 1.4, 1.0), {"wood": WHITE, "vase": TEAL, "book": RED}),
        Variant((1.0, 1.3, 0.8), {"wood": TAN, "flowers": PURPLE, "book": BLACK}),
    ),
)

CHAIR = Model(
    size=(0.57, 0.56, 1.0),
    parts=(
        Part("cube", (0, 0, 0.47), (0.28, 0.27, 0.035), "seat"),
        Part("cube", (0.24, 0.23, 0.22), (0.035, 0.035, 0.22), "frame"),
        Part("cube", (0.24, -0.23, 0.22), (0.035, 0.035, 0.22), "frame"),
        Part("cube", (-0.25, 0.23, 0.49), (0.035, 0.035, 0.49), "frame"),
        Part("cube", (-0.25, -0.23, 0.49), (0.035, 0.035, 0.49), "frame"),
        Part("cube", (-0.25, 0, 0.84), (0.03, 0.28, 0.16), "seat"),
    ),
    paints={},
    variants=(
        Variant((0.6, 0.6, 1.0), {"frame": WALNUT, "seat": GREEN}),
        Variant((0.6, 0.6, 1.0), {"frame": BLACK, "seat": RED}),
        Variant((0.6, 0.6, 0.9), {"frame": WHITE, "seat": TEAL}),
        Variant((0.6, 0.7, 1.1), {"frame": IRON, "seat": YELLOW}),
    ),
)

MODELS: Mapping[str, Model] = {
    "person": PERSON,
    "bird": BIRD,
    "bench": BENCH,
    "lamppost": LAMPPOST,
    "sofa": SOFA,
    "table": TABLE,
    "chair": CHAIR,
}


def variant_name(kind: str, number: int) -> str:
    """Return ObjaWorld's name of an asset, such as "bench-05"."""
    return f"{kind}-{number:02d}"


ASSETS: Mapping[str, tuple[str, int]] = {
    variant_name(kind, number): (kind, number)
    for kind, model in MODELS.items()
    for number in range(len(model.variants))
}
"""The kind and the variant behind every asset's name."""


def center_height(asset: str) -> float:
    """Return the z of an asset's centre (metres): half its height."""
    kind, number = ASSETS[asset]
    return MODELS[kind].variants[number].size[2] / 2


@cache
def footprint_radius(asset: str) -> float:
    """Return the radius (metres) of the disc on the ground that holds an asset at any yaw."""
    kind, number = ASSETS[asset]
    primitives = MODELS[kind].primitives(number, 0.0, 0.0, 0.0, object_index=0)
    return max(float(np.hypot(*corners(primitive)[:, :2].T).max()) for primitive in primitives)


def find_asset(shape: str, z: float) -> str | None:
    """Return the asset that a shape's word and height mean, None if there is no such shape.

    A kind without a number, as a model writes it, is the variant whose centre is nearest to ``z``.
    """
    named = {asset for asset, (kind, _) in ASSETS.items() if shape in (asset, kind)}
    return min(sorted(named), key=lambda asset: abs(center_height(asset) - z), default=None)

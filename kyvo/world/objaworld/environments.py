"""The places of the ObjaWorld-like world: which objects are there, and what is around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kyvo.world.json_values import Vector
from kyvo.world.objaworld.parts import Part
from kyvo.world.render.description import Environment


@dataclass(frozen=True)
class Place:
    """A place.

    Attributes:
        kinds: of the objects that are there.
        environment: ground and sky.
        scenery: parts, in the world's frame, that belong to no object; they are beyond 4 metres.
        paints: linear RGB of the scenery's colours.
    """

    kinds: Sequence[str]
    environment: Environment
    scenery: Sequence[Part]
    paints: Mapping[str, Vector]


PARK = Place(
    kinds=("person", "bird", "bench", "lamppost"),
    environment=Environment(
        even=(0.17, 0.42, 0.06),
        odd=(0.22, 0.52, 0.08),
        stripe=1.3,
        horizon=0.6,
        sky=(0.25, 0.5, 0.9),
        ambient=0.15,
    ),
    scenery=(
        Part("cylinder", (-8.5, 3.5, 0.9), (0.25, 0.25, 0.9), "bark"),
        Part("sphere", (-8.5, 3.5, 2.6), (1.6, 1.6, 1.3), "leaves"),
        Part("cylinder", (-4.0, 8.5, 0.7), (0.22, 0.22, 0.7), "bark"),
        Part("sphere", (-4.0, 8.5, 2.2), (1.3, 1.3, 1.1), "leaves"),
    ),
    paints={"bark": (0.15, 0.08, 0.04), "leaves": (0.05, 0.22, 0.04)},
)

LIVINGROOM = Place(
    kinds=("person", "sofa", "table", "chair"),
    environment=Environment(
        even=(0.5, 0.27, 0.12), odd=(0.42, 0.21, 0.09), stripe=0.5, ambient=0.15
    ),
    scenery=(
        Part("cube", (-6.6, 0, 3.5), (0.1, 12, 3.5), "wall"),
        Part("cube", (0, 6.6, 3.5), (12, 0.1, 3.5), "wall"),
        Part("cube", (-6.48, 0, 0.12), (0.03, 12, 0.12), "trim"),
        Part("cube", (0, 6.48, 0.12), (12, 0.03, 0.12), "trim"),
        Part("cube", (-6.48, 2.2, 1.6), (0.04, 1.6, 0.9), "trim"),
        Part("cube", (-6.45, 2.2, 1.6), (0.03, 1.45, 0.75), "glass"),
        Part("cube", (-1.5, 6.47, 1.7), (0.9, 0.04, 0.55), "frame"),
    ),
    paints={
        "wall": (0.9, 0.8, 0.6),
        "trim": (0.95, 0.95, 0.92),
        "glass": (0.35, 0.6, 0.9),
        "frame": (0.3, 0.05, 0.05),
    },
)

ENVIRONMENTS: Mapping[str, Place] = {"park": PARK, "livingroom": LIVINGROOM}

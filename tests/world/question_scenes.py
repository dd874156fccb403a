"""Scenes for the tests of questions: objects at places with clear relations, nothing rendered."""

import itertools
from collections.abc import Sequence
from functools import cache
from random import Random

from kyvo.world import ClevrObject, ClevrScene

# In metres on the ground, as published CLEVR scenes have them.
TOWARDS = {
    "right": (0.65631, 0.75449),
    "left": (-0.65631, -0.75449),
    "behind": (-0.75449, 0.65631),
    "front": (0.75449, -0.65631),
}
WORDS = {
    "size": ("large", "small"),
    "color": ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
    "material": ("rubber", "metal"),
    "shape": ("cube", "sphere", "cylinder"),
}


def offset(one: ClevrObject, other: ClevrObject, direction: str) -> float:
    """How far ``other`` is from ``one`` along a direction."""
    pairs = zip(one.position, other.position, TOWARDS[direction], strict=False)
    return sum((there - here) * along for here, there, along in pairs)


def scene_of(objects: Sequence[ClevrObject]) -> ClevrScene:
    """The scene of these objects."""
    relationships = {
        name: [
            [j for j, other in enumerate(objects) if offset(one, other, name) > 0.2]
            for one in objects
        ]
        for name in TOWARDS
    }
    return ClevrScene(tuple(objects), relationships=relationships)


@cache
def draw_scene(seed: int, fewest: int = 3, most: int = 10) -> ClevrScene:
    """A scene whose objects are all 0.4 metres apart along right and along behind."""
    random = Random(f"scene {seed}")
    count = random.randint(fewest, most)
    while True:
        objects = [
            ClevrObject(
                *(random.choice(words) for words in WORDS.values()),
                position=(random.uniform(-3, 3), random.uniform(-3, 3), 0.35),
            )
            for _ in range(count * 5)
        ]
        kept: list[ClevrObject] = []
        for item in objects:
            if all(abs(offset(item, k, d)) > 0.4 for k in kept for d in ("right", "behind")):
                kept.append(item)
        if len(kept) >= count:
            return scene_of(list(itertools.islice(kept, count)))

"""Edits of scenes: a source, the same scene changed in one thing, and the instruction in words.

The kinds are those of the paper. Lengths are metres on the ground, angles degrees.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

from kyvo.common.errors import InputError
from kyvo.world.camera import DIRECTIONS
from kyvo.world.clevr.batch_sampler import (
    complete_scenes,
    finish_scenes,
    sample_scenes,
    show_all,
)
from kyvo.world.clevr.placement import Footprint, may_be_placed
from kyvo.world.clevr.sampler import (
    MAX_TRIES,
    SceneOptions,
    complete_scene,
    sample_scene,
    shows_all,
)
from kyvo.world.clevr.scene import (
    ATTRIBUTES,
    INSERTED_KEYS,
    RELATIONS,
    ClevrObject,
    ClevrScene,
)
from kyvo.world.constants import SIZES
from kyvo.world.instructions import wordings
from kyvo.world.instructions.references import Names, Reference, draw_plain, draw_related
from kyvo.world.json_values import Vector
from kyvo.world.random_words import key_of

MAX_DRAFTS = 10
"""Edits of a scene that are tried before it is said to offer none."""
MAX_SCENES = 200
"""Scenes that are drawn before a kind of edit is called impossible."""
_FEWEST_SCENES = 128
"""Scenes that are drawn together at least: fewer take hardly less time."""

MOVES = (0.8, 2.5)
"""How far an object moves."""
HEADING_ANGLES = {1: (-4.5, 4.5), 2: (25.0, 65.0)}
"""Angle to the first direction of a move that names one, or two.

The longest move in one direction drifts sideways by less than RELATION_GAP, in which CLEVR sees
neither left nor right; the shortest in two goes 0.33 along each.
"""
INSERTION_DISTANCES = (0.0, 2.5)
"""Distance of a new object from its anchor; the rules of placement keep it from touching."""
INSERTION_ANGLES = (-35.0, 35.0)
"""Angle between the direction that is named and the one in which a new object is."""


@dataclass(frozen=True)
class Change:
    """What an edit does, by the keys of an instruction's file.

    Attributes:
        index: of the edited object in the source; of a new one in the target.
        attribute: what changes in its appearance, or None.
        value: the new word of ``attribute``, or None.
        directions: where it moves: one or two of left, right, front, behind.
        relation: where it is as seen from ``anchor``: what names it, or where it is put.
        anchor: index of the object that it is related to, or None.
    """

    index: int
    attribute: str | None = None
    value: str | None = None
    directions: tuple[str, ...] = ()
    relation: str | None = None
    anchor: int | None = None


@dataclass(frozen=True)
class Edit:
    """A pair of scenes and the words between them.

    Attributes:
        kind: one of KINDS.
        source: a scene as ``sample_scene`` gives it.
        target: the same with one object changed, moved, gone, or added as the last; camera, lights,
            number and file name are the source's.
        instruction: an English sentence without a full stop.
        change: what is different in the target.
    """

    kind: str
    source: ClevrScene
    target: ClevrScene
    instruction: str
    change: Change

    def to_json(self) -> dict[str, Any]:
        """Return the file of the instruction, which leaves out the scenes."""
        return {"kind": self.kind, "instruction": self.instruction, **asdict(self.change)}


@dataclass(frozen=True)
class _Draft:
    """The objects of a target scene, and what is said of them."""

    objects: tuple[ClevrObject, ...]
    instruction: str
    change: Change


@dataclass(frozen=True)
class _Sector:
    """Places around a start: so far away, at such an angle from ``ahead`` towards ``sideways``."""

    ahead: str
    sideways: str
    lengths: tuple[float, float]
    angles: tuple[float, float]

    def places(self, random: Random, start: Vector) -> Iterator[tuple[float, float]]:
        """Draw one place after the other."""
        uniform, lengths, angles = random.uniform, self.lengths, self.angles
        ahead_x, ahead_y, _ = DIRECTIONS[self.ahead]
        side_x, side_y, _ = DIRECTIONS[self.sideways]
        x, y, _ = start
        while True:
            length, angle = uniform(*lengths), math.radians(uniform(*angles))
            ahead, sideways = length * math.cos(angle), length * math.sin(angle)
            yield x + ahead * ahead_x + sideways * side_x, y + ahead * ahead_y + sideways * side_y


def sample_edit(index: int, split: str, kind: str, seed: int, options: SceneOptions) -> Edit:
    """Draw the edit number ``index`` of ``split``; the arguments alone decide it.

    Source scenes are drawn until one offers the edit. They are none of ``sample_scene``'s scenes of
    that seed, and others for each kind.

    Raises:
        InputError: an unknown kind, or one that scenes of these options do not offer.
    """
    random = Random(f"{seed}/{split}/{index}/{kind}")
    for _ in range(MAX_SCENES):
        source = sample_scene(index, split, random.getrandbits(64), options)
        if edit := edit_scene(source, kind, random, options):
            return edit
    raise _no_edit_error(index, split, kind)


def sample_edits(
    indices: Sequence[int], split: str, seed: int, options: SceneOptions
) -> list[Edit]:
    """Draw the edits of these numbers of ``split``, of which the kinds take turns.

    They have the distribution of those of ``sample_edit``, but are others: the source scenes are
    ``batch_sampler``'s, and what the targets show is checked together. An edit depends on its
    number, the split, the seed and the options alone.

    Raises:
        InputError: a negative number, or scenes of these options do not offer a kind.
    """
    found: dict[int, Edit] = {}
    waiting, first = sorted(set(indices)), 0
    while waiting:
        if first >= MAX_SCENES:
            raise _no_edit_error(waiting[0], split, kind_of(waiting[0]))
        # Few edits that are left try several scenes each: the first that offers one counts.
        num_tries = min(max(1, _FEWEST_SCENES // len(waiting)), MAX_SCENES - first)
        pairs = [(i, k) for i in waiting for k in range(first, first + num_tries)]
        for (index, _), edit in zip(pairs, _try_edits(pairs, split, seed, options), strict=True):
            if edit:
                found.setdefault(index, edit)
        waiting, first = [index for index in waiting if index not in found], first + num_tries
    return [found[index] for index in indices]


def _try_edits(
    pairs: Sequence[tuple[int, int]], split: str, seed: int, options: SceneOptions
) -> list[Edit | None]:
    """Return an edit of a scene of its own for each number and try, or None."""
    indices = [index for index, _ in pairs]
    draws = [index * MAX_SCENES + attempt for index, attempt in pairs]
    tensors = sample_scenes(indices, split, key_of(f"{seed}/edit"), options, draws=draws)
    scenes = complete_scenes(tensors, options)
    kinds = [kind_of(index) for index in indices]
    randoms = [Random(f"{seed}/{split}/{draw}/edit") for draw in draws]
    return edit_scenes(scenes, kinds, randoms, options)


def edit_scenes(
    scenes: Sequence[ClevrScene],
    kinds: Sequence[str],
    randoms: Sequence[Random],
    options: SceneOptions,
) -> list[Edit | None]:
    """Return ``edit_scene`` of many scenes of one split, checking their targets together."""
    drafts = [_drafts(*each, options) for each in zip(scenes, kinds, randoms, strict=True)]
    edits: list[Edit | None] = [None] * len(scenes)
    waiting = list(range(len(scenes)))
    while waiting:
        tried = [(i, draft) for i in waiting if (draft := next(drafts[i], None))]
        targets = [replace(scenes[i], objects=draft.objects) for i, draft in tried]
        shown = show_all(targets, options)
        finished = iter(finish_scenes([*itertools.compress(targets, shown)], options))
        for i, draft in itertools.compress(tried, shown):
            source, target = scenes[i], next(finished)
            edits[i] = Edit(kinds[i], source, target, draft.instruction, draft.change)
        waiting = [i for (i, _), is_shown in zip(tried, shown, strict=True) if not is_shown]
    return edits


def kind_of(index: int) -> str:
    """Return the kind of the edit of this number where kinds take turns."""
    return KINDS[index % len(KINDS)]


def _no_edit_error(index: int, split: str, kind: str) -> InputError:
    return InputError(
        f"edit {index} of {split}: no scene out of {MAX_SCENES} offers {kind!r} under these "
        "options. Expected room to add an object (max_objects above min_objects) or to move one, "
        "several objects, and several words of each attribute."
    )


def edit_scene(scene: ClevrScene, kind: str, random: Random, options: SceneOptions) -> Edit | None:
    """Return an edit of ``scene``, or None if it offers none of this kind.

    The phrase for an object fits no other object of the source. The target obeys the rules of
    placement and shows enough of each object; it may have one object less than ``min_objects``.

    Args:
        scene: as ``sample_scene`` gives it with the same ``options``.
        kind: one of KINDS.
        random: source of every choice.
        options: of the target scene.

    Raises:
        InputError: an unknown kind.
    """
    for draft in _drafts(scene, kind, random, options):
        if shows_all(ClevrScene(draft.objects, scene.viewpoints), options):
            target = complete_scene(
                scene.image_index, scene.split, draft.objects, scene.viewpoints, options
            )
            return Edit(kind, scene, target, draft.instruction, draft.change)
    return None


def _drafts(
    scene: ClevrScene, kind: str, random: Random, options: SceneOptions
) -> Iterator[_Draft]:
    """Draw edits that keep all rules but what their targets show, until enough were tried."""
    if kind not in _DRAFTERS:
        raise InputError(f"kind of edit {kind!r}: expected one of {', '.join(KINDS)}.")
    draw_reference, draft_edit = _DRAFTERS[kind]
    names = Names(scene)
    for _ in range(MAX_DRAFTS):
        reference = draw_reference(random, names)
        if reference and (draft := draft_edit(random, scene, reference, options)):
            yield draft


def _restyle(
    random: Random, scene: ClevrScene, reference: Reference, options: SceneOptions
) -> _Draft | None:
    """Give an object another size, color, material or shape."""
    objects, index = scene.objects, reference.index
    item, others = objects[index], _without(objects, index)
    values = {name: words for name in ATTRIBUTES if (words := _other_words(options, name, item))}
    if not values:
        return None
    attribute = random.choice(list(values))
    value = random.choice(values[attribute])
    changed = item.with_word(attribute, value)
    if not _is_free(changed.footprint, [other.footprint for other in others], options):
        return None
    one = wordings.refer(random, objects, reference)
    instruction = wordings.word(random, wordings.APPEARANCE[attribute], one=one, value=value)
    target = (*objects[:index], changed, *objects[index + 1 :])
    change = Change(index, attribute, value, (), reference.relation, _anchor(reference))
    return _Draft(target, instruction, change)


def _insert(
    random: Random, scene: ClevrScene, reference: Reference, options: SceneOptions
) -> _Draft | None:
    """Put a new object somewhere around the one that ``reference`` names."""
    objects = scene.objects
    if len(objects) >= options.max_objects:
        return None
    relation = random.choice(RELATIONS)
    words = {name: random.choice(_words(options, name)) for name in ATTRIBUTES}
    rotation = random.uniform(0.0, 360.0)
    start = objects[reference.index].position
    size, color, material, shape = words.values()
    new = ClevrObject(size, color, material, shape, start, rotation, keys=INSERTED_KEYS)
    sector = _Sector(relation, _across(relation), INSERTION_DISTANCES, INSERTION_ANGLES)
    placed = _place(random, new, start, sector, objects, options)
    if placed is None:
        return None
    place = wordings.locate(random, objects, relation, reference)
    instruction = wordings.word(
        random, wordings.INSERTION, new=wordings.describe_words(random, words), place=place
    )
    change = Change(len(objects), relation=relation, anchor=reference.index)
    return _Draft((*objects, placed), instruction, change)


def _move(
    random: Random, scene: ClevrScene, reference: Reference, options: SceneOptions
) -> _Draft | None:
    """Move an object in one direction, or in two."""
    objects, index = scene.objects, reference.index
    item = objects[index]
    pair = (random.choice(("left", "right")), random.choice(("front", "behind")))
    ahead, sideways = random.sample(pair, 2)
    directions = (ahead, sideways)[: random.choice(list(HEADING_ANGLES))]
    sector = _Sector(ahead, sideways, MOVES, HEADING_ANGLES[len(directions)])
    others = _without(objects, index)
    moved = _place(random, item, item.position, sector, others, options)
    if moved is None:
        return None
    one = wordings.refer(random, objects, reference)
    heading = wordings.head(random, directions)
    instruction = wordings.word(random, wordings.MOVING, one=one, heading=heading)
    target = (*objects[:index], moved, *objects[index + 1 :])
    return _Draft(target, instruction, Change(index, directions=directions))


def _remove(
    random: Random, scene: ClevrScene, reference: Reference, options: SceneOptions
) -> _Draft:
    """Take an object away."""
    objects, index = scene.objects, reference.index
    one = wordings.refer(random, objects, reference)
    instruction = wordings.word(random, wordings.REMOVAL, one=one)
    change = Change(index, relation=reference.relation, anchor=_anchor(reference))
    return _Draft(_without(objects, index), instruction, change)


_Drafter = tuple[
    Callable[[Random, Names], Reference | None],
    Callable[[Random, ClevrScene, Reference, SceneOptions], _Draft | None],
]
_DRAFTERS: dict[str, _Drafter] = {
    "appearance_no_relation": (draw_plain, _restyle),
    "appearance_with_relation": (draw_related, _restyle),
    "insertion_with_relation": (draw_plain, _insert),
    "moving_with_relation": (draw_plain, _move),
    "removal_with_relation": (draw_related, _remove),
}
KINDS = tuple(_DRAFTERS)
"""The kinds of edits, named as in the released files."""


def _anchor(reference: Reference) -> int | None:
    """Return the index of the object through which the reference names its own."""
    return None if reference.anchor is None else reference.anchor.index


def _without(objects: tuple[ClevrObject, ...], index: int) -> tuple[ClevrObject, ...]:
    return (*objects[:index], *objects[index + 1 :])


def _words(options: SceneOptions, attribute: str) -> tuple[str, ...]:
    return getattr(options, f"{attribute}s")


def _other_words(options: SceneOptions, attribute: str, item: ClevrObject) -> list[str]:
    return [word for word in _words(options, attribute) if word != item.words[attribute]]


def _across(direction: str) -> str:
    return "right" if direction in ("front", "behind") else "behind"


def _place(
    random: Random,
    item: ClevrObject,
    start: Vector,
    sector: _Sector,
    others: Sequence[ClevrObject],
    options: SceneOptions,
) -> ClevrObject | None:
    """Return the object at a free place of the sector around ``start``; None if none is found."""
    radius, is_square = SIZES[item.size], item.shape == "cube"
    footprints = [other.footprint for other in others]
    for x, y in itertools.islice(sector.places(random, start), MAX_TRIES):
        if max(abs(x), abs(y)) > options.extent:
            continue
        place = Footprint(x, y, radius, is_square, item.rotation)
        if _is_free(place, footprints, options):
            return replace(item, position=(x, y, radius))
    return None


def _is_free(place: Footprint, others: Sequence[Footprint], options: SceneOptions) -> bool:
    """Whether an object is within the extent and keeps CLEVR's distances to the others."""
    if max(abs(place.x), abs(place.y)) > options.extent:
        return False
    return may_be_placed(place, others, options.min_distance, options.margin)

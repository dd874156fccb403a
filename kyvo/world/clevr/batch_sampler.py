"""Many random scenes at a time, in tensors: the scenes of ``sampler``, drawn another way.

``sample_scenes`` follows the rules of ``sampler.sample_scene``, so its scenes have the same
distribution, but not the same numbers: each draw is a function of (seed, split, index of the
scene, number of the draw), whatever else is in the batch. A rejected scene starts again on its
own, and where few scenes are left, several of their starts are tried at once; the first that
keeps the rules is the one that stays.

Shapes: N scenes, K objects of a scene (the most that the options allow), L lights that scenes may
move; inside, P starts of scenes that are tried together, W of them that wait for the place of an
object, T places that are tried together, J objects that are placed already, Q pairs of these two
that are near each other, D draws; C scenes with S starts each. Tensors end in the scenes or starts:
these are many. Lengths are metres, angles radians.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from kyvo.common.errors import InputError
from kyvo.world.camera import DIRECTIONS, project_all
from kyvo.world.clevr.descriptions import members
from kyvo.world.clevr.placement import FAR
from kyvo.world.clevr.sampler import (
    MAX_STARTS,
    MAX_TRIES,
    SceneOptions,
    image_filename,
    no_place_error,
)
from kyvo.world.clevr.scene import (
    ATTRIBUTES,
    RELATION_GAP,
    RELATIONS,
    ClevrObject,
    ClevrScene,
    Relationships,
)
from kyvo.world.constants import CAMERA, COLORS, LIGHTS, MATERIALS, SHAPES, SIZES, SUN
from kyvo.world.json_values import Vector
from kyvo.world.random_words import choices, key_of, uniforms, words
from kyvo.world.render.description import NO_OBJECT, Environment
from kyvo.world.render.scene_batch import (
    AREA,
    BOUNDING_RADIUS,
    SLACK,
    Environments,
    Primitives,
    SceneBatch,
    Viewers,
    build_environments,
)
from kyvo.world.render.tracer import find_device
from kyvo.world.render.visibility import shows_enough
from kyvo.world.viewpoints import Viewpoints

_CUBE = SHAPES.index("cube")
_NUMBERS = {name: {word: i for i, word in enumerate(words)} for name, words in ATTRIBUTES.items()}

_STARTS = {"cpu": 1 << 14, "cuda": 1 << 14}
"""Starts that are tried together, at most: a step takes long enough to be worth its launch."""
_FEWEST_STARTS = {"cpu": 1 << 9, "cuda": 1 << 13}
"""Fewer scenes try several starts each: below this, a step costs the same for any number."""
_TRIES = {"cpu": (5, 15, 30), "cuda": (MAX_TRIES,)}
"""Places of an object that are tried together, one block after the other."""

# Numbers of draws: of a start (0: of the scene itself), of an object, of a try.
_START_SHIFT, _OBJECT_SHIFT = 32, 16
_COUNT_DRAW, _CAMERA_DRAW, _LIGHT_DRAW = 0, 1, 2


@dataclass(frozen=True)
class SceneTensors:
    """Scenes as tensors of one device; objects from ``count_N`` on are padding, all zeros.

    Attributes:
        split: name of the split that the scenes are numbered in.
        index_N: number of each scene, int64.
        count_N: its objects, int64.
        size_KN, color_KN, material_KN, shape_KN: indices into the words of ``ATTRIBUTES``, int64.
        place_2KN: x and y of the objects' centres (metres), float64.
        rotation_KN: turn about z (radians, 0 to 360 as CLEVR draws it), float64.
        camera_3N: where the camera is (metres), float64.
        lights_3LN: where the lights of ``LIGHTS`` are (metres), float64.
    """

    split: str
    index_N: Tensor
    count_N: Tensor
    size_KN: Tensor
    color_KN: Tensor
    material_KN: Tensor
    shape_KN: Tensor
    place_2KN: Tensor
    rotation_KN: Tensor
    camera_3N: Tensor
    lights_3LN: Tensor

    def __len__(self) -> int:
        return len(self.index_N)

    @property
    def is_object_KN(self) -> Tensor:
        """Which objects are no padding."""
        return _column(len(self.size_KN), self.count_N.device) < self.count_N

    @property
    def radius_KN(self) -> Tensor:
        """Radius, half edge, and height of the centre of every object (metres), float64."""
        return _radii(self.size_KN) * self.is_object_KN

    def to(self, device: torch.device | str) -> "SceneTensors":
        """Return the scenes on another device."""
        return SceneTensors(self.split, *(tensor.to(device) for tensor in self.tensors()))

    def tensors(self) -> list[Tensor]:
        """Return all fields but the split, in order."""
        return [getattr(self, field.name) for field in fields(self)[1:]]


@dataclass(frozen=True)
class _Objects:
    """Objects of P starts: words in the order of ``ATTRIBUTES``, and where they are."""

    words_4KP: Tensor
    radius_KP: Tensor
    place_2KP: Tensor
    rotation_KP: Tensor


@torch.no_grad()
def sample_scenes(
    indices: Sequence[int] | Tensor,
    split: str,
    seed: int,
    options: SceneOptions,
    device: torch.device | str = "cpu",
    draws: Sequence[int] | None = None,
) -> SceneTensors:
    """Draw the scenes of these numbers of ``split``.

    A scene depends on its number, the split, the seed and the options alone. On another device it
    is the same but for the rounding of rays: where an object is just visible enough, one more pixel
    may decide otherwise.

    Args:
        indices: the numbers that the scenes have.
        split, seed, options: of the scenes.
        device: that draws them.
        draws: numbers that decide the scenes instead of ``indices``, where one scene of a number is
            not enough.

    Raises:
        InputError: a negative number, no such device, or so many objects find no place.
    """
    device = find_device(device)
    index_N = torch.as_tensor(indices, dtype=torch.int64, device=device)
    if len(index_N) and int(index_N.min()) < 0:
        raise InputError(f"scene {int(index_N.min())} of {split}: expected numbers of 0 or more.")
    draw_N = index_N if draws is None else torch.as_tensor(draws, device=device)
    key_N = words(key_of(f"{seed}/{split}"), draw_N)
    scenes = _empty_scenes(index_N, split, key_N, options)
    for chosen in torch.arange(len(index_N), device=device).split(
        _STARTS.get(device.type, _STARTS["cpu"])
    ):
        _fill(scenes, key_N, chosen, options)
    return scenes


def complete_scenes(scenes: SceneTensors, options: SceneOptions) -> list[ClevrScene]:
    """Return the scenes one by one, with all that ``sampler.sample_scene`` gives them."""
    scenes = scenes.to("cpu")
    cameras = map(_vector, scenes.camera_3N.t().tolist())
    lights = (tuple(map(_vector, rows)) for rows in scenes.lights_3LN.permute(2, 1, 0).tolist())
    viewpoints = itertools.starmap(Viewpoints, zip(cameras, lights, strict=True))
    indices, split = scenes.index_N.tolist(), scenes.split
    names = [image_filename(split, index) for index in indices]
    columns = (_object_lists(scenes, options), viewpoints, indices, names, _relationships(scenes))
    return [
        ClevrScene(objects, views, split, index, name, relationships)
        for objects, views, index, name, relationships in zip(*columns, strict=True)
    ]


def finish_scenes(scenes: Sequence[ClevrScene], options: SceneOptions) -> list[ClevrScene]:
    """Return scenes of one split with the pixels and relationships that follow from the rest."""
    tensors = tensors_of(scenes, "")
    columns = zip(scenes, _pixels(tensors, options), _relationships(tensors), strict=True)
    return [
        replace(
            scene,
            objects=tuple(
                [
                    item if item.pixel == pixel else replace(item, pixel=pixel)
                    for item, pixel in zip(scene.objects, pixels, strict=False)
                ]
            ),
            relationships=relationships,
        )
        for scene, pixels, relationships in columns
    ]


def _pixels(scenes: SceneTensors, options: SceneOptions) -> list[list[tuple[int, int, float]]]:
    """Return where the image of each scene shows the centres of its objects and of padding."""
    position_NK3 = torch.stack([*scenes.place_2KN, scenes.radius_KN]).permute(2, 1, 0)
    camera_N3 = scenes.camera_3N.t()
    return project_all(camera_N3.numpy(), position_NK3.numpy(), options.height, options.width)


def _relationships(scenes: SceneTensors) -> Iterator[Relationships]:
    """Yield what ``find_relationships`` says of each scene."""
    x_KKN, y_KKN = scenes.place_2KN[:, None] - scenes.place_2KN[:, :, None]
    is_object_KN = scenes.is_object_KN
    bit_K1 = 1 << _column(len(is_object_KN), is_object_KN.device)
    columns = []
    for name in RELATIONS:
        along_x, along_y, _ = DIRECTIONS[name]
        is_there_KKN = (x_KKN * along_x + y_KKN * along_y > RELATION_GAP) & is_object_KN
        columns.append((is_there_KKN * bit_K1).sum(1).t().tolist())
    for count, *rows in zip(scenes.count_N.tolist(), *columns, strict=True):
        each = zip(RELATIONS, rows, strict=True)
        yield {name: tuple(map(members, row[:count])) for name, row in each}


def tensors_of(scenes: Sequence[ClevrScene], split: str) -> SceneTensors:
    """Return scenes of one split as tensors on the CPU: the way back of ``complete_scenes``."""
    num_objects = max((len(scene.objects) for scene in scenes), default=0)
    numbers, places = [], []
    for scene in scenes:
        padding = num_objects - len(scene.objects)
        numbers.append([_numbers_of(item) for item in scene.objects] + [(0, 0, 0, 0)] * padding)
        rows = [(*item.position[:2], item.rotation) for item in scene.objects]
        places.append(rows + [(0.0, 0.0, 0.0)] * padding)
    shape = (len(scenes), num_objects)
    numbers_4KN = torch.tensor(numbers, dtype=torch.int64).view(*shape, 4).permute(2, 1, 0)
    places_3KN = torch.tensor(places, dtype=torch.float64).view(*shape, 3).permute(2, 1, 0)
    views = [(scene.viewpoints.camera, *scene.viewpoints.lights) for scene in scenes]
    views_NV3 = torch.tensor(views, dtype=torch.float64).view(len(scenes), 1 + len(LIGHTS), 3)
    views_3VN = views_NV3.permute(2, 1, 0)
    tensors = (
        torch.tensor([scene.image_index for scene in scenes]),
        torch.tensor([len(scene.objects) for scene in scenes]),
        *numbers_4KN,
        *(places_3KN[:2], places_3KN[2]),
        *(views_3VN[:, 0], views_3VN[:, 1:]),
    )
    return SceneTensors(split, *tensors)


def _numbers_of(item: ClevrObject) -> tuple[int, ...]:
    """Return the indices of an object's words."""
    size, color, material, shape = _NUMBERS.values()
    return size[item.size], color[item.color], material[item.material], shape[item.shape]


def show_all(scenes: Sequence[ClevrScene], options: SceneOptions) -> list[bool]:
    """Return of each scene whether its image shows enough of each object."""
    least = options.min_visible_share
    if least <= 0 or not scenes:
        return [True] * len(scenes)
    shown_N = torch.empty(len(scenes), dtype=torch.bool)
    # Scenes of as many objects go together, without padding.
    order = sorted(range(len(scenes)), key=lambda i: len(scenes[i].objects))
    batch = scene_batch_of(tensors_of([scenes[i] for i in order], ""))
    shown_N[order] = shows_enough(batch, least)
    return shown_N.tolist()


def scene_batch_of(scenes: SceneTensors) -> SceneBatch:
    """Arrange scenes for the tracer, on their device: ``build_scene_batch`` without the host."""
    device, num_scenes = scenes.count_N.device, len(scenes)
    sun_31N = torch.tensor(SUN.position, dtype=torch.float64, device=device)[:, None, None]
    lights_3LN = torch.cat([scenes.lights_3LN, sun_31N.expand(3, 1, num_scenes)], 1)
    return SceneBatch(
        _viewers(scenes.camera_3N),
        _viewers(lights_3LN),
        _primitives(scenes),
        _default_environments(num_scenes, device),
    )


def _object_lists(scenes: SceneTensors, options: SceneOptions) -> Iterator[tuple[ClevrObject, ...]]:
    """Yield the objects of each scene."""
    columns = [
        [[words[number] for number in row] for row in getattr(scenes, f"{name}_KN").t().tolist()]
        for name, words in ATTRIBUTES.items()
    ]
    position_NK3 = torch.stack([*scenes.place_2KN, scenes.radius_KN]).permute(2, 1, 0)
    columns += [
        [list(map(tuple, rows)) for rows in position_NK3.tolist()],
        scenes.rotation_KN.t().tolist(),
        _pixels(scenes, options),
    ]
    for count, *values in zip(scenes.count_N.tolist(), *columns, strict=True):
        rows = itertools.islice(zip(*values, strict=True), count)
        yield tuple([ClevrObject(*row) for row in rows])


def _vector(values: Sequence[float]) -> Vector:
    x, y, z = values
    return x, y, z


def _empty_scenes(
    index_N: Tensor, split: str, key_N: Tensor, options: SceneOptions
) -> SceneTensors:
    """Return scenes without objects: what is drawn once, however often a scene starts again."""
    device, num_objects = index_N.device, options.max_objects
    words_DN = words(key_N, _column(_LIGHT_DRAW + len(LIGHTS), device))
    num_counts = options.max_objects - options.min_objects + 1
    count_N = choices(words_DN[_COUNT_DRAW], (num_counts,))[0] + options.min_objects
    moves_3DN = 2 * uniforms(words_DN[_CAMERA_DRAW:]) - 1
    positions_3D = torch.tensor(
        [CAMERA, *(light.position for light in LIGHTS)], dtype=torch.float64, device=device
    ).t()
    jitter_D = [options.camera_jitter] + [options.lamp_jitter] * len(LIGHTS)
    places_3DN = positions_3D[..., None] + moves_3DN * positions_3D.new_tensor(jitter_D)[:, None]
    no_words_KN = index_N.new_zeros(num_objects, len(index_N))
    no_place_KN = places_3DN.new_zeros(no_words_KN.shape)
    tensors = (
        *(index_N, count_N),
        *(no_words_KN.clone() for _ in ATTRIBUTES),
        *(torch.stack([no_place_KN, no_place_KN]), no_place_KN),
        *(places_3DN[:, 0], places_3DN[:, 1:]),
    )
    return SceneTensors(split, *tensors)


def _fill(scenes: SceneTensors, key_N: Tensor, chosen: Tensor, options: SceneOptions) -> None:
    """Draw the objects of the ``chosen`` scenes into ``scenes``, in place."""
    fewest = _FEWEST_STARTS.get(chosen.device.type, _FEWEST_STARTS["cpu"])
    start = 0
    while len(chosen):
        if start >= MAX_STARTS:
            index, count = int(scenes.index_N[chosen[0]]), int(scenes.count_N[chosen[0]])
            raise no_place_error(index, scenes.split, count)
        num_starts = min(max(1, fewest // len(chosen)), MAX_STARTS - start)
        scene_P = chosen.repeat_interleave(num_starts)
        start_P = torch.arange(start, start + num_starts, device=chosen.device).repeat(len(chosen))
        trial, good_P = _try_starts(scenes, key_N[scene_P], scene_P, start_P, options)
        good_CS = good_P.view(len(chosen), num_starts)
        found_C, first_C = good_CS.any(1), good_CS.byte().argmax(1)
        done = found_C.nonzero()[:, 0]
        _store(scenes, chosen[done], trial, done * num_starts + first_C[done])
        chosen, start = chosen[(~found_C).nonzero()[:, 0]], start + num_starts


def _try_starts(
    scenes: SceneTensors, key_P: Tensor, scene_P: Tensor, start_P: Tensor, options: SceneOptions
) -> tuple[SceneTensors, Tensor]:
    """Return scenes as they come out of these starts, and which of them (P) keep the rules."""
    count_P = scenes.count_N[scene_P]
    draw_P = start_P + 1 << _START_SHIFT
    objects, placed_P = _place_objects(key_P, draw_P, count_P, options)
    tensors = (
        *(scenes.index_N[scene_P], count_P),
        *objects.words_4KP,
        *(objects.place_2KP, objects.rotation_KP),
        *(scenes.camera_3N[:, scene_P], scenes.lights_3LN[..., scene_P]),
    )
    trial = SceneTensors(scenes.split, *tensors)
    if options.min_visible_share > 0:
        placed = placed_P.nonzero()[:, 0]
        shown = shows_enough(scene_batch_of(_select(trial, placed)), options.min_visible_share)
        placed_P = placed_P.index_put((placed,), shown)
    return trial, placed_P


def _select(scenes: SceneTensors, chosen: Tensor) -> SceneTensors:
    return SceneTensors(scenes.split, *(tensor[..., chosen] for tensor in scenes.tensors()))


def _store(scenes: SceneTensors, targets: Tensor, trial: SceneTensors, chosen: Tensor) -> None:
    """Copy the ``chosen`` scenes of ``trial`` to the numbers ``targets`` of ``scenes``."""
    for kept, tried in zip(scenes.tensors(), trial.tensors(), strict=True):
        kept[..., targets] = tried[..., chosen]


def _place_objects(
    key_P: Tensor, draw_P: Tensor, count_P: Tensor, options: SceneOptions
) -> tuple[_Objects, Tensor]:
    """Return the objects of each start, and whether (P) all of them have found a place."""
    k_K1 = _column(options.max_objects, key_P.device)
    draw_KP = draw_P + (k_K1 << _OBJECT_SHIFT)
    words_4KP = _draw_words(words(key_P, draw_KP), options) * (k_K1 < count_P)
    no_place_KP = torch.zeros_like(key_P, dtype=torch.float64).expand(draw_KP.shape)
    place_2KP = torch.stack([no_place_KP, no_place_KP])
    objects = _Objects(words_4KP, _radii(words_4KP[0]), place_2KP, no_place_KP.clone())
    placed_P = torch.ones_like(count_P, dtype=torch.bool)
    blocks = _TRIES.get(key_P.device.type, _TRIES["cpu"])
    for k in range(options.max_objects):
        waiting = (placed_P & (k < count_P)).nonzero()[:, 0]
        for tries_T1 in (_column(MAX_TRIES, key_P.device) + 1).split(blocks):
            if len(waiting) == 0:
                break
            word_TW = words(key_P[waiting], draw_KP[k, waiting] + tries_T1)
            waiting = waiting[~_try_places(objects, k, waiting, word_TW, options)]
        placed_P[waiting] = False
    return objects, placed_P


def _draw_words(word_KP: Tensor, options: SceneOptions) -> Tensor:
    """Return indices into all words of an attribute (4, K, P), drawn from those of the options."""
    allowed = (options.sizes, options.colors, options.materials, options.shapes)
    drawn = choices(word_KP, tuple(map(len, allowed)))
    tables = [
        drawn_KP.new_tensor([known.index(word) for word in some])
        for drawn_KP, some, known in zip(drawn, allowed, ATTRIBUTES.values(), strict=True)
    ]
    return torch.stack([table[drawn_KP] for table, drawn_KP in zip(tables, drawn, strict=True)])


def _radii(size_KP: Tensor) -> Tensor:
    """Return radius or half edge (metres), float64."""
    return torch.tensor(list(SIZES.values()), dtype=torch.float64, device=size_KP.device)[size_KP]


def _try_places(
    objects: _Objects, k: int, waiting: Tensor, word_TW: Tensor, options: SceneOptions
) -> Tensor:
    """Put object ``k`` of the ``waiting`` starts (W) at its first good place, if any.

    Returns:
        Whether (W) there is one.
    """
    draws_3TW = uniforms(word_TW)
    place_2TW, rotation_TW = (2 * draws_3TW[:2] - 1) * options.extent, 360 * draws_3TW[2]
    good_TW = torch.ones_like(rotation_TW, dtype=torch.bool)
    if k:
        radius_JW = objects.radius_KP[: k + 1].index_select(-1, waiting)
        old_2JW = objects.place_2KP[:, :k].index_select(-1, waiting)
        offset_2JTW = place_2TW[:, None] - old_2JW[:, :, None]
        away_JTW = offset_2JTW.square().sum(0).sqrt_()
        reach_J1W = (radius_JW[:-1] + radius_JW[-1])[:, None]
        good_TW = _is_far(offset_2JTW, away_JTW - reach_J1W, options)
        # Only footprints this near may touch, and few are.
        is_near_JTW = (away_JTW <= FAR * reach_J1W).logical_and_(good_TW)
        j_Q, t_Q, w_Q = is_near_JTW.nonzero(as_tuple=True)
        touch_Q = _footprints_touch(
            offset_2JTW[:, j_Q, t_Q, w_Q],
            _outlines(objects, j_Q, waiting[w_Q]),
            (*_outlines(objects, k, waiting[w_Q])[:2], rotation_TW[t_Q, w_Q]),
        )
        good_TW[t_Q[touch_Q], w_Q[touch_Q]] = False
    found_W, first_W = good_TW.any(0), good_TW.byte().argmax(0)
    which_W = torch.arange(len(waiting), device=waiting.device)
    objects.place_2KP[:, k, waiting] = place_2TW[:, first_W, which_W] * found_W
    objects.rotation_KP[k, waiting] = rotation_TW[first_W, which_W] * found_W
    return found_W


def _outlines(objects: _Objects, k: Tensor | int, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return radius, whether it is a square, and rotation of an object of each of these starts."""
    is_square = objects.words_4KP[-1, k, start] == _CUBE
    return objects.radius_KP[k, start], is_square, objects.rotation_KP[k, start]


def _is_far(offset_2JTW: Tensor, gap_JTW: Tensor, options: SceneOptions) -> Tensor:
    """Return whether (T, W) a place keeps min_distance and margin to all objects before it."""
    x, y = offset_2JTW
    good_JTW = gap_JTW >= options.min_distance
    for axis in (DIRECTIONS["right"], DIRECTIONS["behind"]):
        good_JTW &= (x * axis[0]).add_(y * axis[1]).abs_() >= options.margin
    return good_JTW.all(0)


def _footprints_touch(
    offset_2Q: Tensor, old: tuple[Tensor, Tensor, Tensor], new: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Return whether (Q) footprints have a point in common: ``placement.footprints_touch``.

    Args:
        offset_2Q: from the old ones to the new ones (metres).
        old, new: their radius, whether it is a square, and rotation.
    """
    (old_Q, old_square_Q, old_turn_Q), (new_Q, new_square_Q, new_turn_Q) = old, new
    seen_old_2Q = _seen_from(old_turn_Q, offset_2Q)
    seen_new_2Q = _seen_from(new_turn_Q, offset_2Q)
    turn_Q = new_turn_Q - old_turn_Q
    extent_Q = turn_Q.cos().abs() + turn_Q.sin().abs()
    squares_Q = torch.maximum(
        seen_old_2Q.amax(0) - old_Q - new_Q * extent_Q,
        seen_new_2Q.amax(0) - new_Q - old_Q * extent_Q,
    )
    # Not more than 0: they touch.
    gap_Q = torch.hypot(*offset_2Q) - old_Q - new_Q
    gap_Q = torch.where(new_square_Q, _beyond(seen_new_2Q, new_Q) - old_Q, gap_Q)
    old_alone_Q = _beyond(seen_old_2Q, old_Q) - new_Q
    gap_Q = torch.where(old_square_Q, torch.where(new_square_Q, squares_Q, old_alone_Q), gap_Q)
    return gap_Q <= 0


def _seen_from(rotation_Q: Tensor, offset_2Q: Tensor) -> Tensor:
    """Return how far off (2, Q) a centre is along a square's own axes."""
    cosine, sine = rotation_Q.cos(), rotation_Q.sin()
    x, y = offset_2Q
    return torch.stack([cosine * x + sine * y, cosine * y - sine * x]).abs_()


def _beyond(seen_2Q: Tensor, half_Q: Tensor) -> Tensor:
    """Return the distance of a point to a square of this half edge, 0 inside."""
    return torch.hypot(*(seen_2Q - half_Q).clamp_min(0))


def _viewers(position_3: Tensor) -> Viewers:
    """Return viewers (3, ..., N) that look at the origin: ``camera.view_axes`` in tensors."""
    forward = -position_3 / (position_3 * position_3).sum(0).sqrt()
    x, y, z = forward
    right = torch.stack([torch.where(z.abs() > 1 - 1e-12, 1.0, y), -x, torch.zeros_like(x)])
    right = right / (right * right).sum(0).sqrt()
    up = torch.linalg.cross(right, forward, dim=0)
    return Viewers(*(field.float() for field in (position_3, right, up, forward)))


def _primitives(scenes: SceneTensors) -> Primitives:
    is_object_KN, radius_KN = scenes.is_object_KN, scenes.radius_KN
    center_3KN = torch.cat([scenes.place_2KN, radius_KN[None]])
    cosine_KN, sine_KN = scenes.rotation_KN.cos(), scenes.rotation_KN.sin()
    zero_KN, one_KN = torch.zeros_like(sine_KN), torch.ones_like(sine_KN)
    half_KN = torch.where(is_object_KN, radius_KN, 1.0)
    # Padding holds what ``build_scene_batch`` has there.
    axes = (cosine_KN, sine_KN, zero_KN, -sine_KN, cosine_KN, zero_KN, zero_KN, zero_KN, one_KN)
    placement = [*center_3KN, *[half_KN] * 3, *(axis * is_object_KN for axis in axes)]
    bounding_radius, area = (
        torch.tensor(values, dtype=torch.float64, device=half_KN.device)[scenes.shape_KN]
        for values in (
            [BOUNDING_RADIUS[shape]((1.0, 1.0, 1.0)) for shape in SHAPES],
            [AREA[shape] for shape in SHAPES],
        )
    )
    levels = torch.tensor(list(COLORS.values()), dtype=torch.float64, device=half_KN.device) / 255
    albedo_3KN = levels[scenes.color_KN].permute(2, 0, 1) * is_object_KN
    metal_KN = (scenes.material_KN == MATERIALS.index("metal")) & is_object_KN
    k_K1 = _column(len(half_KN), half_KN.device)
    return Primitives(
        _scene_by_scene(torch.stack(placement)).float(),
        _scene_by_scene(scenes.shape_KN),
        center_3KN.float(),
        torch.where(is_object_KN, (bounding_radius * radius_KN) ** 2 * SLACK, -math.inf).float(),
        (area * radius_KN**2).float(),
        _scene_by_scene(albedo_3KN).float(),
        torch.cat([_scene_by_scene(metal_KN), metal_KN.new_zeros(1)]),
        _scene_by_scene(torch.where(is_object_KN, k_K1, NO_OBJECT)),
    )


def _scene_by_scene(values_KN: Tensor) -> Tensor:
    """Return values (..., K, N) in the order of ``Primitives``: one scene after the other."""
    return values_KN.transpose(-1, -2).flatten(-2)


def _default_environments(num_scenes: int, device: torch.device) -> Environments:
    """Return the default environment, once for every scene."""
    one = build_environments([Environment()], device)
    tensors = (getattr(one, field.name) for field in fields(one))
    return Environments(*(t.expand(*t.shape[:-1], num_scenes).contiguous() for t in tensors))


def _column(length: int, device: torch.device) -> Tensor:
    """Return 0, 1, 2, ... as a column."""
    return torch.arange(length, device=device)[:, None]

"""Light that primitives send to their surroundings, against rays cast at random."""

import numpy as np
import pytest
import torch
from objaworld_primitives import batch_of, inside, rays_along

from kyvo.world import ClevrScene, render
from kyvo.world.render.description import NO_OBJECT, Primitive, upright_axes
from kyvo.world.render.intersection import find_surface
from kyvo.world.render.shading import GROUND_LOSS, PRIMITIVE_BOUNCE, bounced_light

RED = (0.9, 0.1, 0.05)
ASIDE = np.array([0.9, -1.2, 0.0])


def ball(object_index: int = 0) -> Primitive:
    return Primitive(
        "sphere",
        (0.0, 0.0, 0.7),
        (0.7, 0.7, 0.7),
        upright_axes(0.0),
        RED,
        object_index=object_index,
    )


def bounced(*primitives: Primitive) -> torch.Tensor:
    """Light (3) that the ground at ASIDE sends on."""
    rays = rays_along(ASIDE[None] + (0, 0, 3.0), np.array([[0.0, 0.0, -1.0]]))
    batch = batch_of(*primitives)
    _, surface = find_surface(batch, rays)
    return bounced_light(batch.primitives, rays, surface)[:, 0]


def seen_share(primitive: Primitive, count: int = 20_000) -> float:
    """The cosine-weighted part of the sky above ASIDE that a primitive fills."""
    rng = np.random.default_rng(0)
    disc = rng.uniform(-1, 1, (count, 2))
    disc = disc[(disc**2).sum(1) < 1]
    directions = np.column_stack([disc, np.sqrt(1 - (disc**2).sum(1))])
    steps = np.arange(0.02, 4, 0.04)
    return float(inside(primitive, ASIDE + steps[:, None, None] * directions).any(0).mean())


def test_a_ball_bounces_by_the_share_of_the_sky_that_it_fills() -> None:
    change = (bounced(ball()) - bounced()).numpy()
    per_share = 0.8 * (PRIMITIVE_BOUNCE * np.array(RED) - GROUND_LOSS)
    assert change == pytest.approx(seen_share(ball()) * per_share, rel=0.03)
    assert change[0] > 0 > change[2]


def test_bounces_add_up_and_scenery_has_none() -> None:
    other = Primitive(
        "cube", (2.2, -1.2, 0.35), (0.35,) * 3, upright_axes(0.3), (0.1, 0.7, 0.2), True, 1
    )
    none, first, second = bounced(), bounced(ball()), bounced(other)
    assert (bounced(ball(), other) - none).tolist() == pytest.approx(
        (first + second - 2 * none).tolist(), abs=1e-6
    )
    assert bounced(ball(NO_OBJECT)).tolist() == none.tolist()


def test_metals_show_a_light_where_a_mirror_would() -> None:
    camera, light = np.array([6.0, 0.0, 4.0]), np.array([-6.0, 0.0, 4.0])
    thing = {"size": "large", "color": "yellow", "shape": "cube", "material": "metal"}
    thing |= {"3d_coords": [0.0, 0.0, 0.7], "rotation": 0.0}
    below = [0.0, -4.0, 0.01], [0.0, 4.0, 0.01]
    lights = {"key": light.tolist(), "fill": below[0], "back": below[1]}
    scene = ClevrScene.from_json(
        {"objects": [thing], "world": {"camera": camera.tolist(), "lamps": lights}}, "scene"
    )
    image = render([scene], 96, 128, 8)[0].astype(int).sum(-1)
    row, column = (axis.mean() for axis in np.nonzero(image >= 0.95 * image.max()))
    # The mirrored light is as far below the top, at height 1.4, as the light above it.
    offset = np.array([light[0], 0.0, 2.8 - light[2]]) - camera
    forward = -camera / np.linalg.norm(camera)
    up = np.cross([0.0, 1.0, 0.0], forward)
    up *= np.sign(up[2])
    height = (offset @ up) / (offset @ forward) * 35 / 12
    assert row == pytest.approx(48 * (1 - height), abs=3)
    assert column == pytest.approx(64, abs=3)

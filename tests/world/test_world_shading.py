"""Light that solids send to their surroundings, against rays cast at random."""

import numpy as np
import pytest
import torch
from objaworld_solids import inside, rays_along, stage_of

from kyvo.world import render
from kyvo.world.render.intersection import find_surface
from kyvo.world.render.scene_batch import NO_OWNER, Solid, upright_axes
from kyvo.world.render.shading import GROUND_LOSS, SOLID_BOUNCE, bounced_light

RED = (0.9, 0.1, 0.05)
ASIDE = np.array([0.9, -1.2, 0.0])


def ball(owner: int = 0) -> Solid:
    return Solid("sphere", (0.0, 0.0, 0.7), (0.7, 0.7, 0.7), upright_axes(0.0), RED, owner=owner)


def bounced(*solids: Solid) -> torch.Tensor:
    """Light (3) that the ground at ASIDE sends on."""
    rays = rays_along(ASIDE[None] + (0, 0, 3.0), np.array([[0.0, 0.0, -1.0]]))
    stage = stage_of(*solids)
    _, surface = find_surface(stage, rays)
    return bounced_light(stage.solids, rays, surface)[:, 0]


def seen_share(solid: Solid, count: int = 20_000) -> float:
    """The cosine-weighted part of the sky above ASIDE that a solid fills."""
    rng = np.random.default_rng(0)
    disc = rng.uniform(-1, 1, (count, 2))
    disc = disc[(disc**2).sum(1) < 1]
    directions = np.column_stack([disc, np.sqrt(1 - (disc**2).sum(1))])
    steps = np.arange(0.02, 4, 0.04)
    return float(inside(solid, ASIDE + steps[:, None, None] * directions).any(0).mean())


def test_a_ball_bounces_by_the_share_of_the_sky_that_it_fills() -> None:
    change = (bounced(ball()) - bounced()).numpy()
    per_share = 0.8 * (SOLID_BOUNCE * np.array(RED) - GROUND_LOSS)
    assert change == pytest.approx(seen_share(ball()) * per_share, rel=0.03)
    assert change[0] > 0 > change[2]


def test_bounces_add_up_and_scenery_has_none() -> None:
    other = Solid(
        "cube", (2.2, -1.2, 0.35), (0.35,) * 3, upright_axes(0.3), (0.1, 0.7, 0.2), True, 1
    )
    none, first, second = bounced(), bounced(ball()), bounced(other)
    assert (bounced(ball(), other) - none).tolist() == pytest.approx(
        (first + second - 2 * none).tolist(), abs=1e-6
    )
    assert bounced(ball(NO_OWNER)).tolist() == none.tolist()


def test_metals_show_a_lamp_where_a_mirror_would() -> None:
    camera, lamp = np.array([6.0, 0.0, 4.0]), np.array([-6.0, 0.0, 4.0])
    thing = {"size": "large", "color": "yellow", "shape": "cube", "material": "metal"}
    thing |= {"3d_coords": [0.0, 0.0, 0.7], "rotation": 0.0}
    below = [0.0, -4.0, 0.01], [0.0, 4.0, 0.01]
    lamps = {"key": lamp.tolist(), "fill": below[0], "back": below[1]}
    scene = {"objects": [thing], "world": {"camera": camera.tolist(), "lamps": lamps}}
    picture = render([scene], 96, 128, 8)[0].astype(int).sum(-1)
    row, column = (axis.mean() for axis in np.nonzero(picture >= 0.95 * picture.max()))
    # The mirrored lamp stands as far below the top, at height 1.4, as the lamp above it.
    offset = np.array([lamp[0], 0.0, 2.8 - lamp[2]]) - camera
    forward = -camera / np.linalg.norm(camera)
    up = np.cross([0.0, 1.0, 0.0], forward)
    up *= np.sign(up[2])
    height = (offset @ up) / (offset @ forward) * 35 / 12
    assert row == pytest.approx(48 * (1 - height), abs=3)
    assert column == pytest.approx(64, abs=3)

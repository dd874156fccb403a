"""The registry of renderers: a new one is an entry, and every command that draws finds it."""

import runpy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kyvo.common.errors import InputError
from kyvo.world.render.description import Renderable
from kyvo.world.renderers import RENDERERS, Renderer
from kyvo.world.tasks import TASKS, scene_options
from kyvo.world.writer import WorldOptions, write_world

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_world.py"


def render_flat(
    scenes: Sequence[Renderable],
    height: int,
    width: int,
    samples_per_pixel: int = 1,
    device: str = "cpu",
    seed: int = 0,
) -> np.ndarray:
    """A renderer whose images are as bright as their scenes have primitives."""
    levels = [len(scene.describe().primitives) for scene in scenes]
    size = (len(scenes), height, width, 3)
    return np.broadcast_to(np.array(levels, np.uint8)[:, None, None, None], size).copy()


@pytest.fixture(autouse=True)
def flat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENDERERS, "flat", Renderer(render_flat))


def test_an_entry_is_all_that_the_command_needs(tmp_path: Path) -> None:
    flags = "--workers 0 --image-size 8 --min-objects 4 --max-objects 4 --renderer flat"
    main = runpy.run_path(str(SCRIPT))["main"]
    main(["--output", str(tmp_path), "--splits", "val:2", *flags.split()])
    images = [np.asarray(Image.open(path)) for path in sorted(tmp_path.rglob("*.png"))]
    assert len(images) == 2
    assert all((image == 4).all() for image in images)


def test_scenes_with_environments_need_a_renderer_that_draws_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = scene_options("objaworld", height=8, width=8)
    options = WorldOptions(scenes, task="objaworld", renderer="flat")
    with pytest.raises(InputError, match="renderer 'flat': expected tracer for objaworld"):
        write_world(tmp_path, {"val": 1}, options)
    monkeypatch.setitem(RENDERERS, "flat", Renderer(render_flat, draws_environments=True))
    assert write_world(tmp_path, {"val": 1}, options).num_made == 1


@pytest.mark.parametrize("task", TASKS)
def test_an_unknown_renderer_is_refused(task: str, tmp_path: Path) -> None:
    options = WorldOptions(scene_options(task), task=task, renderer="abacus")
    with pytest.raises(InputError, match="renderer 'abacus': expected tracer"):
        write_world(tmp_path / "new", {"val": 1}, options)
    assert not (tmp_path / "new").exists()

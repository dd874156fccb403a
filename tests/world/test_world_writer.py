"""Files of a world: the same bytes however they are made, resumable, guarded against mixing."""

import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kyvo.common.errors import InputError
from kyvo.common.files import folder_lock
from kyvo.world import ClevrScene, SceneOptions, render, sample_scene
from kyvo.world.batch_writer import BatchWriter
from kyvo.world.tasks import TASKS, scene_options
from kyvo.world.writer import WorldOptions, parse_splits, write_world

SCENES = SceneOptions(min_objects=1, max_objects=3, height=16, width=16)
OPTIONS = WorldOptions(SCENES, samples_per_pixel=1, seed=4)
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_world.py"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.slow
def test_bytes_do_not_depend_on_workers_and_batches(tmp_path: Path) -> None:
    splits = {"train": 5, "test": 2}
    for name, workers, batch_size in (("a", 0, 1), ("b", 0, 4), ("c", 2, 3)):
        write_world(tmp_path / name, splits, OPTIONS, workers=workers, batch_size=batch_size)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b") == contents(tmp_path / "c")
    assert len(first) == 1 + 2 * 7


@pytest.mark.slow
@pytest.mark.parametrize("task", ["instructions", "questions", "objaworld"])
def test_other_tasks_too_are_the_same_however_they_are_made(tmp_path: Path, task: str) -> None:
    scenes = scene_options(task, min_objects=3, max_objects=5, height=16, width=16)
    options = WorldOptions(scenes, samples_per_pixel=1, seed=4, task=task)
    for name, workers, batch_size in (("a", 0, 1), ("b", 2, 3)):
        write_world(tmp_path / name, {"test": 7}, options, workers=workers, batch_size=batch_size)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    files = {"instructions": 5, "questions": 3, "objaworld": 2}[task]
    assert len(first) == 1 + 7 * files
    lost = [name for name in first if name != "world.json"][::6]
    for name in lost:
        (tmp_path / "a" / name).unlink()
    write_world(tmp_path / "a", {"test": 7}, options)
    assert contents(tmp_path / "a") == first


def test_files_hold_the_scene_and_its_image(tmp_path: Path) -> None:
    write_world(tmp_path, {"val": 2}, OPTIONS)
    scene = json.loads((tmp_path / "val/scenes/CLEVR_val_000001.json").read_text())
    sampled = sample_scene(1, "val", 4, SCENES)
    assert scene == json.loads(json.dumps(sampled.to_json()))
    assert ClevrScene.from_json(scene, "scene") == sampled
    image = np.asarray(Image.open(tmp_path / "val/images/CLEVR_val_000001.png"))
    assert (image == render([sampled], 16, 16, 1, seed=4)[0]).all()


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    write_world(tmp_path, {"train": 4}, OPTIONS)
    complete = contents(tmp_path)
    kept = tmp_path / "train/images/CLEVR_train_000000.png"
    stamp = kept.stat().st_mtime_ns
    (tmp_path / "train/images/CLEVR_train_000001.png").unlink()
    (tmp_path / "train/scenes/CLEVR_train_000003.json").unlink()
    summary = write_world(tmp_path, {"train": 4}, OPTIONS)
    assert (summary.num_made, summary.num_found) == (2, 2)
    assert contents(tmp_path) == complete
    assert kept.stat().st_mtime_ns == stamp
    assert write_world(tmp_path, {"train": 5}, OPTIONS).num_made == 1


def test_files_without_their_end_are_made_again(tmp_path: Path) -> None:
    write_world(tmp_path, {"train": 4}, OPTIONS)
    complete = contents(tmp_path)
    (tmp_path / "train/images/CLEVR_train_000001.png").write_bytes(b"")
    half = complete["train/images/CLEVR_train_000002.png"][:-20]
    (tmp_path / "train/images/CLEVR_train_000002.png").write_bytes(half)
    (tmp_path / "train/scenes/CLEVR_train_000003.json").write_text("{")
    summary = write_world(tmp_path, {"train": 4}, OPTIONS)
    assert (summary.num_made, summary.num_found) == (3, 1)
    assert contents(tmp_path) == complete


def test_a_first_run_that_failed_leaves_the_folder_to_other_options(tmp_path: Path) -> None:
    crowd = SceneOptions(min_objects=60, max_objects=60, height=16, width=16)
    with pytest.raises(InputError, match="found no place"):
        write_world(tmp_path, {"train": 1}, WorldOptions(crowd, 1, 4))
    assert write_world(tmp_path, {"train": 1}, OPTIONS).num_made == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks into /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    splits = ("--splits", "train:3000", "--image-size", "16", "--workers", "2")
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path), *splits]
    with open(os.devnull, "w") as nowhere:
        parent = subprocess.Popen(command, stdout=nowhere, stderr=nowhere)
    try:
        wait_until(lambda: any(tmp_path.glob("train/images/*.png")))
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert len(children) >= 2
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not any(map(is_running, children)))


def wait_until(is_true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_running(process: str) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_other_options_are_refused_with_both_values(tmp_path: Path) -> None:
    write_world(tmp_path, {"train": 1}, OPTIONS)
    before = contents(tmp_path)
    other = WorldOptions(SceneOptions(min_objects=2, max_objects=3, height=16, width=16), 1, 5)
    with pytest.raises(
        InputError, match=r"min_objects was 1 and is now 2; seed was 4 and is now 5"
    ):
        write_world(tmp_path, {"train": 1}, other)
    assert contents(tmp_path) == before


def test_a_folder_that_is_no_world_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("sea")
    with pytest.raises(InputError, match=r"no world\.json"):
        write_world(tmp_path, {"train": 1}, OPTIONS)
    assert contents(tmp_path) == {"holiday.txt": b"sea"}


def test_splits_are_read_and_checked() -> None:
    assert parse_splits(["train:4000", "test:0"]) == {"train": 4000, "test": 0}
    for bad in (["train"], ["train:"], ["train:-1"], ["a/b:3"], [":3"], ["a:1", "a:2"]):
        with pytest.raises(InputError):
            parse_splits(bad)


def test_impossible_numbers_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for options, numbers in (
        (OPTIONS, {"batch_size": 0}),
        (OPTIONS, {"workers": -1}),
        (OPTIONS, {"device": "abacus"}),
        (WorldOptions(SCENES, samples_per_pixel=0), {}),
    ):
        with pytest.raises(InputError):
            write_world(tmp_path / "new", {"train": 1}, options, **numbers)
    assert not (tmp_path / "new").exists()


def test_the_command_writes_a_world_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--splits train:2 --image-size 16 --samples-per-pixel 1 --min-objects 1 --max-objects 2"
    main = runpy.run_path(str(SCRIPT))["main"]
    main(["--output", str(tmp_path / "w"), "--workers", "0", *flags.split()])
    assert f"2 items in {tmp_path / 'w'}: 2 made" in capsys.readouterr().out
    assert len(list((tmp_path / "w/train/images").glob("*.png"))) == 2


def test_the_papers_splits_are_the_default() -> None:
    sizes = {name: dict(task.splits) for name, task in TASKS.items()}
    assert sizes == {
        "scenes": {"train": 120_000, "test": 2_000},
        "instructions": {"train": 100_000, "test": 2_500},
        "questions": {"train": 20_000, "test": 2_000},
        "objaworld": {"train": 20_000, "test": 2_000},
    }


def test_options_that_a_task_lacks_are_refused() -> None:
    with pytest.raises(InputError, match=r"scenes of 'objaworld' have no colors"):
        scene_options("objaworld", colors=["red"], extent=None)
    assert scene_options("scenes", colors=["red"], extent=None).colors == ("red",)
    options = WorldOptions(scene_options("objaworld"), task="objaworld", renderer="mitsuba")
    with pytest.raises(InputError, match="expected tracer for objaworld"):
        write_world("nowhere", {"test": 1}, options)


@pytest.mark.parametrize("task", ["scenes", "instructions", "objaworld"])
def test_a_process_that_renders_for_all_gives_the_same_files(
    tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = scene_options(task, min_objects=1, max_objects=3, height=16, width=16)
    options = WorldOptions(scenes, samples_per_pixel=1, seed=4, task=task)
    write_world(tmp_path / "a", {"train": 9, "test": 2}, options)
    # As with a GPU: more batches than places in the shared memory, of several sizes.
    monkeypatch.setattr(BatchWriter, "renders_apart", True)
    write_world(tmp_path / "b", {"train": 9, "test": 2}, options, workers=1, batch_size=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    lost = [name for name in contents(tmp_path / "b") if name != "world.json"][::5]
    for name in lost:
        (tmp_path / "b" / name).unlink()
    write_world(tmp_path / "b", {"train": 9, "test": 2}, options, workers=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_an_error_in_a_worker_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = SceneOptions(min_objects=60, max_objects=60, height=16, width=16)
    for is_apart in (False, True):
        monkeypatch.setattr(BatchWriter, "renders_apart", is_apart)
        with pytest.raises(InputError, match="found no place"):
            write_world(tmp_path, {"train": 4}, WorldOptions(crowd, 1, 4), workers=2)
    assert active_children() == []


def test_two_worlds_in_one_folder_are_never_made_at_once(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "a"), pytest.raises(InputError, match="in use by another run"):
        write_world(tmp_path / "a", {"test": 1}, OPTIONS)
    assert list(contents(tmp_path / "a")) == []
    write_world(tmp_path / "a", {"test": 1}, OPTIONS)


def test_what_a_killed_writer_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    write_world(tmp_path / "a", {"test": 1}, OPTIONS)
    before = contents(tmp_path / "a")
    for place in ("", "test/images", "test/scenes"):
        (tmp_path / "a" / place / ".x.png.abc.unfinished").touch()
    write_world(tmp_path / "a", {"test": 1}, OPTIONS)
    assert contents(tmp_path / "a") == before


def test_a_strangers_folder_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "note.txt").touch()
    with pytest.raises(InputError, match="it is not a world"):
        write_world(tmp_path, {"test": 1}, OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]

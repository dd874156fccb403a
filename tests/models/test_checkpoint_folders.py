"""Checkpoints: a process killed at any file operation leaves a whole one; damage is seen."""

import json
import os
import resource
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from kyvo.common.errors import InputError
from kyvo.models import (
    MODEL,
    OPTIMIZER,
    STATE,
    checkpoints,
    find_weights,
    latest_checkpoint,
    save_checkpoint,
    with_whole_weights,
)

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


def save(root, step, keep=2, value=None):
    """A checkpoint of constants; ``value`` is one weight's, if given."""
    weights = {"a": torch.full((40, 5), float(step)), "b": torch.tensor(float(step))}
    if value is not None:
        weights["a"][17, 3] = value
    tensors = {"a|step": torch.tensor(step)}
    files = {MODEL: weights, OPTIMIZER: tensors, STATE: {"step": step}}
    return save_checkpoint(root, step, files, keep)


def steps(root):
    return sorted(int(path.name[5:]) for path in root.glob("step_*"))


def assert_is_whole(found, step):
    assert found.step == step
    assert found.weights()["a"].eq(step).all()
    assert found.weights()["b"] == step
    assert found.optimizer_tensors()["a|step"] == step
    assert found.state() == {"step": step}


def die_at(monkeypatch, count, is_after):
    """Kill the process at its ``count``-th file operation, before or after it is done."""
    left = [count]

    def deadly(function):
        def call(*arguments, **keywords):
            left[0] -= 1
            is_last = left[0] == 0
            if is_last and not is_after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **keywords)
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in ("save_file", "write_json", "sync"):
        monkeypatch.setattr(checkpoints, name, deadly(getattr(checkpoints, name)))
    monkeypatch.setattr(shutil, "rmtree", deadly(shutil.rmtree))
    monkeypatch.setattr(checkpoints.Path, "mkdir", deadly(checkpoints.Path.mkdir))
    monkeypatch.setattr(checkpoints.Path, "rename", deadly(checkpoints.Path.rename))


def in_killed_child(action):
    """Run ``action`` in a forked process; whether it was killed before it ended."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_checkpoint_round_trips(tmp_path):
    saved = save(tmp_path / "new" / "run", 7)
    found, skipped = latest_checkpoint(tmp_path / "new" / "run")
    assert found == saved
    assert skipped == []
    assert_is_whole(found, 7)


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_a_kill_at_any_file_operation_leaves_a_whole_checkpoint(
    tmp_path, monkeypatch, is_after, again
):
    """Step 2 over step 1, or over a step 2 that is already there; only one may be kept."""
    for count in range(1, 30):
        root = tmp_path / str(count)
        save(root, 1, keep=1)
        if again:
            save(root, 2, keep=1)
        with monkeypatch.context() as patches:
            die_at(patches, count, is_after)
            was_killed = in_killed_child(lambda root=root: save(root, 2, keep=1))
        found, _ = latest_checkpoint(root)
        assert found.step == 2 or not again
        assert_is_whole(found, found.step)
        assert_is_whole(save(root, 3, keep=1), 3)
        assert [path.name for path in root.iterdir()] == ["step_00000003"]
        if not was_killed:
            # A whole checkpoint of the step is left alone: no operation could kill.
            assert count == 1 if again else count > 10
            return
    pytest.fail("the save never came to its end")


@pytest.mark.parametrize("place", ["save_file", "write_json", "sync", "rename"])
def test_an_error_while_writing_names_the_folder_and_leaves_nothing(tmp_path, monkeypatch, place):
    save(tmp_path, 1)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    target = checkpoints.Path if place == "rename" else checkpoints
    with monkeypatch.context() as patches:
        patches.setattr(target, place, fail)
        with pytest.raises(InputError, match="No space left") as caught:
            save(tmp_path, 2)
    assert str(tmp_path) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
    assert_is_whole(latest_checkpoint(tmp_path)[0], 1)


def test_a_file_size_limit_is_told_with_the_bytes_needed(tmp_path):
    save(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        with pytest.raises(InputError, match=r"812 bytes.*File too large"):
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "one bit", "missing"])
def test_damage_is_named_and_the_checkpoint_before_is_taken(tmp_path, name, damage):
    save(tmp_path, 1)
    path = save(tmp_path, 2).folder / name
    content = bytearray(path.read_bytes())
    if damage == "one bit":
        # In the manifest: within a hash. Elsewhere: anywhere.
        content[content.find(b'"sha256": "') + 20 if name == FILES[3] else -3] ^= 1
    path.write_bytes(content[:-4] if damage == "truncated" else content)
    if damage == "missing":
        path.unlink()
    found, skipped = latest_checkpoint(tmp_path)
    assert_is_whole(found, 1)
    assert len(skipped) == 1
    assert "step_00000002" in skipped[0]
    folder = tmp_path / "step_00000002" if name != FILES[0] else _with_model(tmp_path)
    if name in (FILES[0], FILES[3]):
        with pytest.raises(InputError, match="Take another one"):
            find_weights(folder)
    else:  # the weights themselves are whole
        assert find_weights(folder) == find_weights(tmp_path) == folder / FILES[0]


def _with_model(root):
    """The damaged folder, its weights replaced by other ones."""
    shutil.copy(root / "step_00000001" / FILES[0], root / "step_00000002" / FILES[0])
    return root / "step_00000002"


def test_weights_of_another_step_are_seen(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    found, skipped = latest_checkpoint(_with_model(tmp_path).parent)
    assert_is_whole(found, 1)
    assert "model.safetensors is damaged" in skipped[0]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path, keep):
    for step in range(1, 6):
        save(tmp_path, step, keep)
    assert steps(tmp_path) == list(range(6 - keep, 6))


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_newer_checkpoint_does_not_crowd_out_the_good_ones(tmp_path, keep):
    """A run that went back behind a damaged checkpoint keeps what it saves from then on."""
    save(tmp_path, 5, keep)
    broken = save(tmp_path, 9, keep=2).folder / "manifest.json"
    broken.write_text("{")
    save(tmp_path, 6, keep)
    assert_is_whole(latest_checkpoint(tmp_path)[0], 6)
    assert steps(tmp_path) == ([6] if keep == 1 else [5, 6])


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path):
    folder = save(tmp_path, 2).folder
    (folder / "model.safetensors").write_bytes(b"")
    assert_is_whole(save(tmp_path, 2), 2)
    assert_is_whole(latest_checkpoint(tmp_path)[0], 2)


def test_other_names_are_no_checkpoints(tmp_path):
    save(tmp_path, 1)
    shutil.copytree(tmp_path / "step_00000001", tmp_path / ".saving")
    shutil.copytree(tmp_path / "step_00000001", tmp_path / "step_00000009.bak")
    (tmp_path / "step_00000008").write_text("a file")
    found, skipped = latest_checkpoint(tmp_path)
    assert (found.step, skipped) == (1, [])
    assert latest_checkpoint(tmp_path / "nowhere") == (None, [])


def test_find_weights_takes_a_file_a_checkpoint_or_a_run(tmp_path):
    folder = save(tmp_path, 3).folder
    file = folder / "model.safetensors"
    assert find_weights(file) == find_weights(folder) == find_weights(tmp_path) == file
    assert load_file(find_weights(tmp_path))["a"].eq(3).all()


def test_find_weights_tells_why_there_are_none(tmp_path):
    with pytest.raises(InputError, match="no whole checkpoint"):
        find_weights(tmp_path)
    folder = save(tmp_path, 3).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(list(manifest)))
    with pytest.raises(InputError, match="step_00000003"):
        find_weights(tmp_path)


def test_find_weights_takes_the_last_epoch_of_a_released_run(tmp_path):
    for epoch in (2, 10, 9):
        (tmp_path / f"meta_model_{epoch}.pt").write_bytes(b"x")
    assert find_weights(tmp_path) == tmp_path / "meta_model_10.pt"
    newest = save(tmp_path, 3)
    assert find_weights(tmp_path).parent == newest.folder
    (newest.folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="is truncated"):
        find_weights(tmp_path)


def publish_unchecked(monkeypatch, root, step):
    """A checkpoint with NaN, as no save writes it."""
    with monkeypatch.context() as patches:
        patches.setattr(checkpoints, "check_finite", lambda *_: None)
        return save(root, step, value=torch.nan)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_never_written(tmp_path, value):
    save(tmp_path, 1, keep=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    match = r"step_00000002: NaN or infinite: model.safetensors: a; first at \[17, 3\]"
    with pytest.raises(InputError, match=match):
        save(tmp_path, 2, keep=1, value=value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_a_checkpoint_with_nan_is_passed_over(tmp_path, monkeypatch, capsys):
    save(tmp_path, 1)
    bad = publish_unchecked(monkeypatch, tmp_path, 2)
    found, skipped = latest_checkpoint(tmp_path)
    assert_is_whole(found, 1)
    assert skipped == [f"{bad.folder}: model.safetensors holds NaN or infinity in a"]
    assert find_weights(tmp_path).parent == found.folder
    with pytest.raises(InputError, match="NaN or infinity in a"):
        find_weights(bad.folder)
    assert with_whole_weights(tmp_path) == [found.folder]


def test_who_asks_for_weights_is_told_once_what_was_passed_over(tmp_path, capsys):
    save(tmp_path, 1)
    path = save(tmp_path, 2).folder / MODEL
    assert find_weights(tmp_path) == path
    assert capsys.readouterr().out == ""
    path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        assert find_weights(tmp_path).parent.name == "step_00000001"
    assert capsys.readouterr().out.splitlines() == [
        f"skipped a damaged checkpoint: {path.parent}: {MODEL} is truncated",
        f"taking the one of step 1: {tmp_path / 'step_00000001'}",
    ]


def test_no_permission_is_no_absence(tmp_path, monkeypatch):
    """Root may read everything, so that the operating system's answer is given here."""
    save(tmp_path, 1)

    def refuse(path, _purpose):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(checkpoints, "read_json", refuse)
    found, skipped = latest_checkpoint(tmp_path)
    assert found is None
    assert "no permission to read it" in skipped[0]
    assert "step_00000001/manifest.json" in skipped[0]

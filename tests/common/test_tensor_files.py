"""Tensors of strangers' files: every usual layout is read, nothing in a file is ever run."""

import os
import pickle
import random
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from kyvo.common.errors import InputError
from kyvo.common.weight_files import read_safetensors, read_state_dict

WEIGHTS = {
    "layer.weight": torch.arange(12.0).reshape(3, 4),
    "layer.bias": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "count": torch.tensor(7),
}


def save(path: Path, content: Any, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def save_safe(path: Path) -> Path:
    save_file(WEIGHTS, path)
    return path


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == WEIGHTS.keys() and all(
        torch.equal(found[name], WEIGHTS[name]) and found[name].dtype == WEIGHTS[name].dtype
        for name in WEIGHTS
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(zipped: bool, tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", WEIGHTS, zipped)
    assert same(read_state_dict(path, "weights"))
    nested = {"epoch": 3, "state_dict": WEIGHTS, "hyper_parameters": {"lr": 0.1}}
    assert same(read_state_dict(save(tmp_path / "last.ckpt", nested, zipped), "weights"))


def test_safetensors(tmp_path: Path) -> None:
    path = save_safe(tmp_path / "a.safetensors")
    assert same(read_state_dict(path, "weights"))
    assert same(read_safetensors(path, "weights"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([WEIGHTS], "holds no weights by name"),
        (torch.zeros(2), "holds no weights by name"),
        ({"epoch": 3}, "holds no tensors"),
        ({"state_dict": {}}, "holds no tensors"),
    ],
)
def test_files_without_weights(content: Any, message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", content)
    with pytest.raises(InputError, match=f"weights: {path}: {message}"):
        read_state_dict(path, "weights")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("harmless", [(), ("pytorch_lightning.",)])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_does_not_run(
    zipped: bool, harmless: tuple[str, ...], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    save(tmp_path / "a.pt", {"state_dict": WEIGHTS, "extra": Bomb(made)}, zipped)
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Bomb(made), protocol=2))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(InputError, match=f"^weights: {tmp_path / name}: cannot be read as"):
            read_state_dict(tmp_path / name, "weights", harmless)
    assert not made.exists()


def test_code_called_harmless_does_not_run_either(tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = save(tmp_path / "a.pt", {"state_dict": WEIGHTS, "extra": Bomb(made)})
    with pytest.raises(InputError, match="cannot be read as plain weights"):
        read_state_dict(path, "weights", harmless=("posix.", "nt."))
    assert not made.exists()


def test_message_gives_the_cause_and_no_dangerous_advice(tmp_path: Path) -> None:
    """Torch itself recommends weights_only=False, and colours that."""
    path = save(tmp_path / "a.pt", {"extra": Bomb(tmp_path / "made")})
    with pytest.raises(
        InputError, match=r"weights: .*GLOBAL \w+\.mkdir .*could run code"
    ) as caught:
        read_state_dict(path, "weights")
    path.write_bytes(b"version https://git-lfs")
    with pytest.raises(InputError, match=r"Unsupported operand 118\. The file is broken") as other:
        read_state_dict(path, "weights")
    for message in (str(caught.value), str(other.value)):
        assert "weights_only" not in message
        assert "\n" not in message
        assert "\x1b" not in message


def test_classes_of_a_trainer_are_replaced_by_a_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Lightning's files, whose classes are not installed where the weights are read."""
    module = types.ModuleType("pytorch_lightning")
    state_class = type("State", (), {"__module__": "pytorch_lightning"})
    module.State = state_class  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch_lightning", module)
    state = state_class()
    state.count = 3
    path = save(tmp_path / "last.ckpt", {"callbacks": {state_class: state}, "state_dict": WEIGHTS})
    monkeypatch.delitem(sys.modules, "pytorch_lightning")
    with pytest.raises(InputError, match=r"Unsupported global: GLOBAL pytorch_lightning\.State"):
        read_state_dict(path, "weights")
    assert same(read_state_dict(path, "weights", harmless=("pytorch_lightning.",)))
    with pytest.raises(InputError, match="cannot be read as plain weights"):
        read_state_dict(path, "weights", harmless=("torchmetrics.",))


def broken_copies(content: bytes, dice: random.Random) -> list[bytes]:
    """Cut off and with one bit turned, at places all over the file."""
    places = range(0, len(content), max(1, len(content) // 60))
    cut = [content[:place] for place in places]
    turned = []
    for place in places:
        copy = bytearray(content)
        copy[place] ^= 1 << dice.randrange(8)
        turned.append(bytes(copy))
    return cut + turned


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_broken_files_are_input_errors(kind: str, tmp_path: Path) -> None:
    if kind == "safetensors":
        path = save_safe(tmp_path / "a.safetensors")
    else:
        path = save(tmp_path / "a.pt", WEIGHTS, zipped=kind == "zip")
    content = path.read_bytes()
    messages = []
    for copy in broken_copies(content, random.Random(0)):
        path.write_bytes(copy)
        try:
            read_state_dict(path, "weights")
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 60
    assert all(message.startswith(f"weights: {path}: ") for message in messages)


def test_missing_files(tmp_path: Path) -> None:
    for name in ("a.pt", "a.safetensors"):
        with pytest.raises(InputError, match=f"weights: {tmp_path / name}: no such file"):
            read_state_dict(tmp_path / name, "weights")

"""VQGAN run folders in the layout of taming-transformers, read without running their code.

FOLDER/configs/NAME-project.yaml (or model.yaml)   model.target and model.params
FOLDER/checkpoints/last.ckpt                       {"state_dict": {name: tensor}, ...}
"""

import dataclasses
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals
from yaml import YAMLError

from kyvo.config import build_config
from kyvo.errors import InputError
from kyvo.files import atomic_file, check_output_name, require_file
from kyvo.images.vqgan import VQGAN, VQGANConfig

_TARGETS = {"nearest": "taming.models.vqgan.VQModel", "gumbel": "taming.models.vqgan.GumbelVQ"}
_OWN_PARAMS = ("embed_dim", "n_embed")
_LISTED = 8


class _Inert:
    """Stands in for the training library's classes that old checkpoints mention."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


def load_vqgan(path: Path | str) -> VQGAN:
    """Build the VQGAN of a run folder and load its weights (float32, on the CPU, eval mode).

    Weights under ``loss.`` (discriminator, perceptual network) are left out. Of several
    ``*-project.yaml`` the last by name, which starts with the date, is read.

    Raises:
        InputError: a file is missing or damaged, would run code, or does not fit the model.
    """
    folder = Path(path)
    config = read_vqgan_config(_find_config(folder))
    checkpoint = folder / "checkpoints" / "last.ckpt"
    weights = read_weights(checkpoint, "VQGAN checkpoint")
    weights = {name: value for name, value in weights.items() if not name.startswith("loss.")}
    model = VQGAN(config)
    check_weights(weights, model.state_dict(), f"VQGAN checkpoint: {checkpoint}")
    model.load_state_dict(weights)
    return model.eval()


def save_vqgan(model: VQGAN, folder: Path | str, name: str) -> None:
    """Write ``model`` as a run folder that ``load_vqgan`` (and taming's code) reads.

    Raises:
        InputError: ``name`` cannot be part of a file name.
    """
    file_name = check_output_name(f"{name}-project.yaml", "VQGAN name")
    folder = Path(folder)
    with atomic_file(folder / "configs" / file_name) as temporary:
        temporary.write_text(OmegaConf.to_yaml(_project(model.config)), encoding="utf-8")
    weights = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    with atomic_file(folder / "checkpoints" / "last.ckpt") as temporary:
        torch.save({"state_dict": weights}, temporary)


def read_vqgan_config(path: Path | str) -> VQGANConfig:
    """The model's shape from a project yaml: ``model.target`` and ``model.params``.

    Raises:
        InputError: not a yaml, or not one of a VQGAN that this code can build.
    """
    path = require_file(path, "VQGAN config")
    try:
        project = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise InputError(f"VQGAN config: {path}: not a valid yaml file: {error}") from None
    model = _section(project, "model", path)
    params = _section(model, "params", path, "model.")
    shape = _section(params, "ddconfig", path, "model.params.")
    own = {key: params[key] for key in _OWN_PARAMS if key in params}
    values = {**shape, **own, "quantizer": _quantizer_of(model.get("target"), path)}
    return build_config(VQGANConfig, values, f"VQGAN config: {path}")


def read_weights(path: Path | str, purpose: str) -> dict[str, Tensor]:
    """The tensors of a torch file: its ``state_dict``, or the file itself if it has none.

    Only plain data is unpickled. Classes of ``pytorch_lightning``, which Lightning's checkpoints
    mention, become inert placeholders; a file that asks for any other class is refused.

    Raises:
        InputError: the file is missing, damaged, asks for code, or holds no named tensors.
    """
    path = require_file(path, purpose)
    try:
        placeholders = _placeholders(path, purpose)
        with safe_globals(placeholders):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).split("\n", 1)[0]
        raise InputError(f"{purpose}: {path}: not a readable torch file: {reason}") from None
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(map(_is_named_tensor, weights.items())):
        raise InputError(f"{purpose}: {path}: expected a dict of tensors or a 'state_dict' of it.")
    return dict(weights)


def check_weights(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Compare names and shapes of weights, and refuse values that are not finite.

    Raises:
        InputError: listing the missing, unexpected, mis-shaped and non-finite weights.
    """
    common = [name for name in expected if name in found]
    groups = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "wrong shape": [
            f"{name} {tuple(found[name].shape)}, not {tuple(expected[name].shape)}"
            for name in common
            if found[name].shape != expected[name].shape
        ],
        "NaN or infinite": [name for name in common if not found[name].isfinite().all()],
    }
    problems = [f"{title}: {_listing(names)}" for title, names in groups.items() if names]
    if problems:
        raise InputError(
            f"{source}: the weights do not fit: {'; '.join(problems)}. "
            "Check that config and checkpoint belong together."
        )


def _find_config(folder: Path) -> Path:
    configs = folder / "configs"
    found = [*sorted(configs.glob("*-project.yaml")), *configs.glob("model.yaml")]
    if not found:
        raise InputError(
            f"VQGAN: {folder}: no configs/*-project.yaml and no configs/model.yaml. "
            "Give the run folder that holds 'configs' and 'checkpoints'."
        )
    projects = [path for path in found if path.name != "model.yaml"]
    return projects[-1] if projects else found[0]


def _section(values: Any, key: str, path: Path, prefix: str = "") -> dict[str, Any]:
    section = values.get(key) if isinstance(values, dict) else None
    if not isinstance(section, dict):
        raise InputError(f"VQGAN config: {path}: no section '{prefix}{key}'.")
    return cast(dict[str, Any], section)


def _quantizer_of(target: Any, path: Path) -> str:
    for quantizer, name in _TARGETS.items():
        if target == name:
            return quantizer
    raise InputError(
        f"VQGAN config: {path}: model.target {target!r}, expected {' or '.join(_TARGETS.values())}."
    )


def _project(config: VQGANConfig) -> dict[str, Any]:
    shape = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(config).items()
    }
    del shape["quantizer"]
    own = {key: shape.pop(key) for key in _OWN_PARAMS}
    if config.num_groups == VQGANConfig.num_groups:
        del shape["num_groups"]  # taming's code would not know it
    loss = {"target": "taming.modules.losses.DummyLoss"}
    params = {**own, "ddconfig": shape, "lossconfig": loss}
    return {"model": {"target": _TARGETS[config.quantizer], "params": params}}


def _placeholders(path: Path, purpose: str) -> list[Any]:
    names = get_unsafe_globals_in_checkpoint(path)
    refused = [name for name in names if not name.startswith("pytorch_lightning.")]
    if refused:
        raise InputError(
            f"{purpose}: {path}: refused: loading it would need {_listing(refused)}, which could "
            "run code. Save the bare state dict again and use that."
        )
    return [(_Inert, name) for name in names]


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _listing(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")

"""VQGAN run folders in the layout of taming-transformers, read without running their code.

FOLDER/configs/NAME-project.yaml (or model.yaml)   model.target and model.params
FOLDER/checkpoints/last.ckpt                       {"state_dict": {name: tensor}, ...}
"""

import dataclasses
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kyvo.common.config import build_config
from kyvo.common.errors import InputError
from kyvo.common.files import (
    atomic_file,
    check_output_name,
    check_outside,
    copy_file,
    list_files,
    require_file,
)
from kyvo.common.weight_files import check_weights, read_state_dict, write_torch
from kyvo.images.vqgan import VQGAN, VQGANConfig

RUN_WEIGHTS = "checkpoints/last.ckpt"
"""Weights of a run folder."""
_TARGETS = {"nearest": "taming.models.vqgan.VQModel", "gumbel": "taming.models.vqgan.GumbelVQ"}
_OWN_PARAMS = ("embed_dim", "n_embed")
# What the checkpoints of 2021 name besides tensors.
_HARMLESS = ("pytorch_lightning.",)


def load_vqgan(path: Path | str) -> VQGAN:
    """Build the VQGAN of a run folder and load its weights (float32, on the CPU, eval mode).

    Weights under ``loss.`` (discriminator, perceptual network) are excluded. Of several
    ``*-project.yaml`` the last by name, which starts with the date, is read.

    Raises:
        InputError: a file is missing or damaged, would run code, or does not fit the model.
    """
    folder = Path(path)
    config = read_vqgan_config(_find_config(folder))
    checkpoint = folder / RUN_WEIGHTS
    weights = read_state_dict(checkpoint, "VQGAN checkpoint", _HARMLESS)
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
    write_torch(folder / RUN_WEIGHTS, {"state_dict": weights})


def copy_vqgan(source: Path, target: Path) -> None:
    """Copy what ``load_vqgan`` reads of a run folder, and the other configs beside it.

    Raises:
        InputError: ``target`` is in ``source``.
    """
    if target.resolve() != source.resolve():
        check_outside(target, source)
    weights = source / RUN_WEIGHTS
    paths = [*list_files(source / "configs", (".yaml",)), *list_files(weights.parent, (".sha256",))]
    for path in (*paths, weights):
        copy_file(path, target / path.relative_to(source))


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

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from test_vqgan import GUMBEL
from vqgan_fixtures import SMALL, random_images, with_named_weights

from kyvo.common.errors import InputError
from kyvo.images.checkpoint import load_vqgan, read_vqgan_config, save_vqgan
from kyvo.images.codec import ImageCodec
from kyvo.images.vqgan import VQGAN, VQGANConfig

CLEVR_YAML = """
model:
  base_learning_rate: 4.5e-06
  target: taming.models.vqgan.VQModel
  params:
    embed_dim: 256
    n_embed: 1024
    ddconfig:
      double_z: false
      z_channels: 256
      resolution: 256
      in_channels: 3
      out_ch: 3
      ch: 128
      ch_mult: [1, 1, 2, 2, 4]
      num_res_blocks: 2
      attn_resolutions: [16]
      dropout: 0.0
    lossconfig:
      target: taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator
      params: {disc_start: 10000}
"""


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    save_vqgan(with_named_weights(VQGAN(SMALL)), tmp_path, "mini")
    return tmp_path


def rewrite(folder: Path, content: Any) -> None:
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    # Other programs write none.
    (folder / "checkpoints" / "last.ckpt.sha256").unlink(missing_ok=True)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("config", [SMALL, GUMBEL])
def test_saved_then_loaded_is_equal(tmp_path: Path, config: VQGANConfig) -> None:
    model = with_named_weights(VQGAN(config))
    save_vqgan(model, tmp_path, "mini")
    loaded = load_vqgan(tmp_path)
    assert loaded.config == config
    assert not loaded.training
    images = random_images(2)
    codes = ImageCodec(model).encode(images)
    assert (ImageCodec(loaded).encode(images) == codes).all()
    assert (ImageCodec(loaded).decode(codes) == ImageCodec(model).decode(codes)).all()


def test_layout_is_that_of_the_reference(run_folder: Path) -> None:
    files = sorted(p.relative_to(run_folder).as_posix() for p in run_folder.rglob("*.*"))
    assert files == [
        "checkpoints/last.ckpt",
        "checkpoints/last.ckpt.sha256",
        "configs/mini-project.yaml",
    ]
    params = OmegaConf.load(run_folder / "configs/mini-project.yaml").model.params
    assert (params.embed_dim, params.n_embed) == (8, 32)
    assert params.ddconfig.ch_mult == [1, 1, 1]


def test_released_config_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(CLEVR_YAML)
    config = read_vqgan_config(path)
    assert (config.embed_dim, config.n_embed, config.ch_mult) == (256, 1024, (1, 1, 2, 2, 4))
    assert (config.downsampling_factor, config.codes_per_side) == (16, 16)
    assert config.quantizer == "nearest"
    path.write_text(CLEVR_YAML.replace("VQModel", "GumbelVQ"))
    assert read_vqgan_config(path).quantizer == "gumbel"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("taming.models.vqgan.VQModel", "os.system", "os.system"),
        ("num_res_blocks", "num_res_block", "num_res_blocks"),
        ("ch: 128", "ch: many", "expected int"),
        ("ddconfig", "shape", "no section 'model.params.ddconfig'"),
        ("embed_dim: 256", "embed_dim: [", "not a valid yaml"),
        ("embed_dim: 256", "embed_dim: !!python/name:os.system", "not a valid yaml"),
    ],
)
def test_wrong_configs_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(CLEVR_YAML.replace(old, new))
    with pytest.raises(InputError, match=message):
        read_vqgan_config(path)


def test_model_yaml_and_the_latest_project_yaml_are_found(run_folder: Path) -> None:
    configs = run_folder / "configs"
    (configs / "2024-project.yaml").write_text("nothing: here")
    assert load_vqgan(run_folder).config == SMALL
    (configs / "2024-project.yaml").unlink()
    (configs / "mini-project.yaml").rename(configs / "model.yaml")
    assert load_vqgan(run_folder).config == SMALL
    (configs / "model.yaml").unlink()
    with pytest.raises(InputError, match="no configs"):
        load_vqgan(run_folder)


def test_loss_weights_are_excluded(run_folder: Path) -> None:
    extra = {"loss.discriminator.main.0.weight": torch.zeros(3)}
    rewrite(run_folder, {"state_dict": {**weights_of(run_folder), **extra}, "epoch": 3})
    assert torch.equal(load_vqgan(run_folder).codebook, VQGAN.codebook.fget(rebuilt()))


def rebuilt() -> VQGAN:
    return with_named_weights(VQGAN(SMALL))


def test_every_misfit_is_listed(run_folder: Path) -> None:
    weights = weights_of(run_folder)
    del weights["quant_conv.bias"]
    weights["stranger"] = torch.zeros(1)
    weights["post_quant_conv.bias"] = torch.zeros(3)
    weights["decoder.conv_out.bias"][1] = torch.nan
    rewrite(run_folder, {"state_dict": weights})
    with pytest.raises(InputError) as caught:
        load_vqgan(run_folder)
    for part in (
        "missing: quant_conv.bias",
        "unexpected: stranger",
        "wrong shape: post_quant_conv.bias (3,), not (16,)",
        "NaN or infinite: decoder.conv_out.bias",
    ):
        assert part in str(caught.value)


def test_lightning_classes_become_inert(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_of(run_folder)
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    callback = type("ModelCheckpoint", (), {"__module__": name, "__init__": record_a_call})
    module.ModelCheckpoint = callback
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)
    instance = callback.__new__(callback)
    instance.best = torch.tensor(0.1)
    rewrite(run_folder, {"state_dict": weights, "callbacks": {callback: {"kept": instance}}})
    monkeypatch.undo()
    assert load_vqgan(run_folder).config == SMALL
    assert not CALLS


CALLS: list[str] = []


def record_a_call(self: Any) -> None:
    CALLS.append(type(self).__name__)


class Payload:
    """Unpickled by a careless loader, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_payload_that_would_run_code_is_refused(run_folder: Path) -> None:
    trap = run_folder / "trap"
    rewrite(run_folder, {"state_dict": weights_of(run_folder), "callbacks": Payload(trap)})
    with pytest.raises(InputError, match="mkdir"):
        load_vqgan(run_folder)
    assert not trap.exists()


@pytest.mark.parametrize(
    "content", [[1, 2], {"state_dict": {"a": 3}}, {"state_dict": 5}, {"state_dict": {1: 2}}]
)
def test_other_contents_are_refused(run_folder: Path, content: Any) -> None:
    rewrite(run_folder, content)
    with pytest.raises(InputError, match="holds no"):
        load_vqgan(run_folder)


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_truncated_files_are_refused(run_folder: Path, keep: int) -> None:
    path = run_folder / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"last\.ckpt: damaged"):
        load_vqgan(run_folder)
    path.with_name("last.ckpt.sha256").unlink()
    with pytest.raises(InputError, match="cannot be read as plain weights"):
        load_vqgan(run_folder)


def test_names_never_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="file name"):
        save_vqgan(VQGAN(SMALL), tmp_path / "run", "../../x")
    assert not list(tmp_path.iterdir())

"""One update of a VQGAN: nothing in it makes the host wait for the device."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from no_waiting import NoWaiting
from torch import Tensor
from vqgan_fixtures import SMALL, random_images, small_run

from kyvo.images.preprocessing import to_model_range
from kyvo.training.step import NonFiniteGradCheck
from kyvo.training.vqgan import VQGANTrainingConfig
from kyvo.training.vqgan.step import Forward, VQGANTrainer

pytestmark = pytest.mark.usefixtures("narrow_discriminator")


@pytest.mark.parametrize("method", ["ema", "gradient"])
@pytest.mark.parametrize("muon_learning_rate", [None, 0.02])
def test_an_update_never_waits_for_the_device(
    tmp_path: Path, method: str, muon_learning_rate: float | None
) -> None:
    config = small_run(tmp_path)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, ch=8, num_groups=4),
        data=dataclasses.replace(config.data, crop_size=24, crop_candidates=3),
        loss=dataclasses.replace(config.loss, discriminator=0.8),
        codebook=dataclasses.replace(config.codebook, method=method, start_step=1, revive_every=2),
        optimizer=dataclasses.replace(config.optimizer, muon_learning_rate=muon_learning_rate),
        precision="bf16_mixed",
        channels_last=True,
    )
    trainer = VQGANTrainer(config, torch.device("cpu"))
    images_BCHW = to_model_range(random_images(4))
    before = trainer.model.decoder.last_layer.detach().clone()
    check = NonFiniteGradCheck()
    # The random places of crops are drawn on the host.
    prepared_BCHW = trainer.prepare(images_BCHW, 0.0)
    with NoWaiting():
        for step in range(3):
            terms = trainer.update(prepared_BCHW, step, step / 40)
            check.record(step, ["a"], trainer.gradient_norm())
    check.check()
    assert terms.keys() >= {"loss", "reconstruction", "commitment", "adversarial", "discriminator"}
    assert ("codebook" in terms) == (method == "gradient")
    assert not torch.equal(trainer.model.decoder.last_layer, before)


@pytest.mark.parametrize("method", ["ema", "gradient"])
def test_compiled_updates_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Before and after the start of the codebook: whole graphs, taken apart for the backward pass.

    Their kernels are torch's here: compiling those takes minutes on a CPU.
    """
    config = small_run(tmp_path)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(SMALL, ch=8, num_groups=4, ch_mult=(1, 1)),
        codebook=dataclasses.replace(config.codebook, method=method, start_step=1),
        optimizer=dataclasses.replace(config.optimizer, muon_learning_rate=None),
        channels_last=True,
    )
    graphs = []

    def whole_graph(function: Any, **options: Any) -> Any:
        assert options.pop("fullgraph")
        assert options.pop("mode") == "default"
        graphs.append(function)
        return compile_(function, backend="aot_eager", fullgraph=True, **options)

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", whole_graph)
    plain, compiled = (updates(config, is_compiled) for is_compiled in (False, True))
    assert len(graphs) == 1
    assert plain.keys() == compiled.keys()
    for name, values in plain.items():
        # Adam's first steps have one length, however small the gradient, and so enlarge rounding.
        torch.testing.assert_close(compiled[name], values, rtol=1e-2, atol=1e-4)


def updates(config: VQGANTrainingConfig, is_compiled: bool) -> dict[str, Tensor]:
    """Terms and norms of three updates from the same weights."""
    torch.manual_seed(0)
    config = dataclasses.replace(config, compile=is_compiled)
    trainer = VQGANTrainer(config, torch.device("cpu"))
    images_BCHW = trainer.prepare(to_model_range(random_images(4)), 0.0)
    found = {}
    for step in range(3):
        for name, term in trainer.update(images_BCHW, step, step / 40).items():
            found[f"{step} {name}"] = term
        found[f"{step} norm"] = trainer.gradient_norm()
    assert ("0 commitment" in found, "1 commitment" in found) == (False, True)
    return found


def test_adversarial_steps_run_without_the_compiled_pass(tmp_path: Path) -> None:
    config = small_run(tmp_path)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(SMALL, ch=8, num_groups=4),
        loss=dataclasses.replace(config.loss, discriminator=0.8, discriminator_start=1),
    )
    trainer = VQGANTrainer(config, torch.device("cpu"))
    calls = []

    def recorded(images_BCHW: Tensor, quantises: bool) -> Forward:
        calls.append(quantises)
        return trainer.forward(images_BCHW, quantises)

    trainer._compiled = recorded
    images_BCHW = trainer.prepare(to_model_range(random_images(4)), 0.0)
    for step in range(3):
        trainer.update(images_BCHW, step, step / 40)
    assert calls == [False]

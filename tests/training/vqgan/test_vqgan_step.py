"""One update of a VQGAN: nothing in it makes the host wait for the device."""

import dataclasses
from pathlib import Path

import pytest
import torch
from no_waiting import NoWaiting
from vqgan_fixtures import random_images, small_run

from kyvo.images.preprocessing import to_model_range
from kyvo.training.step import NonFiniteGradCheck
from kyvo.training.vqgan.step import VQGANTrainer


@pytest.mark.parametrize("method", ["ema", "gradient"])
@pytest.mark.parametrize("muon_learning_rate", [None, 0.02])
def test_an_update_never_waits_for_the_device(
    tmp_path: Path, method: str, muon_learning_rate: float | None
) -> None:
    config = small_run(tmp_path)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, crop_size=24, crop_candidates=3),
        loss=dataclasses.replace(config.loss, discriminator=0.8),
        codebook=dataclasses.replace(
            config.codebook, method=method, start_step=1, revive_every=1000
        ),
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
            check.record(step, trainer.gradient_norm(), ["a"])
    check.check()
    assert terms.keys() >= {"loss", "reconstruction", "commitment", "adversarial", "discriminator"}
    assert ("codebook" in terms) == (method == "gradient")
    assert not torch.equal(trainer.model.decoder.last_layer, before)


def test_revival_alone_waits(tmp_path: Path) -> None:
    config = small_run(tmp_path)
    rule = dataclasses.replace(config.codebook, start_step=0, revive_every=2)
    trainer = VQGANTrainer(dataclasses.replace(config, codebook=rule), torch.device("cpu"))
    images_BCHW = to_model_range(random_images(4))
    with NoWaiting():
        trainer.update(images_BCHW, 0, 0.0)
        with pytest.raises(AssertionError, match="waits for the device"):
            trainer.update(images_BCHW, 1, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ema", "gradient"])
def test_compiled_updates_are_the_same(tmp_path: Path, method: str) -> None:
    """Before and after the start of the codebook, against the plain modules."""
    config = small_run(tmp_path)
    config = dataclasses.replace(
        config,
        codebook=dataclasses.replace(config.codebook, method=method, start_step=2),
        optimizer=dataclasses.replace(config.optimizer, muon_learning_rate=None),
        channels_last=True,
    )
    images_BCHW = to_model_range(random_images(4))
    losses, weights = [], []
    for is_compiled in (False, True):
        torch.manual_seed(0)
        trainer = VQGANTrainer(
            dataclasses.replace(config, compile=is_compiled), torch.device("cpu")
        )
        prepared_BCHW = trainer.prepare(images_BCHW, 0.0)
        terms = [trainer.update(prepared_BCHW, step, step / 40) for step in range(4)]
        assert [("commitment" in row) for row in terms] == [False, False, True, True]
        losses.append(torch.stack([row["loss"] for row in terms]))
        weights.append(trainer.gradient_norm())
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-2, atol=1e-4)

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
            check.record(step, trainer.gradient_norm(), ["a"])
    check.check()
    assert terms.keys() >= {"loss", "reconstruction", "commitment", "adversarial", "discriminator"}
    assert ("codebook" in terms) == (method == "gradient")
    assert not torch.equal(trainer.model.decoder.last_layer, before)

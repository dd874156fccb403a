"""A step: nothing in it reads the device, and what is found late is still reported right."""

import dataclasses

import pytest
import torch
from kyvo_stand_ins import sources, tiny_model, write_data
from no_waiting import NoWaiting

from kyvo.common.config import Component
from kyvo.common.errors import InputError
from kyvo.data.batches import LossWeighting, collate
from kyvo.data.dataset import kyvo_dataset
from kyvo.models import released_state_dict
from kyvo.tokens.vocabulary import get_vocabulary
from kyvo.training import (
    LossConfig,
    NonFiniteGradCheck,
    StepMeter,
    TrainingConfig,
    apply_gradients,
    autocast,
    build_optimizer,
    language_loss,
    loss_weight,
)
from kyvo.training.setup import to_float8

CPU = torch.device("cpu")
FUSED = Component("torch.optim.AdamW", {"lr": 1e-3, "fused": True})
MUON = Component("kyvo.training.muon.MuonAdamW", {"lr": 1e-3, "muon_lr": 1e-3, "weight_decay": 0.1})


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.sum().item(),
        lambda x: bool(torch.isfinite(x.sum())),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: x.__setitem__(x > 0, torch.ones(3)),
        lambda x: torch.equal(x, x),
        lambda x: torch.bincount(x.long()),
    ],
)
def test_the_trap_snaps(operation):
    with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        operation(torch.ones(3))


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    paths = write_data(tmp_path_factory.mktemp("data"), num_samples=6)
    dataset = kyvo_dataset(
        vocabulary=get_vocabulary("mini"),
        task="3-I",
        codes_per_image=16,
        **sources(paths, "three_d_source", "image_source"),
    )
    samples = [dataset[i] for i in range(6)]
    return [collate(samples[i : i + 3], LossWeighting(5, 10.0), 16) for i in (0, 3)]


@pytest.fixture
def config(tmp_path):
    return TrainingConfig(
        data_root=tmp_path,
        output_dir=tmp_path,
        vocabulary="mini",
        codebook=tmp_path / "codebook.npy",
        model=Component("kyvo.models.kyvo_model"),
        dataset=Component("kyvo.data.dataset.kyvo_dataset"),
        optimizer=FUSED,
        precision="fp32",
    )


def loss_of(model, batch, config):
    with autocast(config.precision, CPU):
        return language_loss(model, batch, config.loss.normalization, config.loss.head_chunk)


def take_step(model, optimizer, batches, config, meter, check):
    weight = sum(loss_weight(batch, config.loss.normalization) for batch in batches)
    for batch in batches:
        sums = loss_of(model, batch, config)
        (sums.total / weight).backward()
        meter.add(sums, batch, weight)
    parameters = model.trainable_parameters().values()
    norm = apply_gradients(parameters, optimizer, None, config.clip_grad_norm)
    check.record(1, [key for batch in batches for key in batch.keys], norm)
    meter.gradient_norm = norm


@pytest.mark.parametrize(
    ("optimizer", "precision", "loss"),
    [
        (FUSED, "fp32", LossConfig()),
        (FUSED, "bf16_mixed", LossConfig(5, 10.0, "sample", head_chunk=16)),
        (MUON, "fp32", LossConfig(5, 10.0, "reference")),
    ],
)
def test_a_step_never_waits_for_the_device(batches, config, optimizer, precision, loss):
    config = dataclasses.replace(config, optimizer=optimizer, precision=precision, loss=loss)
    model = tiny_model(initial_std=0.02)
    built = build_optimizer(config, model.trainable_parameters())
    meter, check = StepMeter(10, 0), NonFiniteGradCheck()
    before = model.output.weight.detach().clone()
    with NoWaiting():
        for _ in range(2):
            take_step(model, built, batches, config, meter, check)
    check.check()
    assert not torch.equal(model.output.weight, before)
    assert meter.report(2, 1e-3)["loss"] > 1


def test_the_first_bad_step_is_named_however_late_it_is_asked_for(batches):
    check = NonFiniteGradCheck()
    check.check()
    for step, norm in ((4, 1.5), (5, 2.5)):
        check.record(step, batches[0].keys, torch.tensor(norm))
    check.check()
    for step, norm in ((6, 1.0), (7, float("inf")), (8, float("nan"))):
        check.record(step, batches[step % 2].keys, torch.tensor(norm))
    with pytest.raises(InputError, match="step 7: the gradient is not finite") as caught:
        check.check()
    for key in batches[1].keys[:3]:
        assert key in str(caught.value)
    check.check()


def test_float8_layers_keep_names_shapes_and_the_very_parameters():
    plain, model = tiny_model(), tiny_model()
    expected = dict(model.named_parameters())
    to_float8(model, emulate=True)
    kinds = {
        name: type(m).__name__ for name, m in model.named_modules() if hasattr(m, "in_features")
    }
    float8 = {name for name, kind in kinds.items() if kind == "Float8Linear"}
    assert len(float8) == 4 * len(model.layers) - 3
    assert "output" not in float8
    assert dict(model.named_parameters()).keys() == expected.keys()
    assert all(p is expected[name] for name, p in model.named_parameters())
    saved, loaded = released_state_dict(model), released_state_dict(plain)
    assert saved.keys() == loaded.keys()
    model.load_state_dict(plain.state_dict())
    plain.load_state_dict(model.state_dict())


def test_float8_products_are_near_the_exact_ones(batches, config):
    """Three bits of mantissa: each number is off by up to 1/16, a sum of many by far less."""
    weight = loss_weight(batches[0], "valid")
    found = []
    for is_float8 in (False, True):
        model = tiny_model(initial_std=0.05)
        if is_float8:
            to_float8(model, emulate=True)
        loss = loss_of(model, batches[0], config).total / weight
        loss.backward()
        gradients = [p.grad.flatten() for p in model.layers.parameters()]
        found.append((loss.item(), torch.cat(gradients)))
    (loss, gradient), (loss8, gradient8) = found
    assert loss8 == pytest.approx(loss, rel=0.01)
    assert loss8 != loss
    assert torch.cosine_similarity(gradient, gradient8, dim=0) > 0.98

"""Optimizer, schedule and random states: an interrupted run goes on bit for bit."""

import copy
import math

import orjson
import pytest
import torch
import torchao.optim
from safetensors.torch import load_file, save_file
from torch import nn
from torchtune.training.lr_schedulers import get_cosine_schedule_with_warmup

from kyvo.common.errors import InputError
from kyvo.training import (
    optimizer_state,
    random_state,
    restore_optimizer,
    restore_random_state,
    restore_scheduler,
)

OPTIMIZERS = {
    "AdamW": lambda groups: torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1),
    "fused AdamW": lambda groups: torch.optim.AdamW(groups, lr=1e-2, fused=True),
    "foreach AdamW": lambda groups: torch.optim.AdamW(groups, lr=1e-2, foreach=True),
    "SGD": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9),
    "AdamW8bit": lambda groups: torchao.optim.AdamW8bit(groups, lr=1e-2),
    "AdamW8bit in bfloat16": lambda groups: torchao.optim.AdamW8bit(
        groups, lr=1e-2, bf16_stochastic_round=True
    ),
}


@pytest.fixture(autouse=True)
def without_compiling():
    """torchao compiles its update, which takes a minute on a CPU and changes no value here."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


class Run:
    """Two parameters under one optimizer and schedule; the large one is kept in 8 bits."""

    def __init__(self, kind):
        torch.manual_seed(0)
        dtype = torch.bfloat16 if "bfloat16" in kind else torch.float32
        shapes = {"matrix": (64, 128), "vector": (16,)}
        self.parameters = {n: nn.Parameter(torch.randn(s).to(dtype)) for n, s in shapes.items()}
        matrix, vector = self.parameters.values()
        groups = [{"params": [matrix]}, {"params": [vector], "weight_decay": 0.0}]
        self.optimizer = OPTIMIZERS[kind](groups)
        self.scheduler = get_cosine_schedule_with_warmup(self.optimizer, 2, 12)

    def advance(self, first, last):
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            for parameter in self.parameters.values():
                gradient = torch.randn(parameter.shape, generator=generator)
                parameter.grad = gradient.to(parameter.dtype)
            self.optimizer.step()
            self.scheduler.step()

    def save(self, path):
        tensors, values = optimizer_state(self.optimizer, self.parameters)
        save_file({n: t.clone() for n, t in (tensors | random_state()).items()}, path)
        return orjson.dumps(values), copy.deepcopy(dict(self.parameters))

    def restore(self, path, saved, step):
        values, parameters = saved
        tensors = load_file(path)
        for name, parameter in self.parameters.items():
            parameter.data = parameters[name].detach().clone()
        restore_optimizer(self.optimizer, self.parameters, tensors, orjson.loads(values))
        restore_scheduler(self.scheduler, step)
        restore_random_state(tensors)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("stop", [1, 5])
def test_an_interrupted_run_equals_an_uninterrupted_one(tmp_path, kind, stop):
    straight = Run(kind)
    straight.advance(0, stop)
    saved = straight.save(tmp_path / "state.safetensors")
    straight.advance(stop, 9)
    resumed = Run(kind)
    torch.rand(100)
    resumed.restore(tmp_path / "state.safetensors", saved, stop)
    resumed.advance(stop, 9)
    for name, parameter in straight.parameters.items():
        assert torch.equal(parameter, resumed.parameters[name]), name
    (straight_values, _), (resumed_values, _) = (
        run.save(tmp_path / name) for run, name in ((straight, "straight"), (resumed, "resumed"))
    )
    assert straight_values == resumed_values
    assert (tmp_path / "straight").read_bytes() == (tmp_path / "resumed").read_bytes()
    cosine = 1e-2 * (1 + math.cos(math.pi * (9 - 2) / (12 - 2))) / 2
    assert float(resumed.optimizer.param_groups[0]["lr"]) == pytest.approx(cosine)


def test_eight_bit_state_is_stored_in_eight_bits():
    run = Run("AdamW8bit")
    run.advance(0, 1)
    tensors, _ = optimizer_state(run.optimizer, run.parameters)
    assert tensors["matrix|exp_avg|codes"].dtype == torch.uint8
    assert tensors["vector|exp_avg"].dtype == torch.float32


def test_settings_are_restored_with_their_types():
    run, other = Run("AdamW"), Run("AdamW")
    run.optimizer.param_groups[1]["lr"] = 0.25
    tensors, values = optimizer_state(run.optimizer, run.parameters)
    restore_optimizer(
        other.optimizer, other.parameters, tensors, orjson.loads(orjson.dumps(values))
    )
    for group, expected in zip(
        other.optimizer.param_groups, run.optimizer.param_groups, strict=True
    ):
        for key in expected.keys() - {"params"}:
            assert group[key] == expected[key]
            assert type(group[key]) is type(expected[key])


def test_random_numbers_go_on_where_they_were():
    state = random_state()
    expected = torch.rand(5)
    torch.rand(3)
    restore_random_state(state)
    assert torch.equal(torch.rand(5), expected)


@pytest.mark.parametrize(
    ("tensors", "values", "complaint"),
    [
        ({"other|step": torch.zeros(())}, {}, "unknown parameter other"),
        ({}, {"matrix|a": {"class": "os.system", "parts": [], "context": []}}, "class os.system"),
    ],
)
def test_state_of_something_else_is_refused(tensors, values, complaint):
    run = Run("AdamW")
    groups = optimizer_state(run.optimizer, run.parameters)[1]["groups"]
    with pytest.raises(InputError, match=complaint):
        restore_optimizer(
            run.optimizer, run.parameters, tensors, {"state": values, "groups": groups}
        )

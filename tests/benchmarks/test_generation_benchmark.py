"""The generation benchmark: its samples have the lengths it names, and its floor is arithmetic."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
generation = importlib.import_module("generation")
CPU = torch.device("cpu")


@pytest.fixture
def tiny(monkeypatch):
    """A model and outputs that take no time."""
    workloads = {
        "recognition": generation.Workload("I-3", (9, 9), 30),
        "rendering": generation.Workload("3-I", (5, 11), 12),
    }
    monkeypatch.setattr(generation, "WORKLOADS", workloads)
    sizes = {"num_layers": 1, "num_heads": 2, "num_kv_heads": 2, "embed_dim": 16}
    model = generation.partial(generation.kyvo_model, **sizes, intermediate_dim=16)
    monkeypatch.setitem(generation.MODELS, "mini", model)
    return generation.Bench("mini", CPU, 3)


def case(workload, **changes):
    return replace(generation.CPU_BASE, workload=workload, batch_size=2, **changes)


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize(("workload", "new"), [("recognition", 30), ("rendering", 12)])
def test_every_sample_has_its_new_tokens(tiny, workload, new, constrained):
    samples, tokens = tiny.rows(case(workload, constrained=constrained))
    assert (samples.unit, tokens.unit) == ("samples/s", "tokens/s")
    assert tokens.value == pytest.approx(new * samples.value)
    for row in (samples, tokens):
        assert row.reference is not None
        assert row.value / row.reference == pytest.approx(samples.value / samples.reference)
    assert 0 < samples.value < samples.ceiling


def test_a_scene_never_ends_before_its_tokens_are_used_up():
    automaton = generation.endless(generation.WORKLOADS["recognition"])
    vocabulary = generation.VOCABULARY
    for name in ("[SCENE-END]", "[IMAGE-START]"):
        assert vocabulary.marker_id(name) not in automaton.possible_ids
    assert vocabulary.marker_id("[OBJECT-START]") in automaton.possible_ids
    image = generation.endless(generation.WORKLOADS["rendering"]).possible_ids
    assert len(image) == vocabulary.num_image_codes + 3


def test_the_floor_is_bytes_or_matmuls_and_the_prompts(tiny):
    """One layer of width 16, worked out by hand."""
    body = 4 * 16 * 16 + 3 * 16 * 16 + 2 * 16
    head = 16 * generation.VOCABULARY.size
    prompts = [np.zeros(10), np.zeros(20)]
    tiny.ceilings = {"copy_bytes_per_s": 1.0, "matmul_flops_per_s": float("inf")}
    floor = tiny._floor_seconds(case("recognition", constrained=False), prompts, 30)
    cache = 2 * 2 * 8 * 4 * (10 + 15 + 20 + 15)
    assert floor == pytest.approx(30 * ((body + head) * 4 + cache))
    tiny.ceilings = {"copy_bytes_per_s": float("inf"), "matmul_flops_per_s": 1.0}
    floor = tiny._floor_seconds(case("recognition", constrained=False), prompts, 30)
    assert floor == pytest.approx(2 * (body + head) * 30 * 2 + 2 * body * 30)


def test_main_writes_its_rows(tiny, tmp_path):
    output = tmp_path / "generation.json"
    argv = ["--device", "cpu", "--model", "mini", "--samples", "3", "--output", str(output)]
    generation.main([*argv, "--only", "recognition", "all"])
    record = json.loads(output.read_text())
    assert [row["unit"] for row in record["rows"]] == ["samples/s", "tokens/s"]
    assert record["script"] == "benchmarks/generation.py"

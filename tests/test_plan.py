"""The validate command: any kind of config, all problems of all of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from kyvo_stand_ins import (
    MINI_CODEBOOK,
    load_script,
    refusal_of,
    tiny_model,
    tiny_model_yaml,
    write_data,
)

from kyvo.models import released_state_dict

COMMAND = load_script("validate")
MODEL = (
    """
data_root: {root}
vocabulary: mini
scene_schema: clevr
codebook: {root}/codebook.npy
"""
    + tiny_model_yaml()
    + """
dataset:
  _component_: kyvo.data.dataset.kyvo_dataset
  task: I-3
  image_source: {root}/image_source.json
  three_d_source: {root}/three_d_source.json
  codes_per_image: 16
device: cpu
precision: fp32
"""
)
TRAIN = "base: model.yaml\noutput_dir: {root}/run\noptimizer: {{_component_: torch.optim.AdamW}}\n"
EVAL = """
base: model.yaml
output_dir: {root}/results
run_identifier: R
three_d_json_folder: {root}/results/three_d
image_embeddings_folder: {root}/results/images
checkpoint: {root}/meta_model_9.pt
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validate")
    write_data(folder)
    np.save(folder / "codebook.npy", MINI_CODEBOOK)
    torch.save(released_state_dict(tiny_model()), folder / "meta_model_9.pt")
    for name, text in (("model", MODEL), ("train", TRAIN), ("eval", EVAL)):
        (folder / f"{name}.yaml").write_text(text.format(root=folder))
    return folder


def test_good_configs_of_every_kind(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(root.rglob("*"))
    COMMAND.main([f"{root}/train.yaml", f"{root}/eval.yaml", "seed=3"])
    printed = capsys.readouterr().out
    assert f"{root}/train.yaml: good\n12 samples of " in printed
    assert f"{root}/eval.yaml: good\nR: 12 of 12 samples" in printed
    assert {p for p in root.rglob("*") if ".kyvo-cache" not in p.parts} <= set(before)


def test_problems_of_all_configs_are_reported(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "vqgan.yaml").write_text("output: x\nname: v\nmodel: {}\nquantiser: 1\n")
    arguments = [f"{root}/{name}.yaml" for name in ("train", "eval", "vqgan", "none")]
    (root / "typo.yaml").write_text(f"base: train.yaml\nbatch_sise: 4\ndata_root: {root}\n")
    arguments += [f"{root}/typo.yaml", "codebook=none.npy"]
    message = refusal_of(COMMAND.main, arguments, monkeypatch, capsys)
    assert f"{root}/train.yaml: codebook: none.npy: no such file" in message
    assert f"{root}/eval.yaml: codebook: none.npy: no such file" in message
    assert "quantiser: unknown key" in message
    assert f"config: {root}/none.yaml: no such file" in message
    assert "batch_sise: unknown key; did you mean 'batch_size'?" in message


def test_weights_of_another_shape_are_found_without_reading_them(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"{root}/eval.yaml", "model.num_layers=3", "first_sample=99"]
    message = refusal_of(COMMAND.main, arguments, monkeypatch, capsys)
    assert message.startswith("error: 2 problems:")
    assert "missing: layers.2." in message
    assert "first_sample 99" in message

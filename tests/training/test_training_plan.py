"""The plan of a training run: every problem at once, and values that are true."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from kyvo_stand_ins import MINI_CODEBOOK, TINY_SIZES, tiny_model, write_data, write_json
from safetensors.torch import save_file

import kyvo.common.files
from kyvo.common.config import Component
from kyvo.common.errors import InputError
from kyvo.data.batches import BatchSettings
from kyvo.images.codebook import codebook_hash, codebook_record, record_codebook
from kyvo.models import MODEL, num_parameters, released_state_dict, save_checkpoint
from kyvo.models.description import description_files
from kyvo.training import LossConfig, TrainingConfig, build_model, describe_run, plan_training
from kyvo.training.memory import estimate_memory
from kyvo.training.setup import check_lengths, check_width

COMPILED = {"precision": "bf16_mixed", "compile": True}
SIZES = {**TINY_SIZES, "max_seq_len": 128}


@pytest.fixture
def config(tmp_path):
    paths = write_data(tmp_path / "data")
    np.save(tmp_path / "codebook.npy", MINI_CODEBOOK)
    data = {
        "task": "I-3",
        "image_source": paths["image_source"],
        "three_d_source": paths["three_d_source"],
        "codes_per_image": 16,
    }
    return TrainingConfig(
        data_root=tmp_path,
        output_dir=tmp_path / "run",
        vocabulary="mini",
        scene_schema="clevr",
        codebook=tmp_path / "codebook.npy",
        model=Component("kyvo.models.kyvo_model", SIZES),
        dataset=Component("kyvo.data.dataset.kyvo_dataset", data),
        optimizer=Component("torch.optim.AdamW", {"lr": 1e-3}),
        precision="fp32",
        batch_size=5,
        epochs=2,
    )


def changed(component, **values):
    return Component(component.path, {**component.arguments, **values})


def refusal(config):
    with pytest.raises(InputError) as caught:
        plan_training(config)
    return str(caught.value)


def test_a_good_config_becomes_a_plan(config):
    plan = plan_training(config)
    model = tiny_model(max_seq_len=128)
    assert (plan.steps_per_epoch, plan.total_steps) == (3, 6)
    assert plan.num_parameters == num_parameters(model)
    assert plan.num_trained == num_parameters(model) - 512 * 32 - 121 * 32 - 512 * 16
    weights = 4 * plan.num_parameters
    assert plan.memory.weights == weights
    assert plan.memory.optimizer == 2 * plan.memory.gradients == 8 * plan.num_trained
    # Two kept checkpoints, the one being written, and the exported weights.
    assert plan.disk_bytes == 3 * (weights + plan.memory.optimizer) + weights
    assert plan.scenes.num_complete == plan.scenes.num_objects > 12
    summary = plan.summary()
    assert "12 samples of " in summary
    assert "6 steps on cpu in fp32, 3 an epoch" in summary


def test_every_problem_is_reported_at_once(config, tmp_path):
    broken = dataclasses.replace(
        config,
        codebook=tmp_path / "none.npy",
        llama_weights=tmp_path / "llama",
        model=changed(config.model, num_heads=5),
        dataset=changed(config.dataset, image_source="none.json", three_d_source="neither.json"),
        optimizer=Component("torch.optim.AdamW", {"lr": -1.0}),
    )
    message = refusal(broken)
    assert message.startswith("6 problems:")
    for part in (
        "codebook: ",
        "image_source: none.json",
        "three_d_source: neither.json",
        "embed_dim 32 must be a multiple of num_heads 5",
        "torch.optim.AdamW: Invalid learning rate: -1.0",
        f"Llama weights: {tmp_path}/llama: found neither",
    ):
        assert part in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"codebook_dim": 8}, "shape (512, 16), expected (512, 8)"),
        ({"max_seq_len": 40}, "max_seq_len is 40"),
    ],
)
def test_data_that_does_not_fit_the_model_is_reported(config, changes, complaint):
    assert complaint in refusal(dataclasses.replace(config, model=changed(config.model, **changes)))


def test_weights_are_compared_by_name_and_shape(config, tmp_path):
    state = released_state_dict(tiny_model(max_seq_len=128))
    torch.save(state, tmp_path / "meta_model_9.pt")
    good = dataclasses.replace(config, checkpoint=tmp_path)
    plan_training(good)
    model = build_model(good, torch.device("cpu"))
    assert torch.equal(model.output.weight, state["output.weight"])
    wider = dataclasses.replace(good, model=changed(config.model, intermediate_dim=96))
    assert "wrong shape: layers.0.mlp.w1.weight (64, 32), not (96, 32)" in refusal(wider)


def test_a_trained_models_own_codebook_is_kept(config, tmp_path):
    for name, save in (("a.pt", torch.save), ("a.safetensors", save_file)):
        save(released_state_dict(tiny_model(max_seq_len=128)), tmp_path / name)
        np.save(tmp_path / "other.npy", MINI_CODEBOOK[::-1].copy())
        start = dataclasses.replace(config, checkpoint=tmp_path / name)
        plan_training(start)
        other = dataclasses.replace(start, codebook=tmp_path / "other.npy")
        assert "is not the one that" in refusal(other)


def test_image_codes_of_another_codebook_are_refused(config, tmp_path):
    other, own = MINI_CODEBOOK[::-1], codebook_hash(MINI_CODEBOOK)
    images = Path(config.dataset.arguments["image_source"])
    record_codebook(images, MINI_CODEBOOK)
    plan_training(config)
    record_codebook(images, other)
    message = f"codes of the codebook with SHA-256 {codebook_hash(other)}, but codebook"
    refused = refusal(config)
    assert f"image_source: {images}: {message} {config.codebook} has {own}" in refused
    held_out = write_data(tmp_path / "held_out")
    paths = {name: held_out[name] for name in ("image_source", "three_d_source")}
    record_codebook(Path(held_out["image_source"]), other)
    codebook_record(images).unlink()
    validation = changed(config.dataset, **paths)
    assert message in refusal(dataclasses.replace(config, validation_dataset=validation))


def test_a_start_from_another_codebook_is_refused_with_both_values(config, tmp_path):
    description = describe_run(config, plan_training(config).dataset)
    weights = released_state_dict(tiny_model(max_seq_len=128))
    files = {MODEL: weights, **description_files(description)}
    start = save_checkpoint(tmp_path / "start", 1, files, keep=1).folder
    good = dataclasses.replace(config, checkpoint=start)
    plan_training(good)
    # So little that the codebook in the weights cannot tell: they may have been rounded.
    other = MINI_CODEBOOK * np.float32(1 + 2**-10)
    np.save(tmp_path / "other.npy", other)
    message = refusal(dataclasses.replace(good, codebook=tmp_path / "other.npy"))
    assert f"other.npy has SHA-256 {codebook_hash(other)}, but" in message
    assert f"was trained with {codebook_hash(MINI_CODEBOOK)}" in message


def test_scenes_of_another_schema_are_reported(config, tmp_path):
    message = refusal(dataclasses.replace(config, scene_schema="objaworld"))
    assert "objects only 0 can be read under schema 'objaworld'" in message


def test_some_unreadable_scenes_are_counted(config, tmp_path):
    path = config.dataset.arguments["three_d_source"]
    scenes = kyvo.common.files.read_json(path, "scenes")
    first = next(iter(scenes.values()))["token_ids"]
    first[2], first[3] = first[3], first[2]
    write_json(tmp_path / "scenes.json", scenes)
    data = changed(config.dataset, three_d_source=str(tmp_path / "scenes.json"))
    plan = plan_training(dataclasses.replace(config, dataset=data))
    assert plan.scenes.num_complete == plan.scenes.num_objects - 1
    assert "some scenes of the data cannot be read back: 1 x" in plan.summary()


def test_a_full_disk_is_reported_and_a_resumed_runs_files_count(config, monkeypatch):
    needed = plan_training(config).disk_bytes
    free = type("Usage", (), {"free": needed - 1})
    monkeypatch.setattr(kyvo.common.files.shutil, "disk_usage", lambda _: free)
    assert "disk: " in refusal(config)
    folder = config.output_dir / "step_00000001"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x")
    plan_training(config)
    shutil.rmtree(folder)
    (config.output_dir / "meta_model_0.pt").write_bytes(b"x")
    plan_training(config)


def test_a_gpu_that_is_too_small_is_reported(config, monkeypatch):
    memory = plan_training(config).memory
    gpu = torch.device("cuda")
    monkeypatch.setattr("kyvo.training.plan.resolve_device", lambda _: gpu)
    # The optimizer is tried on the device, which this machine may not have.
    monkeypatch.setattr("kyvo.training.plan._check_optimizer", lambda *_: None)
    monkeypatch.setattr("kyvo.training.plan.length_multiple", lambda _: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (memory.fixed - 1, 0))
    assert "GPU memory: the run needs at least" in refusal(config)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (memory.fixed + 1, 0))
    assert "may not fit the GPU" in plan_training(config).summary()


def test_float8_needs_a_gpu_that_has_it_and_compiled_layers(config, monkeypatch):
    with pytest.raises(ValueError, match="float8: needs compile: true"):
        dataclasses.replace(config, precision="bf16_mixed", float8=True)
    with pytest.raises(ValueError, match="precision bf16_mixed or bf16"):
        dataclasses.replace(config, compile=True, float8=True)
    eager = dataclasses.replace(config, optimizer=Component("torch.optim.AdamW", {"lr": -1.0}))
    message = refusal(dataclasses.replace(eager, float8=True, **COMPILED))
    assert message.startswith("2 problems:")
    assert "8.9 or more (Ada, Hopper), found no GPU" in message

    gpu = torch.device("cuda")
    float8 = dataclasses.replace(config, float8=True, **COMPILED)
    monkeypatch.setattr("kyvo.training.plan.resolve_device", lambda _: gpu)
    monkeypatch.setattr("kyvo.training.plan._check_optimizer", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**40, 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert "found compute capability 8.0" in refusal(float8)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    plan_training(float8)


def test_padded_lengths_must_fit_the_model(config):
    dataset = plan_training(config).dataset
    longest = int(dataset.lengths.max()) - 1
    check_lengths(dataset, longest)
    padded = -(-longest // 24) * 24
    assert padded > longest
    check_lengths(dataset, padded, multiple=24)
    with pytest.raises(InputError, match=f"{longest} input tokens, {padded} with padding, but"):
        check_lengths(dataset, padded - 1, multiple=24)
    (batch, *_) = dataset.batches(0, 0, BatchSettings(2))
    width = batch.tokens_BL.shape[1]
    check_width(batch, width)
    with pytest.raises(InputError, match=f"has {width} input tokens"):
        check_width(batch, width - 1)


def test_logits_count_as_many_as_are_held_at_a_time(config):
    model = tiny_model()
    for choice, one in (({}, 4), ({"precision": "bf16_mixed"}, 6), (COMPILED, 2)):
        for chunk, held in ((0, 50), (8, 8), (99, 50)):
            chunked = dataclasses.replace(config, loss=LossConfig(head_chunk=chunk), **choice)
            with_labels = estimate_memory(model, chunked, 7, 50).activations
            without = estimate_memory(model, chunked, 7, 0).activations
            assert with_labels - without == held * one * 1159


def test_activations_are_what_autograd_keeps(config):
    """Float32, no head: the estimate against a count of the tensors that torch really saves."""
    model = tiny_model(max_seq_len=128, train_text_embedding=True)
    tokens_BL = torch.arange(4 * 60).reshape(4, 60)
    saved: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_ND = model.hidden_states(tokens_BL, torch.arange(tokens_BL.numel()))
    counted = sum(size for pointer, size in saved.items() if pointer not in own)
    del hidden_ND
    estimate = estimate_memory(model, config, tokens_BL.numel(), 0).activations
    assert counted / 1.6 < estimate < counted * 1.6


LOGGERS = "torchtune.training.metric_logging."


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("WandBLogger", {}, r"needs the package 'wandb'.* pip install \"kyvo\[wandb\]\""),
        ("TensorBoardLogger", {"log_dir": "x"}, r"'tensorboard'.* \"kyvo\[tensorboard\]\""),
        ("CometLogger", {}, r"needs the package 'comet_ml'.* pip install comet_ml"),
        ("DiskLogger", {}, "DiskLogger: missing a required argument: 'log_dir'. Add it"),
    ],
)
def test_a_logger_that_cannot_be_built_is_reported_before_it_is(
    config, name, arguments, message, monkeypatch
):
    monkeypatch.setattr("kyvo.training.setup.find_spec", lambda _: None)
    logger = Component(LOGGERS + name, arguments)
    assert re.search(message, refusal(dataclasses.replace(config, metric_logger=logger)))
    plan_training(dataclasses.replace(config, metric_logger=Component(LOGGERS + "StdoutLogger")))


@pytest.mark.parametrize("steps", [-1, 0.5, float("inf"), "10", None])
def test_a_warm_up_is_a_number_of_steps(config, steps):
    name = "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup"
    schedule = Component(name, {"num_warmup_steps": steps})
    with pytest.raises(ValueError, match=r"num_warmup_steps: expected a whole number of 0 or more"):
        dataclasses.replace(config, lr_scheduler=schedule)


def test_a_run_in_a_folder_of_its_images_is_refused(config, tmp_path):
    (tmp_path / "images").mkdir()
    data = changed(config.dataset, image_folder=str(tmp_path / "images"))
    bad = dataclasses.replace(config, dataset=data, output_dir=tmp_path / "images" / "run")
    assert f"run is in {tmp_path / 'images'}, which is read" in refusal(bad)

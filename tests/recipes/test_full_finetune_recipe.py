"""The training recipe from its command line: learning, exact resume, and refusals."""

import dataclasses
import json
import os
import shutil
import signal

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
    write_json,
)

from kyvo.common.config import load_config
from kyvo.models import latest_checkpoint, load_released
from kyvo.training import TrainingConfig

RECIPE = load_script("full_finetune_single_device_3d")
CONFIG = (
    """
data_root: {root}
output_dir: {root}/run
vocabulary: mini
codebook: ${{data_root}}/codebook.npy
"""
    + tiny_model_yaml(max_seq_len=128)
    + """
dataset: &data
  _component_: kyvo.data.dataset.kyvo_dataset
  task: UNIFIED
  unified_tasks: [I-3, 3-I]
  image_source: ${{data_root}}/image_source.json
  three_d_source: ${{data_root}}/three_d_source.json
  codes_per_image: 16
validation_dataset:
  <<: *data
  max_samples: 4
optimizer:
  _component_: torch.optim.AdamW
  lr: 3.0e-3
lr_scheduler:
  _component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup
  num_warmup_steps: 2
loss:
  weight_first_positions: 5
  weight: 10.0
export_released: every_epoch
precision: fp32
device: cpu
batch_size: 2
gradient_accumulation_steps: 2
epochs: 3
log_every_n_steps: 3
validate_every_n_steps: 4
save_every_n_steps: 2
"""
)
# 12 samples, 2 a batch, 2 batches a step: 3 steps in each of 3 epochs.
NUM_STEPS = 9
TIMES = (
    "tokens_per_second",
    "samples_per_second",
    "seconds_left",
    "waiting_share",
    "peak_gpu_gib",
)
EIGHT_BIT = [
    "precision=bf16",
    "optimizer._component_=torchao.optim.AdamW8bit",
    "optimizer.bf16_stochastic_round=true",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    write_data(folder)
    np.save(folder / "codebook.npy", MINI_CODEBOOK)
    (folder / "config.yaml").write_text(CONFIG.format(root=folder))
    return folder


@pytest.fixture(autouse=True)
def without_compiling(request):
    """torchao compiles its update, which takes a minute on a CPU and changes no value here."""
    if request.node.get_closest_marker("gpu") is None:
        torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


def train(root, output_dir, *overrides):
    RECIPE.main(["--config", str(root / "config.yaml"), f"output_dir={output_dir}", *overrides])
    return output_dir


@pytest.fixture(scope="module")
def straight(root):
    """The folder of an uninterrupted run."""
    return train(root, root / "straight")


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_outcome(found, expected):
    """Weights, optimizer, random states, step, sums and metrics of two runs are bit-equal."""
    name = f"step_{NUM_STEPS:08d}"
    for file in ("model.safetensors", "optimizer.safetensors", "state.json"):
        same = (found / name / file).read_bytes() == (expected / name / file).read_bytes()
        assert same, file
    lines = [
        [{k: v for k, v in line.items() if k not in TIMES} for line in metrics(folder)]
        for folder in (found, expected)
    ]
    assert lines[0] == lines[1]
    names = [sorted(p.name for p in folder.glob("[a-z]*")) for folder in (found, expected)]
    assert names[0] == names[1]
    for path in expected.glob("meta_model_*.pt"):
        exported = [torch.load(f / path.name, weights_only=True) for f in (found, expected)]
        torch.testing.assert_close(*exported, rtol=0, atol=0)


def test_metrics_hold_loss_accuracy_speed_and_validation(straight):
    lines = metrics(straight)
    assert [line["step"] for line in lines if "loss" in line] == [3, 6, 9]
    assert [line["step"] for line in lines if "val_loss" in line] == [0, 4, 8, 9]
    for line in lines:
        if "loss" in line:
            assert line.keys() | {"peak_gpu_gib"} == {
                "step",
                "loss",
                "accuracy",
                "learning_rate",
                "gradient_norm",
                *TIMES,
            }
            assert line["tokens_per_second"] > line["samples_per_second"] > 0
            assert 0 <= line["accuracy"] <= 1
    # Cosine after two steps of warm-up; logged as it is after the step.
    rates = [line["learning_rate"] for line in lines if "loss" in line]
    expected = [3e-3 * (1 + np.cos(np.pi * (step - 2) / 7)) / 2 for step in (3, 6, 9)]
    assert rates == pytest.approx(expected, abs=1e-9)
    # An untrained model is as good as chance among 1,159 ids.
    assert lines[0]["val_loss"] == pytest.approx(np.log(1159), rel=0.03)


def test_the_loss_falls(root, tmp_path):
    quick = ("epochs=12", "optimizer.lr=1e-2", "export_released=never", "save_every_n_steps=100")
    lines = metrics(train(root, tmp_path / "run", *quick))
    for name in ("loss", "val_loss"):
        values = [line[name] for line in lines if name in line]
        assert values[-1] < 0.5 * values[0]


def test_every_epoch_exports_the_released_layout(straight):
    names = sorted(path.name for path in straight.glob("meta_model_*.pt"))
    assert names == ["meta_model_0.pt", "meta_model_1.pt", "meta_model_2.pt"]
    model = tiny_model(seed=5)
    load_released(model, straight / "meta_model_2.pt")
    trained = latest_checkpoint(straight)[0].weights()
    assert torch.equal(model.output.weight, trained["output.weight"])
    assert torch.equal(model.norm.scale, trained["norm.weight"])


def stop_after(monkeypatch, step):
    """Send SIGTERM once ``step`` steps are done."""
    after_step = RECIPE.FullFinetuneRecipeSingleDevice3D._after_step

    def then_signal(self, progress):
        after_step(self, progress)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RECIPE.FullFinetuneRecipeSingleDevice3D, "_after_step", then_signal)


class CrashError(Exception):
    """What an interrupted run dies of."""


def crash_in(monkeypatch, method, step, call=1):
    """Die at the ``call``-th call of ``method`` while ``step`` steps are done."""
    original = getattr(RECIPE.FullFinetuneRecipeSingleDevice3D, method)
    calls = []

    def mortal(self, *arguments):
        calls.extend([1] * (self.step == step and torch.is_grad_enabled()))
        if self.step == step and len(calls) == call:
            raise CrashError
        return original(self, *arguments)

    monkeypatch.setattr(RECIPE.FullFinetuneRecipeSingleDevice3D, method, mortal)


@pytest.mark.parametrize("step", [1, 3, 5, NUM_STEPS])
def test_a_run_stopped_by_a_signal_goes_on_exactly(root, tmp_path, monkeypatch, straight, step):
    """After the first step, at the end of an epoch, inside one, after the last step."""
    with monkeypatch.context() as patches:
        stop_after(patches, step)
        with pytest.raises(SystemExit) as stopped:
            train(root, tmp_path / "run")
    assert stopped.value.code == 143
    assert latest_checkpoint(tmp_path / "run")[0].step == step
    assert_same_outcome(train(root, tmp_path / "run"), straight)


@pytest.mark.parametrize(
    ("method", "step", "call"),
    [
        ("_loss", 0, 2),  # before there is any checkpoint
        ("_loss", 7, 2),  # inside an accumulation
        ("_export", 3, 1),
        ("_save", 3, 1),  # after the export of an epoch, before its checkpoint
        ("_save", 5, 1),
        ("_save", NUM_STEPS, 1),
    ],
)
def test_a_crashed_run_goes_on_exactly(root, tmp_path, monkeypatch, straight, method, step, call):
    with monkeypatch.context() as patches:
        if (method, step) == ("_save", 5):
            stop_after(patches, 5)
        crash_in(patches, method, step, call)
        with pytest.raises(CrashError):
            train(root, tmp_path / "run")
    assert_same_outcome(train(root, tmp_path / "run"), straight)


def test_eight_bit_training_with_stochastic_rounding_goes_on_exactly(root, tmp_path, monkeypatch):
    expected = train(root, tmp_path / "straight", *EIGHT_BIT)
    with monkeypatch.context() as patches:
        stop_after(patches, 4)
        with pytest.raises(SystemExit):
            train(root, tmp_path / "run", *EIGHT_BIT)
    assert_same_outcome(train(root, tmp_path / "run", *EIGHT_BIT), expected)


def test_loader_workers_change_nothing(root, tmp_path, straight):
    assert_same_outcome(train(root, tmp_path / "run", "num_workers=1"), straight)


def test_a_finished_run_has_nothing_left_to_do(root, tmp_path, straight):
    before = {p: p.stat().st_mtime_ns for p in straight.rglob("*.safetensors")}
    train(root, straight)
    assert {p: p.stat().st_mtime_ns for p in straight.rglob("*.safetensors")} == before


def test_damage_is_reported_and_the_run_goes_on_from_the_checkpoint_before(
    root, tmp_path, straight, monkeypatch, capsys
):
    with monkeypatch.context() as patches:
        stop_after(patches, 5)
        with pytest.raises(SystemExit):
            train(root, tmp_path / "run")
    damaged = tmp_path / "run" / "step_00000005" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    assert_same_outcome(train(root, tmp_path / "run"), straight)
    printed = capsys.readouterr().out
    assert "skipped a damaged checkpoint" in printed
    assert "step_00000004" in printed


def refusal(monkeypatch, capsys, root, *overrides):
    arguments = ["--config", str(root / "config.yaml"), *overrides]
    return refusal_of(RECIPE.main, arguments, monkeypatch, capsys)


def test_resume_with_another_batch_size_is_refused_with_both(root, straight, monkeypatch, capsys):
    before = metrics(straight)
    message = refusal(monkeypatch, capsys, root, f"output_dir={straight}", "batch_size=4", "seed=3")
    assert "batch_size: then '2', now '4'" in message
    assert "seed: then '0', now '3'" in message
    assert metrics(straight) == before


def test_resuming_goes_by_what_the_data_are_and_not_by_where(
    root, tmp_path, straight, monkeypatch, capsys
):
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(root, data, ignore=shutil.ignore_patterns("straight*", ".kyvo-cache"))
    shutil.copytree(straight, run)
    before = metrics(straight)
    train(root, run, f"data_root={data}")
    assert metrics(run) == before
    # As many scenes of the same keys, each another image's.
    path = data / "three_d_source.json"
    scenes = json.loads(path.read_text())
    write_json(path, dict(zip(scenes, [*scenes.values()][::-1], strict=True)))
    message = refusal(monkeypatch, capsys, root, f"output_dir={run}", f"data_root={data}")
    assert "dataset.three_d_source: then '" in message
    assert "dataset.image_source" not in message
    assert metrics(run) == before


def test_a_folder_with_checkpoints_is_not_started_over(root, straight, monkeypatch, capsys):
    message = refusal(monkeypatch, capsys, root, f"output_dir={straight}", "resume=never")
    assert "holds checkpoints" in message


def test_a_second_run_in_the_folder_is_refused(root, tmp_path, monkeypatch, capsys):
    with RECIPE.folder_lock(tmp_path / "run"):
        message = refusal(monkeypatch, capsys, root, f"output_dir={tmp_path}/run")
    assert "in use by another run" in message


@pytest.mark.parametrize("place", ["layers.0.mlp.w1.weight", "output.weight", "gradient"])
def test_nan_stops_before_the_update_and_names_the_samples(
    root, tmp_path, monkeypatch, capsys, place
):
    recipe = RECIPE.FullFinetuneRecipeSingleDevice3D
    update, loss = recipe._update, recipe._loss

    def poisoned(self, batches):
        if self.step == 5 and place != "gradient":
            self.parameters[place].data.view(-1)[0] = torch.nan
        update(self, batches)

    def poisoned_loss(self, source, batch):
        sums = loss(self, source, batch)
        return dataclasses.replace(sums, total=sums.total * torch.inf) if self.step == 5 else sums

    monkeypatch.setattr(recipe, "_update", poisoned)
    if place == "gradient":
        monkeypatch.setattr(recipe, "_loss", poisoned_loss)
    message = refusal(monkeypatch, capsys, root, f"output_dir={tmp_path}/run")
    assert "step 6: the gradient is not finite" in message
    assert message.count("sample_0") == 4
    found, skipped = latest_checkpoint(tmp_path / "run")
    assert (found.step, skipped) == (4, [])
    assert all(torch.isfinite(value).all() for value in found.weights().values())


def test_nan_is_reported_late_but_before_anything_is_written(root, tmp_path, monkeypatch, capsys):
    """The log line of step 6 is the first that reads the device; step 4 was the bad one."""
    recipe = RECIPE.FullFinetuneRecipeSingleDevice3D
    loss = recipe._loss

    def poisoned_loss(self, source, batch):
        sums = loss(self, source, batch)
        return dataclasses.replace(sums, total=sums.total * torch.inf) if self.step == 3 else sums

    monkeypatch.setattr(recipe, "_loss", poisoned_loss)
    seldom = ["validate_every_n_steps=null", "save_every_n_steps=100"]
    message = refusal(monkeypatch, capsys, root, f"output_dir={tmp_path}/run", *seldom)
    assert "step 4: the gradient is not finite" in message
    folder = tmp_path / "run"
    assert latest_checkpoint(folder)[0].step == 3
    assert [path.name for path in folder.glob("meta_model_*.pt")] == ["meta_model_0.pt"]
    assert [line["step"] for line in metrics(folder)] == [0, 3]


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def everything_in(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("resume", ["auto", "never"])
@pytest.mark.parametrize("file", ["optimizer.safetensors", "model.safetensors", "manifest.json"])
def test_a_run_of_which_no_checkpoint_can_be_read_is_left_as_it_is(
    root, tmp_path, straight, monkeypatch, capsys, file, resume
):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    folders = sorted(run.glob("step_*"))
    for folder in folders:
        flip_a_bit(folder / file)
    before = everything_in(run)
    message = refusal(monkeypatch, capsys, root, f"output_dir={run}", f"resume={resume}")
    assert everything_in(run) == before
    if resume == "never":
        assert "holds checkpoints" in message
        return
    for folder in folders:
        assert f"{folder}: " in message
    assert ("checkpoint=" in message) == (file == "optimizer.safetensors")
    assert (f"The weights in {folders[-1]} are whole" in message) == ("checkpoint=" in message)


def test_a_run_starts_from_whole_weights_beside_a_damaged_optimizer(root, tmp_path, straight):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    folder = latest_checkpoint(run)[0].folder
    flip_a_bit(folder / "optimizer.safetensors")
    train(root, tmp_path / "new", f"checkpoint={folder}", "max_steps=1")
    validated = [line["val_loss"] for line in metrics(tmp_path / "new") if "val_loss" in line]
    assert (
        validated[0] == [line["val_loss"] for line in metrics(straight) if "val_loss" in line][-1]
    )


# Its last row is a number in no sample: NaN there leaves loss and gradients as they are.
UNREAD = "tok_embeddings.numbers_embedding.weight"


@pytest.mark.parametrize("place", ["weight", "optimizer"])
@pytest.mark.parametrize("export", ["every_epoch", "never"])
def test_nan_that_no_gradient_shows_is_not_published(
    root, tmp_path, monkeypatch, capsys, place, export
):
    recipe = RECIPE.FullFinetuneRecipeSingleDevice3D
    update = recipe._update

    def poisoned(self, batches):
        update(self, batches)
        if self.step == 5:
            weight = self.parameters[UNREAD]
            target = self.optimizer.state[weight]["exp_avg"] if place == "optimizer" else weight
            target.data[-1, 0] = torch.nan

    monkeypatch.setattr(recipe, "_update", poisoned)
    folder = tmp_path / "run"
    arguments = (f"output_dir={folder}", f"export_released={export}")
    message = refusal(monkeypatch, capsys, root, *arguments)
    assert "NaN or infinite" in message
    assert UNREAD in message
    found, skipped = latest_checkpoint(folder)
    assert (found.step, skipped) == (4, [])
    exported = [path.name for path in folder.glob("meta_model_*.pt")]
    names = ["meta_model_0.pt", "meta_model_1.pt"][: 1 if place == "weight" else 2]
    assert sorted(exported) == (names if export == "every_epoch" else [])


def test_a_gradient_that_is_not_finite_changes_no_weight(root, tmp_path, monkeypatch, capsys):
    """Where the host may look at it for free, which is on the CPU."""
    recipe = RECIPE.FullFinetuneRecipeSingleDevice3D
    loss, seen = recipe._loss, []

    def poisoned_loss(self, source, batch):
        sums = loss(self, source, batch)
        if self.step == 4:
            seen.append((self, self.model.output.weight.detach().clone()))
            sums = dataclasses.replace(sums, total=sums.total * torch.inf)
        return sums

    monkeypatch.setattr(recipe, "_loss", poisoned_loss)
    seldom = ["validate_every_n_steps=null", "save_every_n_steps=100"]
    message = refusal(monkeypatch, capsys, root, f"output_dir={tmp_path}/run", *seldom)
    assert "step 5: the gradient is not finite" in message
    stopped, before = seen[-1]
    assert torch.equal(stopped.model.output.weight, before)


@pytest.fixture
def broken(tmp_path):
    """Files that are wrong, by what is wrong with them."""
    codebook = MINI_CODEBOOK.copy()
    codebook[3, 2] = np.nan
    np.save(tmp_path / "nan.npy", codebook)
    np.save(tmp_path / "small.npy", MINI_CODEBOOK[:100])
    np.save(tmp_path / "wide.npy", np.zeros((512, 32), np.float32))
    write_json(tmp_path / "beyond.json", {"sample_000.png": [512] * 16})
    write_json(tmp_path / "few.json", {"sample_000.png": [5] * 15})
    write_json(tmp_path / "other.json", {"another.png": [5] * 16})
    (tmp_path / "truncated.json").write_text('{"sample_000.png": [1, 2, 3')
    return tmp_path


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("batchsize=4", "did you mean 'batch_size'?"),
        ("model.num_layer=4", "did you mean 'num_layers'?"),
        ("batch_size=two", "batch_size: expected int, found 'two'"),
        ("batch_size=0", "batch_size: expected 1 or more, found 0"),
        ("optimizer._component_=os.system", "may not be used here"),
        ("vocabulary=maxi", "no vocabulary 'maxi'"),
        ("dataset.task=I-T", "no task 'I-T'"),
        ("model.max_seq_len=30", "max_seq_len is 30"),
        ("codebook={0}/nowhere.npy", "no such file"),
        ("codebook={0}/small.npy", "found float32 (100, 16), expected float32 (512, any width)"),
        ("codebook={0}/wide.npy", "shape (512, 32), expected (512, 16)"),
        ("codebook={0}/nan.npy", "NaN or infinity in row 3"),
        ("dataset.image_source={0}/nowhere.json", "no such file"),
        ("dataset.image_source={0}/truncated.json", "the file ends in the middle"),
        ("dataset.image_source={0}/beyond.json", "id 512 is outside 0..511"),
        ("dataset.image_source={0}/few.json", "has 15 codes, expected codes_per_image = 16"),
        ("dataset.image_source={0}/other.json", "no key is present in all"),
        ("validation_dataset.image_source={0}/few.json", "has 15 codes"),
        ("llama_weights={0}", "found neither consolidated.00.pth nor model.safetensors"),
        ("output_dir={0}/few.json", "cannot be written"),
    ],
)
def test_bad_input_is_reported_before_training(
    root, broken, monkeypatch, capsys, override, complaint
):
    output_dir = broken / "run"
    message = refusal(
        monkeypatch, capsys, root, f"output_dir={output_dir}", override.format(broken)
    )
    assert complaint in message
    assert [p.name for p in output_dir.glob("*") if p.name != ".lock"] == []


def test_a_missing_config_is_reported(monkeypatch, capsys, tmp_path):
    assert "config.yaml: no such file" in refusal(monkeypatch, capsys, tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "choice",
    [
        ["precision=bf16_mixed"],
        EIGHT_BIT,
        ["compile=true"],
        ["compile=true", "precision=bf16_mixed", "float8=true"],
        [*EIGHT_BIT, "compile=true", "float8=true", "loss.head_chunk=32"],
    ],
    ids=str,
)
def test_gpu_runs_learn_and_go_on_where_they_stopped(root, tmp_path, choice, capsys):
    overrides = ["device=cuda", "epochs=20", "log_every_n_steps=5", *choice]
    folder = train(root, tmp_path / "run", *overrides)
    losses = [line["loss"] for line in metrics(folder) if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    checkpoint, skipped = latest_checkpoint(folder)
    assert checkpoint.step == 60
    assert not skipped

    shutil.rmtree(checkpoint.folder)
    train(root, folder, *overrides)
    assert "resuming" in capsys.readouterr().out
    again, _ = latest_checkpoint(folder)
    assert again.step == 60
    for name, weight in again.weights().items():
        assert torch.isfinite(weight).all(), name


def drawn_tasks(root, tmp_path, *overrides):
    """Which task each sample draws in the first epoch."""
    config = load_config(
        TrainingConfig, root / "config.yaml", [f"output_dir={tmp_path}/run", *overrides]
    )
    recipe = RECIPE.FullFinetuneRecipeSingleDevice3D(config)
    recipe.setup()
    recipe.cleanup()
    return [recipe.dataset[i][1].tokens[1] for i in range(len(recipe.dataset))]


def test_the_seed_decides_which_task_a_sample_draws(root, tmp_path):
    draws = {seed: drawn_tasks(root, tmp_path, f"seed={seed}") for seed in range(4)}
    assert len({str(draw) for draw in draws.values()}) > 1
    assert drawn_tasks(root, tmp_path, "seed=3", "dataset.seed=0") == draws[0]


def test_metric_loggers_of_torchtune_are_written_to(root, tmp_path):
    logger = "torchtune.training.metric_logging.DiskLogger"
    choice = [f"metric_logger._component_={logger}", f"metric_logger.log_dir={tmp_path}/log"]
    train(root, tmp_path / "run", "max_steps=3", *choice)
    (log,) = (tmp_path / "log").iterdir()
    assert "Step 3" in log.read_text()
    assert "loss:" in log.read_text()

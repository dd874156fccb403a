"""Parts of a run: config values, folder lock, signals, metrics log, meter."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from kyvo.common.config import Component
from kyvo.common.devices import resolve_device
from kyvo.common.errors import InputError
from kyvo.common.files import folder_lock
from kyvo.data.batches import Batch
from kyvo.training import (
    LossConfig,
    LossSums,
    MetricsLog,
    PreemptionHandler,
    StepMeter,
    TrainingConfig,
    autocast,
    build_optimizer,
    check_fingerprint,
    log_line,
)

HOLD_LOCK = """
import fcntl, sys
stream = open(sys.argv[1], "w")
fcntl.flock(stream, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def config(tmp_path, **values):
    return TrainingConfig(
        data_root=tmp_path,
        output_dir=tmp_path,
        vocabulary="mini",
        codebook=tmp_path / "codebook.npy",
        model=Component("kyvo.models.kyvo_model"),
        dataset=Component("kyvo.data.dataset.kyvo_dataset"),
        optimizer=values.pop("optimizer", Component("torch.optim.AdamW", {"lr": 1e-3})),
        **values,
    )


@pytest.mark.parametrize(
    "name",
    [
        "batch_size",
        "gradient_accumulation_steps",
        "epochs",
        "max_steps",
        "log_every_n_steps",
        "validate_every_n_steps",
        "validation_batches",
        "save_every_n_steps",
        "keep_checkpoints",
        "clip_grad_norm",
    ],
)
def test_counts_of_zero_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}: expected .* found 0"):
        config(tmp_path, **{name: 0})


@pytest.mark.parametrize(
    "values", [{"weight": 0.0}, {"weight_first_positions": -1}, {"head_chunk": -1}], ids=str
)
def test_loss_settings_without_meaning_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        LossConfig(**values)


def test_plain_bfloat16_needs_stochastic_rounding(tmp_path):
    with pytest.raises(ValueError, match="bf16_stochastic_round"):
        config(tmp_path, precision="bf16")
    rounding = Component("torchao.optim.AdamW8bit", {"bf16_stochastic_round": True})
    assert config(tmp_path, precision="bf16", optimizer=rounding).precision == "bf16"


def test_weight_decay_spares_vectors(tmp_path):
    decaying = Component("torch.optim.AdamW", {"lr": 1e-3, "weight_decay": 0.5})
    parameters = {
        "matrix": torch.nn.Parameter(torch.ones(2, 2)),
        "scale": torch.nn.Parameter(torch.ones(2)),
    }
    optimizer = build_optimizer(config(tmp_path, optimizer=decaying), parameters)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay == {id(parameters["matrix"]): 0.5, id(parameters["scale"]): 0.0}


def test_a_folder_held_by_another_process_is_refused(tmp_path):
    with folder_lock(tmp_path / "run"):
        pass
    command = [sys.executable, "-c", HOLD_LOCK, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(InputError, match="in use by another run"),
            folder_lock(tmp_path / "run"),
        ):
            pytest.fail("the lock was given twice")
        holder.stdin.close()
    with folder_lock(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), folder_lock(tmp_path / "file" / "x"):
        pytest.fail("there is no such folder")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_acts(number):
    before = signal.getsignal(number)
    caught = []
    signal.signal(number, lambda *_: caught.append("second"))
    try:
        with PreemptionHandler() as stop:
            assert stop.received is None
            os.kill(os.getpid(), number)
            assert (stop.received, caught) == (number, [])
            os.kill(os.getpid(), number)
            assert caught == ["second"]
            with pytest.raises(SystemExit) as exit_status:
                stop.exit()
        assert exit_status.value.code == 128 + number
    finally:
        signal.signal(number, before)


def logged(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_log_forgets_what_a_resumed_run_writes_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, None, 0)
    for step in (0, 2, 4, 6):
        log.write(step, {"loss": step / 2})
    log.close()
    path.write_text(path.read_text() + '{"step": 8, "lo')
    log = MetricsLog(path, None, 4)
    log.write(6, {"loss": 9.0})
    log.close()
    assert [(line["step"], line["loss"]) for line in logged(path)] == [
        (0, 0),
        (2, 1),
        (4, 2),
        (6, 9),
    ]
    MetricsLog(path, None, 0).close()
    assert logged(path) == []


def test_the_configs_own_logger_hears_everything(tmp_path):
    class Recorder:
        def __init__(self):
            self.heard = []

        def log_dict(self, values, step):
            self.heard.append((step, values))

        def close(self):
            self.heard.append("closed")

    also = Recorder()
    log = MetricsLog(tmp_path / "metrics.jsonl", also, 0)
    log.write(3, {"loss": 1.5})
    log.close()
    assert also.heard == [(3, {"loss": 1.5}), "closed"]


def labelled_batch(num_labels):
    none = torch.zeros(0)
    return Batch((), none, none, torch.zeros(num_labels), *[none] * 3, num_tokens=10 * num_labels)


def test_the_meter_averages_over_labels_and_goes_on_after_a_resume():
    sums = [LossSums(torch.tensor(0.1 * i), torch.tensor(i)) for i in range(1, 5)]
    straight = StepMeter(total_steps=8, first_step=0)
    for i, item in enumerate(sums[:2]):
        straight.add(item, labelled_batch(4 + i), weight=2.0)
    resumed = StepMeter(8, 2, json.loads(json.dumps(straight.sums())))
    for meter in (straight, resumed):
        meter.gradient_norm = torch.tensor(3.0)
        for item in sums[2:]:
            meter.add(item, labelled_batch(10), weight=4.0)
    values = [meter.report(4, 1e-3) for meter in (straight, resumed)]
    assert values[0]["loss"] == pytest.approx(1.0 / 12)
    assert values[0]["accuracy"] == pytest.approx(10 / 29)
    for name in ("loss", "accuracy", "learning_rate", "gradient_norm"):
        assert values[0][name] == values[1][name]
    straight.add(sums[0], labelled_batch(1), weight=1.0)
    assert straight.loss_and_accuracy() == (pytest.approx(0.1), 1.0)
    assert "step 4/8  loss 0.0833  accuracy 0.345  lr 1.00e-03" in log_line(4, 8, values[0])


def test_a_change_of_setup_is_reported_with_both_values(tmp_path):
    saved = {"batch_size": "4", "seed": "0"}
    check_fingerprint(saved, dict(saved), tmp_path)
    with pytest.raises(InputError, match="batch_size: then '4', now '8'"):
        check_fingerprint(saved, {"batch_size": "8", "seed": "0"}, tmp_path)


def test_devices_and_precision(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="no CUDA device"):
        resolve_device("cuda")
    layer = torch.nn.Linear(3, 3)
    for precision, dtype in (("fp32", torch.float32), ("bf16_mixed", torch.bfloat16)):
        with autocast(precision, torch.device("cpu")):
            assert layer(torch.ones(1, 3)).dtype == dtype


@pytest.mark.parametrize(("is_fast", "expected"), [(True, "bf16_mixed"), (False, "fp32")])
def test_auto_means_bfloat16_where_the_device_multiplies_it(
    tmp_path, monkeypatch, is_fast, expected
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: is_fast)
    device = torch.device("cpu")
    assert config(tmp_path, precision="auto").on(device).precision == expected
    assert config(tmp_path, precision="fp32").on(device).precision == "fp32"

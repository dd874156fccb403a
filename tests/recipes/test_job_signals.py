"""Signals that a batch system sends to every process of a job at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kyvo_stand_ins import MINI_CODEBOOK, tiny_model_yaml, write_data

from kyvo.models import latest_checkpoint

ROOT = Path(__file__).parents[2]
CONFIG = """
data_root: {0}
output_dir: {0}/run
vocabulary: mini
codebook: {0}/codebook.npy
dataset:
  _component_: kyvo.data.dataset.kyvo_dataset
  task: I-3
  image_source: {0}/image_source.json
  three_d_source: {0}/three_d_source.json
  codes_per_image: 16
optimizer:
  _component_: torch.optim.AdamW
  lr: 1.0e-3
export_released: never
precision: fp32
device: cpu
batch_size: 2
epochs: 1000
num_workers: 2
log_every_n_steps: 1
keep_checkpoints: 1
""" + tiny_model_yaml(max_seq_len=128)


def signalled(command: list[str], is_under_way: str, log: Path) -> tuple[int, float, str]:
    """Exit status, seconds to it and output of a job that gets SIGTERM once it printed that."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (
        log.open("w") as stream,
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        ) as job,
    ):
        while is_under_way not in log.read_text():
            assert job.poll() is None, log.read_text()
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGTERM)
        begun = time.monotonic()
        try:
            job.wait(60)
        finally:
            seconds = time.monotonic() - begun
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
    return job.returncode, seconds, log.read_text()


@pytest.mark.slow
def test_training_with_workers_saves(tmp_path: Path) -> None:
    """Two steps an epoch: workers start all the time."""
    write_data(tmp_path, num_samples=4)
    np.save(tmp_path / "codebook.npy", MINI_CODEBOOK)
    (tmp_path / "config.yaml").write_text(CONFIG.format(tmp_path))
    script = "scripts/full_finetune_single_device_3d.py"
    command = [script, "--config", str(tmp_path / "config.yaml")]
    status, seconds, output = signalled(command, "step 3/", tmp_path / "log")
    assert "Traceback" not in output
    assert (status, seconds < 30) == (143, True)
    found, skipped = latest_checkpoint(tmp_path / "run")
    assert skipped == []
    assert f"stopped by SIGTERM after step {found.step}; saved." in output


@pytest.mark.slow
def test_a_world_keeps_what_is_whole(tmp_path: Path) -> None:
    world = tmp_path / "world"
    size = ["--image-size", "32", "--batch-size", "1", "--workers", "2"]
    command = ["scripts/make_world.py", "--output", str(world), "--splits", "train:4000", *size]
    status, seconds, output = signalled(command, "1/4000", tmp_path / "log")
    assert "Traceback" not in output
    assert output.endswith("terminated\n")
    assert (status, seconds < 30) == (143, True)
    files = [path for path in (world / "train").rglob("*") if path.is_file()]
    assert files
    assert {path.suffix for path in files} <= {".png", ".json"}
    assert all(path.name[0] != "." for path in files)

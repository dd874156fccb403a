"""The quick start's benchmark reads what a run has left."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest

from kyvo.common.errors import InputError
from kyvo.decoding.run import GenerationSummary
from kyvo.scenes import ParseReport

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
quickstart = importlib.import_module("quickstart")
RECORDED = ROOT / "tests/goldens/benchmarks/quickstart-run"


def test_a_recorded_run_gives_its_rows(tmp_path):
    output = tmp_path / "quickstart.json"
    quickstart.main(["--finished", str(RECORDED), "--output", str(output)])
    rows = json.loads(output.read_text())["rows"]
    values = {(row["what"], row["unit"]): row for row in rows}
    assert len(values) == len(rows)
    total = values["all stages", "s"]
    assert total["value"] == pytest.approx(587.7)
    assert total["reference"] == 240
    assert values["stage: language model", "s"]["value"] == 288.6
    assert values["image tokenizer, held-out images", "dB PSNR"]["value"] == pytest.approx(
        34.1509, abs=1e-4
    )
    # The middle of 9997, 13126, 14084, 14155.
    rate = values["language model, training", "tokens/s"]["value"]
    assert rate == pytest.approx((13126.084 + 14084.098) / 2, abs=0.01)
    assert values["language model, held-out loss", "nats"]["value"] == pytest.approx(0.67975, 1e-4)
    assert values["generation: recognition, 200 samples", "tokens/s"]["value"] == 3021
    assert values["generation: recognition-untrained, 200 samples", "samples/s"]["value"] == 60.2
    # A run that found its samples there has no speed.
    assert not any("generation: rendering" in what for what, _ in values)
    drawn = values["rendering, held-out scenes", "SSIM"]
    assert drawn["reference"] == pytest.approx(0.10236, abs=1e-5)
    assert drawn["ceiling"] == pytest.approx(0.91916, abs=1e-5)
    assert values["recognition, held-out scenes", "Jaccard"]["value"] == pytest.approx(
        0.204667, 1e-5
    )


def test_the_summary_that_generation_prints_is_understood():
    summary = GenerationSummary(4200, 4200, 1_234_000, 100.0, ParseReport())
    (found,) = quickstart.GENERATED.findall(f"results of before\nname: {summary}\nresults: here\n")
    assert found == ("name", "4200", "42.0", "12,340")


def test_a_run_without_its_log_is_refused(tmp_path):
    shutil.copytree(RECORDED, tmp_path / "run")
    (tmp_path / "run/stages.log").unlink()
    with pytest.raises(InputError, match=r"stages\.log"):
        quickstart.main(["--finished", str(tmp_path / "run")])

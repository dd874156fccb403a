"""The command lines of the README on fixed inputs, against the released code's values."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests/goldens/metrics"
EXPECTED = json.loads((GOLDENS / "expected.json").read_text())
TAUS = ("0.05", "0.1", "0.25")


def run_script(name, *args):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(arg) for arg in args])


def check_tau_files(folder, expected):
    for tau in TAUS:
        line = (folder / f"jaccard_index_tau-{tau}.txt").read_text()
        assert line == f"Jaccard Index: {expected[tau]:.4f}\n"


@pytest.mark.parametrize(("dataset", "run"), [("clevr", "run_x"), ("objaworld", "run_y")])
def test_jaccard_of_scene_folders(dataset, run, tmp_path):
    generated = shutil.copytree(GOLDENS / dataset / run, tmp_path / run)
    run_script(
        "compute_jaccard_index",
        *[part for tau in TAUS for part in ("--tau", tau)],
        *("--generated_folder", generated),
        *("--groundtruth_folder", GOLDENS / dataset / "gt"),
        *("--dataset", dataset),
    )
    check_tau_files(generated, EXPECTED[dataset])


@pytest.mark.parametrize(("method", "file"), [("kyvo", "kyvo.json"), ("cube-rcnn", "cube.json")])
def test_jaccard_of_objectron(method, file, tmp_path):
    run_script(
        "compute_jaccard_index",
        *[part for tau in TAUS for part in ("--tau", tau)],
        *("--dimension_tau", EXPECTED["objectron"]["dimension_tau"]),
        *("--predictions_file", shutil.copy(GOLDENS / "objectron" / file, tmp_path)),
        *("--groundtruth_file", GOLDENS / "objectron/gt.json"),
        *("--dataset", "objaworld", "--method", method),
    )
    expected = EXPECTED["objectron"][method]
    check_tau_files(tmp_path, {tau: values[0] for tau, values in expected.items()})
    written = json.loads((tmp_path / "jaccard.json").read_text())["taus"]
    names = ("mean_true_positives", "mean_false_positives", "mean_false_negatives")
    for tau in TAUS:
        assert [written[tau][name] for name in names] == pytest.approx(expected[tau][1:])


def test_ssim_and_l2(tmp_path):
    run_script(
        "compute_ssim_l2loss",
        *("--generated_folder", GOLDENS / "images/GENERATED"),
        *("--groundtruth_folder", GOLDENS / "images/gt"),
        *("--output_folder", tmp_path),
    )
    written = json.loads((tmp_path / "ssim_l2.json").read_text())
    assert written["ssim"] == pytest.approx(EXPECTED["images"]["ssim"], rel=1e-9, abs=0)
    assert written["l2"] == pytest.approx(EXPECTED["images"]["l2"], rel=1e-9, abs=0)
    assert "SSIM: 0.8002" in (tmp_path / "ssim_l2.txt").read_text()
    assert len(written["images"]) == 4


def test_accuracy_of_answers(tmp_path, capsys):
    run_script(
        "compute_text_answer_accuracy",
        *("--predicted_file", shutil.copy(GOLDENS / "qa/pred.json", tmp_path)),
        *("--groundtruth_file", GOLDENS / "qa/gt.json"),
    )
    assert f"Accuracy: {EXPECTED['qa']['accuracy_percent']}%" in capsys.readouterr().out
    assert sum(json.loads((tmp_path / "accuracy.json").read_text())["correct"].values()) == 53

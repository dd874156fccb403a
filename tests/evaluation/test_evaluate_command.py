"""The evaluate command: its values are those of the single commands, its table says so."""

import json
import shutil

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
from PIL import Image

from kyvo.images.checkpoint import save_vqgan
from kyvo.images.vqgan import VQGAN, VQGANConfig
from kyvo.metrics.registry import METRICS, AnswerMetric, ImagePairMetric, SceneMetric
from kyvo.models import released_state_dict
from kyvo.report import ReportInputs
from kyvo.report.metrics_table import metrics_section
from kyvo.tokens.sequences import TASKS as TASKS_TABLE
from kyvo.tokens.sequences import _task

COMMAND = load_script("evaluate")
BASE = (
    """
data_root: {root}
output_dir: {root}/results
three_d_json_folder: ${{output_dir}}/three_d
image_embeddings_folder: ${{output_dir}}/images
checkpoint: {root}/first.pt
vocabulary: mini
scene_schema: clevr
codebook: ${{data_root}}/codebook.npy
"""
    + tiny_model_yaml(max_seq_len=2048)
    + """
dataset:
  _component_: kyvo.data.dataset.kyvo_dataset
  codes_per_image: 16
  image_source: ${{data_root}}/image_source.json
  three_d_source: ${{data_root}}/three_d_source.json
  text_source: ${{data_root}}/text_source.json
  text_target: ${{data_root}}/text_target.json
max_new_tokens: 90
sampling: {{temperature: 3.0}}
device: cpu
precision: fp32
"""
)
TASKS = {"recognition": "I-3", "rendering": "3-I", "answers": "I+3+Q-A"}
TABLE = """
rows:
  - {task: recognition, data: mini, configs: [recognition.yaml], scenes: truth/scenes,
     paper: {jaccard: 0.9212}, baselines: [{name: Other, value: 0.25}]}
  - {task: rendering, data: mini, configs: [rendering.yaml], images: truth/images, vqgan: vqgan,
     paper: {ssim: 0.9505, l2: 0.001}}
  - {task: answering, data: mini, configs: [answers.yaml]}
"""
NUM_SAMPLES = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    write_data(folder, NUM_SAMPLES)
    np.save(folder / "codebook.npy", MINI_CODEBOOK)
    for name, seed in (("first", 0), ("second", 1)):
        torch.save(
            released_state_dict(tiny_model(seed=seed, max_seq_len=2048)), folder / f"{name}.pt"
        )
    (folder / "base.yaml").write_text(BASE.format(root=folder))
    for name, task in TASKS.items():
        lines = f"base: base.yaml\nrun_identifier: {name}\ndataset: {{task: {task}}}\n"
        (folder / f"{name}.yaml").write_text(lines)
    (folder / "table.yaml").write_text(TABLE)
    torch.manual_seed(0)
    shape = VQGANConfig(
        embed_dim=16,
        n_embed=512,
        z_channels=32,
        resolution=32,
        ch=32,
        ch_mult=(1, 1, 1, 1),
        num_res_blocks=1,
        attn_resolutions=(),
    )
    save_vqgan(VQGAN(shape), folder / "vqgan/run", "run")
    write_truth(folder)
    return folder


def write_truth(root):
    random = np.random.default_rng(0)
    (root / "truth/images").mkdir(parents=True)
    (root / "truth/scenes").mkdir()
    for key, objects in json.loads((root / "objects_source.json").read_text()).items():
        scene = {"objects": objects}
        (root / "truth/scenes" / key.replace(".png", ".json")).write_text(json.dumps(scene))
        image = random.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(image).save(root / "truth/images" / key)


def evaluate(root, output, *more):
    COMMAND.main(["--table", f"{root}/table.yaml", "--output", str(output), *more])
    return json.loads((output / "evaluation.json").read_text())["rows"]


@pytest.fixture(scope="module")
def rows(root):
    """Half of the scenes were "really" as the model says, so that some of its objects are right."""
    own = f"output_dir={root}/results"
    evaluate(root, root / "report", own)
    path = root / "results/three_d/recognition/predicted_scenes_recognition.json"
    for scene in json.loads(path.read_text())["scenes"][::2]:
        truth = root / "truth/scenes" / scene["key"].replace(".png", ".json")
        truth.write_text(json.dumps({"objects": scene["objects"]}))
    return {row["task"]: row for row in evaluate(root, root / "report", own)}


def values(rows, task):
    return {k: v for k, v in rows[task]["values"]["here"].items() if v is not None}


def test_scene_values_are_those_of_the_command(root, rows, tmp_path):
    generated = shutil.copytree(root / "results/three_d/recognition", tmp_path / "run")
    truth = ("--groundtruth_folder", str(root / "truth/scenes"))
    command = ["--tau", "paper", "--generated_folder", str(generated), *truth]
    load_script("compute_jaccard_index").main(command)
    expected = json.loads((generated / "jaccard.json").read_text())
    assert values(rows, "recognition") == {"jaccard": expected["jaccard"]}
    assert 0.2 < expected["jaccard"] < 1
    (run,) = rows["recognition"]["runs"]["here"]
    for tau, scores in expected["taus"].items():
        assert run["values"][f"jaccard@{tau}"] == scores["jaccard"]
    report = json.loads((generated / "parse_report.json").read_text())
    assert run["values"]["objects_read"] == report["complete_objects"] / report["objects"]


def test_image_values_are_those_of_the_commands(root, rows, tmp_path):
    embeddings = ("--folder_path", f"{root}/results/images/rendering")
    vqgan = ("--vqgan-root", str(root), "--vqgan_type", "vqgan")
    command = [*embeddings, *vqgan, "--image_output_path", str(tmp_path)]
    load_script("decode_image_embeddings").main(command)
    expected = {}
    for kind in ("GENERATED", "GROUNDTRUTH"):
        folders = ("--generated_folder", f"{tmp_path}/{kind}", "--output_folder", f"{tmp_path}/o")
        truth = ("--groundtruth_folder", f"{root}/truth/images")
        load_script("compute_ssim_l2loss").main([*folders, *truth])
        scores = json.loads((tmp_path / "o/ssim_l2.json").read_text())
        expected[kind] = {name: scores[name] for name in ("ssim", "l2")}
    assert values(rows, "rendering") == pytest.approx(expected["GENERATED"])
    (run,) = rows["rendering"]["runs"]["here"]
    assert run["baselines"]["tokenizer alone"] == pytest.approx(expected["GROUNDTRUTH"])
    assert run["values"]["images_read"] == 1


def test_answer_values_and_the_most_frequent_answer(root, rows, tmp_path):
    answers = json.loads((root / "text_target.json").read_text())
    true = [entry["string"] for entry in answers.values()]
    (run,) = rows["answering"]["runs"]["here"]
    share = max(map(true.count, true)) / len(true)
    assert run["baselines"]["most frequent answer"] == {"accuracy": share}
    folder = root / "results/three_d/answers"
    command = ["--predicted_file", f"{folder}/predicted_answers_answers.json"]
    command += ["--groundtruth_file", f"{root}/text_target.json", "--output_folder", str(tmp_path)]
    load_script("compute_text_answer_accuracy").main(command)
    expected = json.loads((tmp_path / "accuracy.json").read_text())["accuracy"]
    assert values(rows, "answering") == {"accuracy": expected}


def test_the_table_sets_the_papers_values_beside(root, rows):
    text = (root / "report/evaluation.md").read_text()
    jaccard = values(rows, "recognition")["jaccard"]
    values_of_line = f"{jaccard:.4f} | 0.9212 | Other 0.2500 (paper) |"
    assert f"| recognition | mini | Jaccard, mean over tau | 6 | {values_of_line}" in text
    assert "| 0.9505 | tokenizer alone " in text
    assert f"jaccard against `{root}/truth/scenes`" in text


def test_a_finished_evaluation_generates_nothing_again(root, rows, capsys, monkeypatch):
    monkeypatch.setattr("kyvo.decoding.run._generate", lambda *a: len(a[2]))
    again = evaluate(root, root / "report", f"output_dir={root}/results")
    assert {row["task"]: row for row in again} == rows


def test_checkpoints_are_side_by_side(root, rows, tmp_path):
    both = ("--checkpoint", f"{root}/first.pt", f"{root}/second.pt")
    (row,) = evaluate(root, tmp_path, *both, "--only", "RECOG")
    labels = [f"{root.name}_first.pt", f"{root.name}_second.pt"]
    assert row["values"][labels[0]] == rows["recognition"]["values"]["here"]
    assert row["runs"][labels[1]][0]["weights"] == f"{root}/second.pt"
    head = (tmp_path / "evaluation.md").read_text().splitlines()[2]
    assert (
        head == f"| task | data | metric | samples | {labels[0]} | {labels[1]} | paper | others |"
    )
    assert (tmp_path / labels[1] / "three_d/recognition/predicted_scenes_recognition.json").exists()


def test_a_part_of_the_samples_is_measured_alone(root, rows, tmp_path):
    """Images of an earlier, larger run in the same folder do not count."""
    results = shutil.copytree(root / "results", tmp_path / "results")
    overrides = (f"output_dir={results}", "num_samples=2", "first_sample=1")
    (row,) = evaluate(root, tmp_path / "report", "--only", "rendering", *overrides)
    (run,) = row["runs"]["here"]
    assert (run["num_samples"], run["num_available"]) == (2, NUM_SAMPLES)
    assert len(list((results / "decoded_images/rendering/GENERATED").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", "cooking"], "no row called 'cooking'; known: recognition, mini;"),
        (["--checkpoint", "{0}/first.pt", "{0}/first.pt"], "first.pt is given twice"),
        (["codebook=none.npy"], "codebook: none.npy"),
        (["--checkpoint", "{0}/first.pt", "{0}/none.pt", "{0}/nor.pt"], "6 problems:"),
        (["--checkpoint", "{0}/first.pt", "--checkpoint", "{0}/none.pt"], "3 problems:"),
        (["data_root={0}/truth", "codebook={0}/codebook.npy"], "image_source: {0}/truth/"),
        (["vocabulary=mimi"], "no vocabulary 'mimi'"),
    ],
)
def test_bad_input_is_reported_before_anything_is_generated(
    root, tmp_path, monkeypatch, capsys, arguments, complaint
):
    table = ["--table", f"{root}/table.yaml", "--output", f"{tmp_path}/out"]
    given = [argument.format(root) for argument in arguments]
    message = refusal_of(
        COMMAND.main, [*table, f"output_dir={tmp_path}/r", *given], monkeypatch, capsys
    )
    assert complaint.format(root) in message
    assert list(tmp_path.iterdir()) == []


def test_missing_ground_truth_is_reported_before_anything_is_generated(
    root, tmp_path, monkeypatch, capsys
):
    table = TABLE.replace("truth/scenes", "no/scenes").replace("vqgan: vqgan", "vqgan: truth")
    table = table.replace("value: 0.25", "predictions: no/other.json")
    for name in ("base", *TASKS):
        shutil.copy(root / f"{name}.yaml", tmp_path)
    (tmp_path / "table.yaml").write_text(table)
    arguments = ["--table", f"{tmp_path}/table.yaml", "--output", f"{tmp_path}/out"]
    message = refusal_of(
        COMMAND.main, [*arguments, f"output_dir={tmp_path}/r"], monkeypatch, capsys
    )
    assert message.startswith("error: 3 problems:")
    for part in ("no/scenes", "no/other.json", f"VQGAN: {root}/truth"):
        assert part in message
    assert not (tmp_path / "r").exists()


def test_the_report_is_there_after_every_row(root, tmp_path, monkeypatch):
    """What comes after the first row fails; its values are on disk."""
    monkeypatch.setattr("kyvo.evaluation.measure.load_vqgan", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(root, tmp_path / "report", f"output_dir={tmp_path}/results")
    text = (tmp_path / "report/evaluation.md").read_text()
    assert "| recognition | mini | Jaccard, mean over tau | 6 | 0." in text
    assert "| rendering | mini | not measured yet |" in text


def test_unreadable_images_are_counted_beside_the_value(root, tmp_path):
    """Cut off before its end, no image is whole; those of an earlier run do not count."""
    own = (f"output_dir={tmp_path}/results", "--only", "rendering")
    evaluate(root, tmp_path / "report", *own)
    shutil.rmtree(tmp_path / "results/three_d/rendering")
    evaluate(root, tmp_path / "report", *own, "constrained=false", "max_new_tokens=9")
    text = (tmp_path / "report/evaluation.md").read_text()
    assert "| SSIM | 6 |  (0 of 6 images) | 0.9505 |" in text


def test_a_new_metric_is_one_entry(root, rows, tmp_path, monkeypatch):
    """It is then in the JSON, in the table and in the HTML report."""
    for metric in (
        ImagePairMetric("shade", "mean shade", "{:.1f}", lambda pair: pair.grey[0].mean()),
        SceneMetric("scenes", "scenes", "{:.0f}", lambda scores: len(scores.evaluation.pairs)),
        AnswerMetric("known", "known answers", "{:.2f}", lambda scores: len(scores.predicted)),
    ):
        monkeypatch.setitem(METRICS, metric.name, metric)
    results = shutil.copytree(root / "results", tmp_path / "results")
    found = {row["task"]: row for row in evaluate(root, tmp_path, f"output_dir={results}")}
    assert values(found, "recognition")["scenes"] == NUM_SAMPLES
    assert values(found, "answering")["known"] == NUM_SAMPLES
    assert 0 < values(found, "rendering")["shade"] < 1
    assert "| rendering | mini | mean shade | 6 |" in (tmp_path / "evaluation.md").read_text()
    similarity = results / "decoded_images/rendering/ssim_l2.json"
    section = metrics_section(ReportInputs(similarity=similarity))
    assert "mean shade" in [row[0] for row in section.table.rows]


def test_a_new_task_is_one_line_and_its_configs(root, tmp_path, monkeypatch):
    """Sequences, grammar, generation and evaluation take it from there."""
    monkeypatch.setitem(TASKS_TABLE, "3+Q-A", _task("3+Q-A"))
    shutil.copy(root / "base.yaml", tmp_path)
    lines = "base: base.yaml\nrun_identifier: blind\ndataset: {task: 3+Q-A}\n"
    (tmp_path / "blind.yaml").write_text(lines)
    (tmp_path / "table.yaml").write_text(
        "rows:\n  - {task: blind answering, data: mini, configs: [blind.yaml]}\n"
    )
    (row,) = evaluate(tmp_path, tmp_path / "out", f"output_dir={tmp_path}/results")
    (run,) = row["runs"]["here"]
    assert run["num_samples"] == NUM_SAMPLES
    assert 0 <= run["values"]["accuracy"] <= 1

"""The generation command: the files it writes, and going on where it stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from kyvo_stand_ins import (
    MINI_CODEBOOK,
    load_script,
    mini_codec,
    refusal_of,
    tiny_model,
    tiny_model_yaml,
    uncached_values,
    write_data,
    write_json,
)
from scene_samples import decode, encode

import kyvo.decoding.run
from kyvo.common.config import load_config
from kyvo.common.files import folder_lock
from kyvo.data.dataset import kyvo_dataset
from kyvo.decoding import (
    Generated,
    GenerationConfig,
    OutputReader,
    ResultFiles,
    ResultsLog,
    plan_generation,
)
from kyvo.decoding.grammar import output_automaton
from kyvo.images.codebook import codebook_hash, record_codebook
from kyvo.images.order import centre_first
from kyvo.models import MODEL, released_state_dict, save_checkpoint
from kyvo.scenes import SceneCodec, get_schema
from kyvo.tokens.sequences import get_task
from kyvo.tokens.vocabulary import get_vocabulary

COMMAND = load_script("generate_3d")
IMAGE = get_vocabulary("mini").image
CONFIG = (
    """
data_root: {root}
output_dir: {root}
run_identifier: R
three_d_json_folder: {root}/three_d
image_embeddings_folder: {root}/images
checkpoint: {root}/meta_model_9.pt
vocabulary: mini
scene_schema: clevr
codebook: ${{data_root}}/codebook.npy
"""
    + tiny_model_yaml()
    + """
dataset:
  _component_: kyvo.data.dataset.kyvo_dataset
  task: I+3+T-I+3
  codes_per_image: 16
  image_source: ${{data_root}}/image_source.json
  three_d_source: ${{data_root}}/three_d_source.json
  text_source: ${{data_root}}/text_source.json
  image_target: ${{data_root}}/image_target.json
  three_d_target: ${{data_root}}/three_d_target.json
  text_target: ${{data_root}}/text_target.json
sampling:
  temperature: 3.0
max_new_tokens: 90
batch_size: 4
device: cpu
precision: fp32
"""
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    write_data(folder, num_samples=7)
    np.save(folder / "codebook.npy", MINI_CODEBOOK)
    torch.save(released_state_dict(tiny_model()), folder / "meta_model_9.pt")
    (folder / "config.yaml").write_text(CONFIG.format(root=folder))
    return folder


def generate(root, output, *overrides):
    folders = (f"three_d_json_folder={output}/three_d", f"image_embeddings_folder={output}/images")
    COMMAND.main(["--config", str(root / "config.yaml"), *folders, *overrides])
    return output


@pytest.fixture(scope="module")
def straight(root):
    return generate(root, root / "straight")


def stored(root, name):
    return json.loads((root / f"{name}.json").read_text())


def written(output, name):
    return json.loads((output / "three_d" / "R" / name).read_text())


def generated_ids(output, kind="ids"):
    lines = (output / "three_d" / "R" / "results.jsonl").read_text().splitlines()[1:]
    return {line["index"]: line[kind] for line in map(json.loads, lines)}


def codebook_vectors(codes):
    """Float32 (16, 4, 4): the vector of the code in row r, column c at [:, r, c]."""
    return np.stack([MINI_CODEBOOK[codes[4 * r + c]] for r in range(4) for c in range(4)], 1)


def test_scene_files_hold_predictions_truth_and_originals(root, straight):
    truth, originals = stored(root, "objects_target"), stored(root, "objects_source")
    keys = sorted(truth)
    for kind, objects in (("groundtruth", truth), ("original", originals)):
        assert written(straight, f"{kind}_scenes_R.json") == {
            "scenes": [
                {"image_filename": f"{kind}_scene_{i}", "objects": objects[key], "key": key}
                for i, key in enumerate(keys)
            ]
        }
    predicted = written(straight, "predicted_scenes_R.json")["scenes"]
    assert [row["key"] for row in predicted] == keys
    assert [row["image_filename"] for row in predicted] == [
        f"predicted_scene_{i}" for i in range(7)
    ]
    codec = mini_codec()
    for row, ids in zip(predicted, map(generated_ids(straight).get, range(7)), strict=True):
        start = ids.index(codec.vocabulary.marker_id("[SCENE-START]"))
        scene = [token for token in ids[start:] if token != codec.vocabulary.eos]
        assert row["objects"] == decode(codec, scene)
    assert sum(len(row["objects"]) for row in predicted) > 7


def test_image_files_hold_codebook_vectors_in_raster_order(root, straight):
    truth, ids = stored(root, "image_target"), generated_ids(straight)
    folder = straight / "images" / "R"
    names = {path.name for path in folder.glob("*.npy")}
    assert names == {
        f"{kind}_image_tokens_R_{key}_{i}.npy"
        for kind in ("generated", "ground_truth")
        for i, key in enumerate(sorted(truth))
    }
    for i, key in enumerate(sorted(truth)):
        codes = np.empty(16, dtype=int)
        codes[centre_first(16)] = np.array(ids[i][1:17]) - IMAGE.start
        for kind, expected in (("generated", codes), ("ground_truth", truth[key])):
            vectors = np.load(folder / f"{kind}_image_tokens_R_{key}_{i}.npy")
            assert vectors.dtype == np.float32
            np.testing.assert_array_equal(vectors, codebook_vectors(expected).reshape(16, 4, 4))


def test_the_parse_report_counts_every_sample(straight):
    report = written(straight, "parse_report.json")
    assert report["scenes"] == 7
    unfinished = sum(1 not in ids for ids in generated_ids(straight).values())
    assert report["reasons"].get("no end of sequence", 0) == unfinished


@pytest.fixture(scope="module")
def expected(root):
    return generate(root, root / "expected", "numbers=expected")


def test_expected_numbers_are_means_over_the_models_bins(root, straight, expected):
    """Ids are those of the best bins; numbers are a reference's, asking the whole model again."""
    codec, model, ids = mini_codec(), tiny_model(), generated_ids(expected)
    assert ids == generated_ids(straight)
    dataset = plan_generation(load_config(GenerationConfig, root / "config.yaml")).dataset
    automaton = output_automaton(get_task("I+3+T-I+3"), codec, 16)
    scenes = [row["objects"] for row in written(expected, "predicted_scenes_R.json")["scenes"]]
    coarse = [row["objects"] for row in written(straight, "predicted_scenes_R.json")["scenes"]]
    num_between = 0
    for index, objects in enumerate(scenes):
        sample = dataset[index][1]
        prompt = sample.tokens[: sample.prompt_length]
        values = uncached_values(model, prompt, ids[index], codec.vocabulary, automaton)
        found = [x for item in objects for x in item.get("3d_coords", [])]
        numbers = [value for value in values if not np.isnan(value)]
        np.testing.assert_allclose(found, numbers[: len(found)], rtol=0, atol=2e-4)
        best = [x for item in coarse[index] for x in item.get("3d_coords", [])]
        num_between += int((np.abs(np.subtract(found, best)) > 0.005).sum())
        words = [{k: v for k, v in item.items() if k != "3d_coords"} for item in objects]
        assert words == [{k: item[k] for k in item if k != "3d_coords"} for item in coarse[index]]
    assert num_between > 7


def test_a_killed_run_of_expected_numbers_goes_on_to_the_same_files(root, tmp_path, expected):
    generate(root, tmp_path, "numbers=expected")
    log = tmp_path / "three_d" / "R" / "results.jsonl"
    log.write_bytes(log.read_bytes()[:-2500])
    for file in (tmp_path / "three_d" / "R").glob("*.json"):
        file.unlink()
    assert len(log.read_text().splitlines()) < 7
    assert snapshot(generate(root, tmp_path, "numbers=expected")) == snapshot(expected)


def test_best_and_expected_numbers_are_not_mixed(root, straight, expected, monkeypatch, capsys):
    for output, numbers in ((straight, "expected"), (expected, "best")):
        before = snapshot(output)
        message = refusal(monkeypatch, capsys, root, output, f"numbers={numbers}")
        assert "numbers: then " in message
        assert snapshot(output) == before


def test_answers_are_written_as_the_metric_reads_them(root, tmp_path):
    generate(root, tmp_path, "dataset.task=I+3+Q-A")
    truth = written(tmp_path, "groundtruth_answers_R.json")["answers"]
    expected = {key: entry["string"] for key, entry in stored(root, "text_target").items()}
    assert {row["key"]: row["answer"] for row in truth} == {
        key: f"{string}<|end_of_text|>" for key, string in expected.items()
    }
    predicted = written(tmp_path, "predicted_answers_R.json")["answers"]
    assert [row["image_filename"] for row in predicted] == [
        f"predicted_scene_{i}" for i in range(7)
    ]
    for row, ids in zip(predicted, map(generated_ids(tmp_path).get, range(7)), strict=True):
        assert row["answer"].startswith("[TEXT-START]")
        assert row["answer"].endswith("<|end_of_text|>") == (ids[-1] == 1)
    assert not (tmp_path / "images").exists()
    assert not (tmp_path / "three_d" / "R" / "predicted_scenes_R.json").exists()


def snapshot(output):
    """Every file's content; the log's lines come in the order in which samples ended."""
    files = {p.relative_to(output): p.read_bytes() for p in output.rglob("*") if p.is_file()}
    return {
        path: sorted(content.splitlines()) if path.name == "results.jsonl" else content
        for path, content in files.items()
    }


@pytest.mark.parametrize("num_done", [0, 3, 6])
@pytest.mark.parametrize("is_cut_off", [False, True])
def test_a_killed_run_goes_on_to_the_same_files(
    root, tmp_path, monkeypatch, straight, num_done, is_cut_off
):
    add, count = ResultsLog.add, []

    def mortal(self, *arguments):
        if len(count) == num_done:
            raise KeyboardInterrupt
        count.append(1)
        add(self, *arguments)

    with monkeypatch.context() as patches:
        patches.setattr(ResultsLog, "add", mortal)
        with pytest.raises(KeyboardInterrupt):
            generate(root, tmp_path)
    log = tmp_path / "three_d" / "R" / "results.jsonl"
    assert len(log.read_text().splitlines()) == 1 + num_done
    if is_cut_off:
        log.write_bytes(log.read_bytes()[:-5])
    assert snapshot(generate(root, tmp_path)) == snapshot(straight)


def test_parts_of_the_data_set_add_up_to_the_whole(root, tmp_path, straight):
    generate(root, tmp_path, "num_samples=2", "batch_size=1")
    assert len(written(tmp_path, "predicted_scenes_R.json")["scenes"]) == 2
    generate(root, tmp_path, "first_sample=5")
    generate(root, tmp_path, "batch_size=3")
    assert snapshot(tmp_path) == snapshot(straight)


def test_the_same_weights_in_another_place_go_on(root, tmp_path, straight, capsys):
    """What files hold decides, not their names or times."""
    (root / "copy.pt").write_bytes((root / "meta_model_9.pt").read_bytes())
    generate(root, straight, f"checkpoint={root}/copy.pt")
    assert "7 samples (0 generated now" in capsys.readouterr().out


def test_results_of_other_data_are_not_mixed_in(root, tmp_path, monkeypatch, capsys):
    generate(root, tmp_path, "num_samples=1")
    entries = stored(root, "image_source")
    path = write_json(tmp_path / "other.json", {key: row[::-1] for key, row in entries.items()})
    message = refusal(monkeypatch, capsys, root, tmp_path, f"dataset.image_source={path}")
    assert "data: then {'image_source'" in message


def test_a_finished_run_generates_nothing_again(root, tmp_path, straight, capsys):
    before = snapshot(straight)
    generate(root, straight)
    assert "7 samples (0 generated now" in capsys.readouterr().out
    assert snapshot(straight) == before


def test_the_newest_checkpoint_of_a_training_run_is_taken(root, tmp_path, straight):
    for step, seed in ((1, 5), (2, 0)):
        weights = released_state_dict(tiny_model(seed=seed))
        save_checkpoint(tmp_path / "run", step, {MODEL: weights}, keep=2)
    generate(root, tmp_path, f"checkpoint={tmp_path}/run")
    for name in ("predicted_scenes_R.json", "parse_report.json"):
        assert written(tmp_path, name) == written(straight, name)


def test_a_damaged_newest_checkpoint_is_passed_over_and_that_is_said(
    root, tmp_path, straight, capsys
):
    weights = released_state_dict(tiny_model(seed=0))
    folders = [
        save_checkpoint(tmp_path / "run", step, {MODEL: weights}, keep=2).folder for step in (1, 2)
    ]
    (folders[1] / MODEL).write_bytes(b"")
    generate(root, tmp_path, f"checkpoint={tmp_path}/run")
    printed = capsys.readouterr().out
    assert f"skipped a damaged checkpoint: {folders[1]}: {MODEL} is truncated" in printed
    assert f"taking the one of step 1: {folders[0]}" in printed
    assert written(tmp_path, "predicted_scenes_R.json") == written(
        straight, "predicted_scenes_R.json"
    )


def test_an_untrained_model_answers_on_request(root, tmp_path, capsys):
    generate(root, tmp_path, "checkpoint=null", "num_samples=1")
    assert "random ones of seed 0" in capsys.readouterr().out
    assert len(written(tmp_path, "predicted_scenes_R.json")["scenes"]) == 1


def refusal(monkeypatch, capsys, root, output, *overrides):
    folders = (f"three_d_json_folder={output}/three_d", f"image_embeddings_folder={output}/images")
    arguments = ["--config", str(root / "config.yaml"), *folders, *overrides]
    return refusal_of(COMMAND.main, arguments, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("sampling.temperature=0.0", "sampling"),
        ("max_new_tokens=80", "max_new_tokens"),
        ("constrained=false", "constrained"),
        ("precision=bf16", "precision"),
        ("dataset.centre_first=none", "centre_first"),
        ("checkpoint={0}/other.pt", "weights"),
        ("model.rope_scale_factor=1", "model"),
    ],
)
def test_other_settings_in_the_same_run_are_refused(
    root, straight, monkeypatch, capsys, override, name
):
    torch.save(released_state_dict(tiny_model(seed=9)), root / "other.pt")
    before = snapshot(straight)
    message = refusal(monkeypatch, capsys, root, straight, override.format(root))
    assert "was made with another setup:" in message
    assert f"{name}: then " in message
    assert snapshot(straight) == before


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("first_sample=7", "the data set has 7 samples"),
        ("numbers=mean", "numbers: 'mean'; known: best, expected"),
        ("num_samples=0", "num_samples: expected 1 or more, found 0"),
        ("first_sample=-2", "first_sample: expected 0 or more, found -2"),
        ("run_identifier=a/b", "cannot be a folder name"),
        ("codebook={0}/other.npy", "is not the one that"),
        ("checkpoint={0}/nowhere", "no whole checkpoint"),
        ("model.num_layers=3", "missing: layers.2"),
        ("model.max_seq_len=30", "but max_seq_len is 30"),
        ("scene_schema=kitchen", "no scene schema 'kitchen'"),
        ("vocabulary=clevr", "needs its text tokenizer"),
    ],
)
def test_bad_input_is_told_before_generating(
    root, tmp_path, monkeypatch, capsys, override, complaint
):
    np.save(root / "other.npy", MINI_CODEBOOK[::-1].copy())
    assert complaint in refusal(monkeypatch, capsys, root, tmp_path, override.format(root))
    assert not list(tmp_path.rglob("*.npy"))


def test_image_codes_of_another_codebook_are_refused(root, tmp_path, monkeypatch, capsys):
    """Released weights say no codebook: the config's is compared with what made the data."""
    source = Path(write_json(tmp_path / "images.json", stored(root, "image_source")))
    record_codebook(source, MINI_CODEBOOK)
    override = f"dataset.image_source={source}"
    generate(root, tmp_path, "num_samples=1", override)
    record_codebook(source, MINI_CODEBOOK[::-1])
    message = refusal(monkeypatch, capsys, root, tmp_path / "other", override)
    hashes = codebook_hash(MINI_CODEBOOK[::-1]), codebook_hash(MINI_CODEBOOK)
    told = "image_source: {0}: codes of the codebook with SHA-256 {1}, but codebook {2} has {3}"
    assert told.format(source, hashes[0], root / "codebook.npy", hashes[1]) in message


@pytest.mark.parametrize("key", ["../../x", "/x", "k" * 190])
def test_a_key_that_cannot_be_part_of_a_file_name_is_told_before_generating(
    root, tmp_path, monkeypatch, capsys, key
):
    overrides = ["dataset.task=3-I"]
    for name in ("image_source", "three_d_source"):
        entry = next(iter(stored(root, name).values()))
        path = write_json(tmp_path / f"{name}.json", {key: entry})
        overrides.append(f"dataset.{name}={path}")
    before = set(tmp_path.parent.iterdir())
    message = refusal(monkeypatch, capsys, root, tmp_path / "out", *overrides)
    assert "cannot be a file name" in message
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.name != ".lock"] == []
    assert set(tmp_path.parent.iterdir()) == before


def test_two_runs_in_one_folder_are_refused(root, tmp_path, monkeypatch, capsys):
    with folder_lock(tmp_path / "three_d" / "R"):
        assert "in use by another run" in refusal(monkeypatch, capsys, root, tmp_path)


def test_objectron_results_are_named_by_the_pictures_path(tmp_path):
    vocabulary = get_vocabulary("objectron")
    codec = SceneCodec(get_schema("objectron"), vocabulary, mini_codec().tokenizer)
    item = {
        "category": "cereal box",
        "center_cam": [-0.1, 0.05, 1.5],
        "dimensions": [0.2, 0.05, 1.2],
    }
    scene = encode(codec, [item])
    entry = {"token_ids": scene, "string": {"file_path": "objectron/test/box.jpg"}}
    dataset = kyvo_dataset(
        vocabulary=vocabulary,
        task="I-3",
        image_source=str(write_json(tmp_path / "images.json", {"7": [0] * 16})),
        three_d_source=str(write_json(tmp_path / "scenes.json", {"7": entry})),
        codes_per_image=16,
    )
    reader = OutputReader(get_task("I-3"), codec, 16, "generated")
    files = ResultFiles("R", tmp_path / "out", tmp_path / "im", reader, dataset, MINI_CODEBOOK)
    files.write({0: Generated(np.array([*scene, vocabulary.eos]))})
    for kind in ("predicted", "groundtruth", "original"):
        rows = json.loads((tmp_path / "out" / f"{kind}_scenes_R.json").read_text())["scenes"]
        assert rows == [
            {
                "image_filename": f"{kind}_scene_0",
                "objects": [item],
                "key": "objectron/test/box.jpg",
            }
        ]


def test_results_of_earlier_weights_are_not_mixed_in(root, tmp_path, monkeypatch, capsys):
    weights = tmp_path / "model.pt"
    torch.save(released_state_dict(tiny_model(seed=1)), weights)
    arguments = (f"checkpoint={weights}", "num_samples=2")
    generate(root, tmp_path, *arguments)
    generate(root, tmp_path, *arguments)
    torch.save(released_state_dict(tiny_model(seed=2)), weights)
    folders = [f"three_d_json_folder={tmp_path}/three_d", f"image_embeddings_folder={tmp_path}"]
    command = ["--config", str(root / "config.yaml"), *folders, *arguments]
    assert "weights: then " in refusal_of(COMMAND.main, command, monkeypatch, capsys)


def test_several_configs_are_checked_first_and_share_their_model(
    root, tmp_path, straight, monkeypatch, capsys
):
    loads = []
    load = kyvo.decoding.run.load_model
    monkeypatch.setattr(
        "kyvo.decoding.run.load_model", lambda plan: loads.append(plan.weights) or load(plan)
    )
    for name, extra in (("b", "task: 3-I"), ("c", "task: I-3"), ("d", "task: X-3")):
        text = f"base: {root}/config.yaml\nrun_identifier: {name}\ndataset: {{{extra}}}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    out = (f"three_d_json_folder={tmp_path}/t", f"image_embeddings_folder={tmp_path}/i")
    files = [f"{tmp_path}/{name}.yaml" for name in "bcd"]
    command = ["--config", f"{root}/config.yaml", *files, *out, "num_samples=3"]
    assert "no task 'X-3'" in refusal_of(COMMAND.main, command, monkeypatch, capsys)
    assert not (tmp_path / "t").exists()

    command.remove(f"{tmp_path}/d.yaml")
    COMMAND.main(command)
    assert len(loads) == 1
    assert {p.name for p in (tmp_path / "t").iterdir()} == {"R", "b", "c"}
    scenes = json.loads((tmp_path / "t/R/predicted_scenes_R.json").read_text())["scenes"]
    assert scenes == written(straight, "predicted_scenes_R.json")["scenes"][:3]
    assert capsys.readouterr().out.count("3 of 7 samples") == 3

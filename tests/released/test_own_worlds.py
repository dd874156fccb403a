"""Worlds made here, tokenised, are a data set that the paper's configs take by its root alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from kyvo_stand_ins import load_script
from released_tree import SIZES, SMALL_VQGAN, write_tokenizer
from scene_samples import decode

from kyvo.images.checkpoint import save_vqgan
from kyvo.images.vqgan import VQGAN
from kyvo.metrics import load_evaluation, score_scenes
from kyvo.scenes import SceneCodec, get_schema
from kyvo.tokens.text_tokenizer import load_text_tokenizer
from kyvo.tokens.vocabulary import get_vocabulary

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SPLITS = ("--splits", "train:6", "test:10")
SMALL = ("--image-size", "64", "--samples-per-pixel", "1", "--workers", "0")
TASKS = {"scenes": "clevr", "instructions": "clevr", "questions": "clevr", "objaworld": "objaworld"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One tree with all tasks, and the worlds that it was made from."""
    folder = tmp_path_factory.mktemp("own")
    write_tokenizer(folder / "tokenizer.model")
    torch.manual_seed(0)
    save_vqgan(VQGAN(SMALL_VQGAN), folder / "vqgan/own", "own")
    for task, dataset in TASKS.items():
        world = str(folder / task)
        load_script("make_world").main(["--task", task, "--output", world, *SPLITS, *SMALL])
        command = ["--world", world, "--vqgan", str(folder / "vqgan/own")]
        command += ["--tokenizer", str(folder / "tokenizer.model"), "--device", "cpu"]
        command += ["--dataset", dataset, "--schema", dataset, "--vocabulary", dataset]
        load_script("tokenize_world").main([*command, "--output", str(folder / "data")])
    return folder


def read(path):
    return json.loads(path.read_text())


def test_the_papers_configs_take_it_by_its_root(data, capsys):
    configs = [
        path
        for dataset in ("clevr", "objaworld")
        for kind in ("train", "eval")
        for path in (ROOT / f"configs/llama3_2/{kind}/{dataset}").glob("**/*.yaml")
    ]
    assert len(configs) == 4 + 8 + 2 + 2
    overrides = [f"data_root={data}/data", f"tokenizer={data}", "device=cpu", "checkpoint=null"]
    sizes = [f"model.{name}={size}" for name, size in SIZES.items()]
    for kind, more in (("train", ["llama_weights=null"]), ("eval", [])):
        chosen = [str(path) for path in configs if f"/{kind}/" in str(path)]
        load_script("validate").main([*chosen, *overrides, *sizes, *more])
    printed = capsys.readouterr().out
    assert printed.count(": good") == 16
    assert printed.count("6 samples of ") == 6
    assert printed.count("10 of 10 samples") == 5
    assert printed.count("2 of 2 samples") == 5


def test_pairs_keep_their_instruction(data):
    base = data / "data/pretokenized-data/clevr"
    kind = "moving_with_relation"
    texts = read(base / f"text/instruction-following-eval/test_text_instructions_{kind}.json")
    for side in ("source", "target"):
        folder = f"instruction-following-eval-{side}"
        codes = read(base / f"images/{folder}/test_vqgan_indices_{kind}.json")
        scenes = read(base / f"3d-scenes/{folder}/test_tokenized_scenes_{kind}.json")
        assert codes.keys() == scenes.keys() == texts.keys()
        for key in texts:
            original = read(data / f"instructions/test/{side}/scenes/{Path(key).stem}.json")
            assert scenes[key]["string"].count("[OBJECT-START]") == len(original["objects"])
    for key, entry in texts.items():
        row = read(data / f"instructions/test/instructions/{Path(key).stem}.json")
        assert row["kind"] == kind
        assert entry["string"] == f"[TEXT-START] {row['instruction']}[TEXT-END]"


def test_the_codebook_has_the_released_name_and_the_vqgans_vectors(data):
    folder = data / "data/vqgan-models-and-codebooks/clevr"
    (path,) = folder.glob("*.npy")
    assert path.name == "custom_vqgan_embedding_1024CLEVRLARGE_256dim.npy"
    state = torch.load(folder / "own/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert np.array_equal(np.load(path), state["quantize.embedding.weight"].numpy())


def test_splits_share_no_scene(data):
    for task, folders in (("scenes", [""]), ("instructions", ["source", "target"])):
        for folder in folders:
            seen = [
                json.dumps(read(path)["objects"])
                for split in ("train", "test")
                for path in (data / task / split / folder / "scenes").iterdir()
            ]
            assert len(set(seen)) == len(seen) == 16


def test_perfect_predictions_of_objaworld_score_one(data, tmp_path):
    """Keys and folders are those that the metric looks for; only quantisation is between."""
    base = data / "data/pretokenized-data/objaworld"
    scenes = read(base / "3d-scenes/test_tokenized_scenes.json")
    assert scenes.keys() == read(base / "images/test_vqgan_indices.json").keys()
    codec = SceneCodec(
        get_schema("objaworld"),
        get_vocabulary("objaworld"),
        load_text_tokenizer(data / "tokenizer.model", get_vocabulary("objaworld")),
    )
    rows = [
        {"key": key, "objects": decode(codec, entry["token_ids"])} for key, entry in scenes.items()
    ]
    assert {key.rpartition("_")[2] for key in scenes} == {"park", "livingroom"}
    predictions = tmp_path / "predicted_scenes_x.json"
    predictions.write_text(json.dumps({"scenes": rows}))
    truth = data / "data/images-and-scenes-for-evaluation/objaworld/original_images"
    evaluation = load_evaluation(predictions, truth, codec.schema)
    assert score_scenes(evaluation, [0.1]).mean == 1
    assert evaluation.notes == ()

"""The Python door: a checkpoint opens by its path alone, and answers as the commands do."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from kyvo_stand_ins import TINY_SIZES, load_script, tiny_model, write_data
from PIL import Image
from vqgan_fixtures import MINI

import kyvo
from kyvo.common.config import Component
from kyvo.common.errors import InputError
from kyvo.decoding import Engine, Generated
from kyvo.images.checkpoint import save_vqgan
from kyvo.images.codebook import codebook_hash, record_codebook, save_codebook
from kyvo.images.vqgan import VQGAN
from kyvo.models import MODEL, released_state_dict, save_checkpoint
from kyvo.models.description import describe_model, description_files
from kyvo.scenes import Scene, get_schema
from kyvo.showcase import Showcase
from kyvo.tokens.vocabulary import get_vocabulary

TASKS = ("I-3", "3-I", "I+3+T-I+3", "I+3+Q-A")
SOURCES = [
    f"{kind}_{side}" for side in ("source", "target") for kind in ("image", "three_d", "text")
]
SIZES = {**TINY_SIZES, "max_seq_len": 512}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with a checkpoint of a random model of all tasks, its VQGAN and some data."""
    root = tmp_path_factory.mktemp("api")
    torch.manual_seed(0)
    vqgan = VQGAN(MINI).eval()
    save_vqgan(vqgan, root / "codes/run", "run")
    codebook = vqgan.codebook.detach().numpy()
    save_codebook(root / "codes/codebook.npy", codebook)
    model = tiny_model(max_seq_len=512)
    model.tok_embeddings.set_codebook(torch.from_numpy(codebook))
    start, end = map(get_vocabulary("mini").marker_id, ("[OBJECT-START]", "[SCENE-END]"))
    with torch.no_grad():  # else all recognized scenes would be empty
        model.output.weight[end] = 2 * model.output.weight[start]
    description = describe_model(
        Component("kyvo.models.kyvo_model", SIZES),
        get_vocabulary("mini"),
        get_schema("clevr"),
        None,
        root / "codes/codebook.npy",
        TASKS,
        16,
        "generated",
    )
    files = {MODEL: released_state_dict(model), **description_files(description)}
    save_checkpoint(root / "run", 3, files, keep=1)
    write_data(root, num_samples=5)
    return root


@pytest.fixture(scope="module")
def model(folder):
    return kyvo.load(folder / "run", device="cpu", precision="fp32", batch_size=4)


@pytest.fixture(scope="module")
def scenes(folder):
    stored = json.loads((folder / "objects_source.json").read_text())
    schema = get_schema("clevr")
    return [schema.parse_scene(stored[key], key) for key in sorted(stored)]


def images(count):
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8)) for _ in range(count)]


def generate(folder, task, *overrides):
    """The scenes or codes that generate_3d.py predicts, from a config that names no model."""
    config = folder / "config.yaml"
    config.write_text(
        f"data_root: {folder}\noutput_dir: {folder}\nrun_identifier: R\n"
        f"three_d_json_folder: {folder}/three_d\nimage_embeddings_folder: {folder}/images\n"
        f"checkpoint: {folder}/run\nmax_new_tokens: 500\ndevice: cpu\nprecision: fp32\n"
        "dataset:\n  _component_: kyvo.data.dataset.kyvo_dataset\n  codes_per_image: 16\n"
        f"  task: {task}\n" + "".join(f"  {name}: {folder}/{name}.json\n" for name in SOURCES)
    )
    load_script("generate_3d").main(["--config", str(config), *overrides])


def test_rendering_is_what_the_command_generates(folder, model, scenes):
    generate(folder, "3-I", "run_identifier=rendering")
    found = model.render(scenes)
    for index, image in enumerate(found):
        (file,) = (folder / "images/rendering").glob(f"generated_*_{index}.npy")
        vectors_DHW = np.load(file)
        if image is None:
            assert (vectors_DHW == 0).all()
        else:
            expected = model.image_codec.decode_vectors(vectors_DHW[None])[0]
            assert (np.array(image) == expected).all()
    assert any(found)


@pytest.mark.parametrize("numbers", ["best", "expected"])
def test_recognition_reads_what_the_command_reads(folder, numbers):
    """Through the codes: the data's images are given as codes, so they are decoded first."""
    stored = json.loads((folder / "image_source.json").read_text())
    codes = np.array([stored[key] for key in sorted(stored)])
    chosen = {"numbers": numbers} if numbers == "best" else {}  # expected is the default
    model = kyvo.load(folder / "run", device="cpu", precision="fp32", batch_size=4, **chosen)
    pictures = model.image_codec.decode(codes.reshape(-1, 4, 4))
    again = model.image_codec.encode(pictures).reshape(len(codes), -1)
    values = {key: row.tolist() for key, row in zip(sorted(stored), again, strict=True)}
    (folder / "image_again.json").write_text(json.dumps(values))
    path = f"dataset.image_source={folder}/image_again.json"
    name = f"recognition_{numbers}"
    generate(folder, "I-3", f"run_identifier={name}", path, f"numbers={numbers}")
    written = json.loads((folder / f"three_d/{name}/predicted_scenes_{name}.json").read_text())
    found = model.recognize([Image.fromarray(picture) for picture in pictures])
    schema = model.schema
    keys = {field.key for field in schema.fields}
    assert [schema.scene_to_json(scene) for scene in found] == [
        [item for item in row["objects"] if item.keys() >= keys] for row in written["scenes"]
    ]
    positions = [x for scene in found for item in scene.objects for x in item.position]
    assert positions
    assert (numbers == "best") == all(round(x * 20, 6) % 1 == 0 for x in positions)


def test_what_was_recognized_can_be_rendered(model, scenes, monkeypatch):
    """The last object of each scene is cut, as where a model writes on until there is no room."""
    longer = [Scene(scene.objects * 2) for scene in scenes]
    cut = [np.array(model.codec.encode(scene)[:-4]) for scene in longer]
    with monkeypatch.context() as patches:
        patches.setattr(Engine, "generate", lambda *_, **__: enumerate(map(Generated, cut)))
        found = model.recognize(images(5))
    assert found == [Scene(scene.objects[:-1]) for scene in longer]
    report = model.report
    assert (report.num_scenes, report.num_objects - report.num_complete) == (5, 5)
    assert report.reasons["object without [OBJECT-END]"] == 5
    assert all(isinstance(image, Image.Image) for image in model.render(found))
    assert model.report.num_scenes == 0
    edited = model.edit(images(5), found, ["Remove the red cube."] * 5)
    assert all(isinstance(item.image, Image.Image) for item in edited)


def test_every_task_answers_in_lists(model, scenes):
    count = len(scenes)
    edited = model.edit(images(count), scenes, ["Remove the red cube."] * count)
    assert [type(item) for item in edited] == [kyvo.Edited] * count
    assert all(isinstance(item.scene, Scene) for item in edited)
    answers = model.answer(images(count), scenes, ["How many?"] * count)
    assert all(isinstance(answer, str) and "[" not in answer for answer in answers)
    assert all(isinstance(scene, Scene) for scene in model.recognize(images(2)))
    # Engines are kept, and one sample alone is answered as among others.
    assert model.render(scenes[:1])[0] == model.render(scenes)[0]
    assert len(model._engines) == 4
    assert len({id(engine.cache) for engine in model._engines.values()}) == 1
    assert model.recognize([]) == model.render([]) == model.edit([], [], []) == []


def test_a_saved_model_opens_anywhere(folder, model, scenes, tmp_path):
    model.save(tmp_path / "shipped")
    text = (tmp_path / "shipped/kyvo.json").read_text()
    assert str(folder) not in text
    (tmp_path / "shipped").rename(tmp_path / "elsewhere")
    again = kyvo.load(tmp_path / "elsewhere", device="cpu", precision="fp32")
    assert again.render(scenes) == model.render(scenes)
    with pytest.raises(InputError, match="exists already"):
        model.save(tmp_path / "elsewhere")


def test_a_compacted_model_keeps_its_codebook(model, scenes, tmp_path):
    model.save(tmp_path / "whole")
    model.save(tmp_path / "small", compacted=True)
    found = []
    for name in ("small", "whole"):
        again = kyvo.load(tmp_path / name, device="cpu", precision="fp32")
        assert len(again.render(scenes)) == len(scenes)
        found.append(again.image_codec.codebook)
        found.append(again.model.tok_embeddings.vqgan_codebook.weight.numpy(force=True))
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_wrong_asks_are_refused(model, scenes, tmp_path):
    with pytest.raises(InputError, match="1 images, 5 scenes and 1 texts"):
        model.edit(images(1), scenes, ["x"])
    alone = dataclasses.replace(model.description, tasks=("I-3",))
    other = kyvo.Kyvo(alone, model.model, "fp32", 1, False, "best")
    with pytest.raises(InputError, match="trained on I-3: it cannot go from three_d to image"):
        other.render(scenes)
    strange = scenes[0].objects[0].updated(words={"color": "pink"})
    with pytest.raises(InputError, match=r"scene 0: object 0: 'color'.*pink"):
        model.render([Scene((strange,))])
    torch.save(released_state_dict(model.model), tmp_path / "meta_model_9.pt")
    with pytest.raises(InputError, match=r"no kyvo\.json beside it"):
        kyvo.load(tmp_path / "meta_model_9.pt")
    with pytest.raises(InputError, match="numbers: expected best or expected, found 'mean'"):
        kyvo.Kyvo(model.description, model.model, "fp32", 1, False, "mean")
    parts = Showcase(other, 1, 1, "near-to-far").parts()
    assert [headline is None for _, headline in parts] == [False, True, True, True]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("vocabulary=clevr_005", "vocabulary.num_text: the checkpoint has 512, the config 128256"),
        ("scene_schema=objaworld", "schema: the checkpoint has"),
        ("dataset.centre_first=none", "centre_first: the checkpoint has generated, the config"),
        ("dataset.task=I+Q-A", "was trained on I-3, 3-I, I\\+3\\+T-I\\+3, I\\+3\\+Q-A"),
    ],
)
def test_data_of_another_kind_than_the_checkpoints_is_refused(folder, override, message):
    with pytest.raises(InputError, match=message):
        generate(folder, "3-I", "run_identifier=other", override)


def test_codes_of_another_codebook_than_the_checkpoints_are_refused(folder, tmp_path):
    """A config without a codebook goes by the checkpoint's; one with another is told both."""
    own = np.load(folder / "codes/codebook.npy")
    other = own[::-1].copy()
    (tmp_path / "images.json").write_bytes((folder / "image_source.json").read_bytes())
    record_codebook(tmp_path / "images.json", other)
    images = f"dataset.image_source={tmp_path}/images.json"
    with pytest.raises(InputError) as caught:
        generate(folder, "I-3", "run_identifier=codes", images)
    told = f"SHA-256 {codebook_hash(other)}, but checkpoint {folder}/run has {codebook_hash(own)}"
    assert told in str(caught.value)
    save_codebook(tmp_path / "other.npy", other)
    with pytest.raises(InputError) as caught:
        generate(folder, "I-3", "run_identifier=codes", f"codebook={tmp_path}/other.npy")
    assert f"other.npy has SHA-256 {codebook_hash(other)}, but" in str(caught.value)
    assert f"was trained with {codebook_hash(own)}" in str(caught.value)


def test_the_same_size_is_not_the_same_model(folder):
    """Numbers of heads and the base of the positions change no weight's shape."""
    sizes = [f"model.{key}={value}" for key, value in SIZES.items() if key != "max_seq_len"]
    builder = "model._component_=kyvo.models.kyvo_model"
    with pytest.raises(InputError, match=r"model\.rope_base: the checkpoint has 500000, the con"):
        generate(folder, "3-I", "run_identifier=x", builder, *sizes, "model.rope_base=10000")
    generate(folder, "3-I", "run_identifier=same", builder, *sizes, "model.max_seq_len=512")


def test_importing_kyvo_needs_no_torch():
    code = "import sys, kyvo, kyvo.data.store; assert 'torch' not in sys.modules; kyvo.load"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_models_page_shows_all_its_tasks(folder, tmp_path):
    page = tmp_path / "model.html"
    arguments = ["--checkpoint", str(folder / "run"), "--output", str(page), "--count", "2"]
    load_script("show_model").main(arguments)
    text = page.read_text()
    for title in ("Recognition", "Rendering", "Instructions", "Questions"):
        assert f"<h2>{title}" in text
    for caption in ("what the model saw", "after, in truth", "the ray tracer"):
        assert text.count(f"{caption}</figcaption>") == 2
    assert text.count("In truth: ") == 2
    assert "not trained on this task" not in text
    assert "http" not in text.replace("http://www.w3.org", "")

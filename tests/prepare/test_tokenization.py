"""A world to the released layout: entries, order, texts, refusals; read back by the data set."""

import json
import runpy
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scene_samples import CODECS

from kyvo.common.errors import InputError
from kyvo.data.dataset import kyvo_dataset
from kyvo.images.checkpoint import copy_vqgan, load_vqgan, save_vqgan
from kyvo.images.codebook import codebook_hash, record_codebook, recorded_codebook
from kyvo.images.codec import ImageCodec
from kyvo.images.preprocessing import load_images, to_model_range
from kyvo.images.vqgan import VQGAN, VQGANConfig
from kyvo.prepare.layout import ReleasedLayout
from kyvo.prepare.tokenization import WorldTokenizer, copy_originals

ROOT = Path(__file__).parents[2]
SIZE, CODES = 16, 64


def _model(n_embed: int = 512) -> VQGAN:
    torch.manual_seed(0)
    shape = {"z_channels": 8, "resolution": SIZE, "ch": 32, "ch_mult": (1, 1), "num_res_blocks": 1}
    return VQGAN(VQGANConfig(embed_dim=4, n_embed=n_embed, attn_resolutions=(), **shape)).eval()


def _object(x: float, y: float, color: str) -> dict[str, object]:
    return {
        "size": "large", "color": color, "material": "metal", "shape": "cube",
        "3d_coords": [x, y, 0.7], "rotation": 12.0,
    }  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    folder = tmp_path / "world" / "train"
    for kind in ("images", "scenes", "texts"):
        (folder / kind).mkdir(parents=True)
    for index in range(5):
        name = f"CLEVR_train_{index:06d}"
        pixels = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
        objects = [_object(1.0, -1.012, "red"), _object(-2.0, 0.5, "blue")]
        scene = {
            "image_filename": f"{name}.png",
            "objects": objects,
            "directions": {"behind": [-1.0, 0.0, 0.0]},
        }
        (folder / "scenes" / f"{name}.json").write_text(json.dumps(scene))
    texts = {"CLEVR_train_000000.png": "Take out the red cube"}
    (folder / "texts" / "text_instructions.json").write_text(json.dumps(texts))
    return tmp_path / "world"


def test_entries_are_what_codec_and_vqgan_say(world: Path, tmp_path: Path) -> None:
    model, codec = _model(), CODECS["clevr"]
    layout = ReleasedLayout(tmp_path / "data", "clevr")
    tokenizer = WorldTokenizer(codec, ImageCodec(model, batch_size=2), SIZE)
    counts = tokenizer.tokenize_split(world, "train", layout)
    assert counts == {"images": 5, "scenes": 5, "text_instructions": 1}

    codebook = model.codebook.detach().numpy()
    assert recorded_codebook(layout.image_file("train")) == codebook_hash(codebook)

    images = json.loads(layout.image_file("train").read_text())
    paths = sorted((world / "train/images").iterdir())
    codes = model.encode(to_model_range(load_images(paths, SIZE))).flatten(1).tolist()
    assert images == dict(zip((path.name for path in paths), codes, strict=True))

    scenes = json.loads(layout.scene_file("train").read_text())
    scene, report = codec.read(scenes["CLEVR_train_000002.png"]["token_ids"])
    assert not report.reasons
    assert [item.words["color"] for item in scene.objects] == ["red", "blue"]
    assert scene.objects[0].position == (1.0, -1.0, 0.7)
    assert scenes["CLEVR_train_000002.png"]["string"].startswith("[SCENE-START][OBJECT-START]")

    text = json.loads(layout.text_file("train", "text_instructions").read_text())
    entry = text["CLEVR_train_000000.png"]
    assert entry["string"] == "[TEXT-START]Take out the red cube[TEXT-END]"
    assert codec.tokenizer.decode(entry["token_ids"][1:-1]) == "Take out the red cube"


@pytest.mark.parametrize("batch_size", [1, 2])
def test_files_are_the_same_whoever_reads(
    world: Path, tmp_path: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer places than batches: they are used again.
    monkeypatch.setattr("kyvo.prepare.readers._MOST_BYTES", 0)
    monkeypatch.setattr("kyvo.prepare.tokenization._SCENES_AT_ONCE", 2)
    written = []
    for workers in (0, 2):
        layout = ReleasedLayout(tmp_path / str(workers), "clevr")
        codec = ImageCodec(_model(), batch_size=batch_size)
        tokenizer = WorldTokenizer(CODECS["clevr"], codec, SIZE, "far-to-near", workers)
        counts = tokenizer.tokenize_split(world, "train", layout)
        assert counts == {"images": 5, "scenes": 5, "text_instructions": 1}
        paths = (layout.image_file("train"), layout.scene_file("train"))
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]
    assert active_children() == []


def test_a_damaged_file_is_named_by_whoever_reads(world: Path, tmp_path: Path) -> None:
    (world / "train/images/CLEVR_train_000003.png").write_bytes(b"no image")
    layout = ReleasedLayout(tmp_path / "data", "clevr")
    for workers in (0, 2):
        codec = ImageCodec(_model(), batch_size=2)
        tokenizer = WorldTokenizer(CODECS["clevr"], codec, SIZE, workers=workers)
        with pytest.raises(InputError, match=r"CLEVR_train_000003\.png: not readable"):
            tokenizer.tokenize_split(world, "train", layout)
    assert active_children() == []


def test_far_objects_come_first_where_asked(world: Path, tmp_path: Path) -> None:
    layout = ReleasedLayout(tmp_path / "data", "clevr")
    tokenizer = WorldTokenizer(
        CODECS["clevr"], ImageCodec(_model()), SIZE, object_order="far-to-near"
    )
    tokenizer.tokenize_split(world, "train", layout)
    scenes = json.loads(layout.scene_file("train").read_text())
    scene, _ = CODECS["clevr"].read(scenes["CLEVR_train_000000.png"]["token_ids"])
    assert [item.words["color"] for item in scene.objects] == ["blue", "red"]


def test_the_data_set_reads_what_was_written(world: Path, tmp_path: Path) -> None:
    codec = CODECS["clevr"]
    layout = ReleasedLayout(tmp_path / "data", "clevr")
    WorldTokenizer(codec, ImageCodec(_model()), SIZE).tokenize_split(world, "train", layout)
    copy_originals(world / "train", layout.originals)
    dataset = kyvo_dataset(
        vocabulary=codec.vocabulary,
        task="I-3",
        image_source=str(layout.image_file("train")),
        three_d_source=str(layout.scene_file("train")),
        codes_per_image=CODES,
    )
    assert len(dataset) == 5
    assert len(list((layout.originals / "images").glob("*.png"))) == 5
    assert len(list((layout.originals / "scenes").glob("*.json"))) == 5


def test_misfits_are_refused(world: Path, tmp_path: Path) -> None:
    layout = ReleasedLayout(tmp_path / "data", "clevr")
    with pytest.raises(InputError, match="it has 64 codes"):
        WorldTokenizer(CODECS["clevr"], ImageCodec(_model(64)), SIZE).tokenize_split(
            world, "train", layout
        )
    (world / "train/scenes/CLEVR_train_000003.json").unlink()
    with pytest.raises(InputError, match="CLEVR_train_000003"):
        WorldTokenizer(CODECS["clevr"], ImageCodec(_model()), SIZE).tokenize_split(
            world, "train", layout
        )
    assert not layout.scene_file("train").exists()


def test_an_interruption_leaves_no_wrong_record(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = ReleasedLayout(tmp_path / "data", "clevr")
    tokenizer = WorldTokenizer(CODECS["clevr"], ImageCodec(_model()), SIZE)
    tokenizer.tokenize_split(world, "train", layout)
    record_codebook(layout.image_file("train"), np.zeros((512, 4), np.float32))
    monkeypatch.setattr("kyvo.prepare.tokenization.record_codebook", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        tokenizer.tokenize_split(world, "train", layout)
    assert recorded_codebook(layout.image_file("train")) is None


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_names_follow_the_released_families() -> None:
    names = {
        suffix: ReleasedLayout(Path("r"), "d", suffix).image_file("test").name
        for suffix in ("", "source", "for_vqa", ReleasedLayout.suffix)
    }
    assert names == {
        "": "test_vqgan_indices.json",
        "source": "test_vqgan_indices_source.json",
        "for_vqa": "test_vqgan_indices_for_vqa.json",
        ReleasedLayout.suffix: "test_vqgan_indices_merged_for_rendering_and_recognition.json",
    }


def test_what_other_programs_leave_in_folders_is_passed_over(world: Path, tmp_path: Path) -> None:
    for kind, suffix in (("images", "png"), ("scenes", "json"), ("texts", "json")):
        (world / "train" / kind / f"._CLEVR_train_000000.{suffix}").write_bytes(b"\0\5\x16\7")
        (world / "train" / kind / ".ipynb_checkpoints").mkdir()
    tokenizer = WorldTokenizer(CODECS["clevr"], None, SIZE)
    layout = ReleasedLayout(tmp_path / "data", "clevr")
    counts = tokenizer.tokenize_split(world, "train", layout)
    assert counts == {"scenes": 5, "text_instructions": 1}
    copy_originals(world / "train", tmp_path / "copies")
    names = [path.name for path in (tmp_path / "copies").rglob("*") if path.is_file()]
    assert len(names) == 10
    assert not any(name.startswith(".") for name in names)


def test_a_vqgan_is_never_copied_into_itself(tmp_path: Path) -> None:
    folder = tmp_path / "mini"
    save_vqgan(_model(), folder, "mini")
    with pytest.raises(InputError, match=rf"is in {folder}, which is read"):
        copy_vqgan(folder, folder / "data" / "mini")
    copy_vqgan(folder, folder)
    copy_vqgan(folder, tmp_path / "copy")
    weights = [load_vqgan(place).state_dict() for place in (folder, tmp_path / "copy")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("output", ["world/data", "vqgan/data", "world"])
def test_the_command_writes_nothing_into_its_inputs(
    output: str, world: Path, tmp_path: Path
) -> None:
    (tmp_path / "vqgan").mkdir()
    before = sorted(tmp_path.rglob("*"))
    argv = ["--world", str(world), "--vqgan", str(tmp_path / "vqgan"), "--splits", "train"]
    command = runpy.run_path(str(ROOT / "scripts" / "tokenize_world.py"))["main"]
    with pytest.raises(InputError, match=rf"{output} is in .*, which is read"):
        command([*argv, "--output", str(tmp_path / output)])
    assert sorted(tmp_path.rglob("*")) == before

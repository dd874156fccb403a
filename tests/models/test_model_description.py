"""A checkpoint says what it is: description and tokenizers go out and come back equal."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from vqgan_fixtures import MINI

from kyvo.common.config import Component
from kyvo.common.errors import InputError
from kyvo.images.checkpoint import save_vqgan
from kyvo.images.codebook import codebook_hash, save_codebook
from kyvo.images.vqgan import VQGAN
from kyvo.models import MODEL, save_checkpoint
from kyvo.models.description import (
    DESCRIPTION,
    IMAGE_TOKENIZER,
    TEXT_TOKENIZER,
    describe_model,
    description_files,
    open_codec,
    open_image_tokenizer,
    open_text_tokenizer,
    read_description,
)
from kyvo.scenes import SCHEMAS, get_schema
from kyvo.tokens.vocabulary import VOCABULARIES, get_vocabulary

SIZE = {
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "embed_dim": 8,
    "intermediate_dim": 8,
    "codebook_dim": MINI.embed_dim,
}


@pytest.fixture
def vqgan(tmp_path):
    torch.manual_seed(0)
    model = VQGAN(MINI)
    save_vqgan(model, tmp_path / "codes/run", "run")
    return model


def describe(folder, vocabulary="mini", schema="clevr", **changes):
    shape = (get_vocabulary(vocabulary).num_image_codes, MINI.embed_dim)
    codebook = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    save_codebook(folder / "codes/codebook.npy", codebook)
    values = {
        "model": Component("kyvo.models.kyvo_model", SIZE),
        "vocabulary": get_vocabulary(vocabulary),
        "schema": get_schema(schema),
        "tokenizer": None,
        "codebook": folder / "codes/codebook.npy",
        "tasks": ("I-3", "3-I"),
        "codes_per_image": 16,
        "centre_first": "generated",
    }
    return describe_model(**values | changes)


def saved(folder, description):
    files = {MODEL: {"a": torch.zeros(1)}, **description_files(description)}
    return save_checkpoint(folder / "run", 1, files, keep=1).folder


def test_everything_comes_back(tmp_path, vqgan):
    description = describe(tmp_path)
    folder = saved(tmp_path, description)
    assert {path.name for path in folder.iterdir()} == {
        MODEL,
        DESCRIPTION,
        IMAGE_TOKENIZER,
        TEXT_TOKENIZER,
        "manifest.json",
    }
    found = read_description(folder)
    assert found.model == description.model
    assert found.vocabulary == description.vocabulary
    assert found.schema == description.schema
    assert found.differences(description) == []
    codebook = np.load(tmp_path / "codes/codebook.npy")
    assert found.codebook_sha256 == codebook_hash(codebook)
    assert found.build_model().output.weight.shape == (VOCABULARIES["mini"].size, 8)
    assert str(tmp_path) not in (folder / DESCRIPTION).read_text()


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_every_preset_comes_back(name, vocabulary, tmp_path):
    description = describe(tmp_path, vocabulary, name)
    values = json.loads(json.dumps(description.to_json()))
    (tmp_path / DESCRIPTION).write_text(json.dumps(values))
    found = read_description(tmp_path)
    assert found.vocabulary == description.vocabulary
    assert found.schema == description.schema


def test_tokenizers_are_read_from_the_checkpoint_alone(tmp_path, vqgan):
    folder = saved(tmp_path, describe(tmp_path))
    moved = folder.rename(tmp_path / "elsewhere")
    for path in (tmp_path / "codes").rglob("last.ckpt"):
        path.unlink()
    found = read_description(moved)
    again = open_image_tokenizer(found)
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), vqgan.parameters(), strict=True)
    )
    tokenizer = open_text_tokenizer(found)
    assert tokenizer.decode(tokenizer.encode(" large red cube")) == " large red cube"
    assert open_codec(found).schema == get_schema("clevr")
    # A copy of a copy is the same again.
    second = saved(tmp_path, found)
    assert (second / DESCRIPTION).read_bytes() == (moved / DESCRIPTION).read_bytes()


def test_a_large_image_tokenizer_is_named_by_its_hash(tmp_path, vqgan, monkeypatch):
    monkeypatch.setattr("kyvo.models.description._MOST_COPIED_BYTES", 1000)
    folder = saved(tmp_path, describe(tmp_path))
    assert not (folder / IMAGE_TOKENIZER).exists()
    found = read_description(folder)
    assert open_image_tokenizer(found).config == MINI
    weights = tmp_path / "codes/run/checkpoints/last.ckpt"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(InputError, match=r"last\.ckpt has changed: the checkpoint needs the file"):
        open_image_tokenizer(found)
    weights.unlink()
    with pytest.raises(InputError, match=r"last\.ckpt: no such file"):
        open_image_tokenizer(found)


def test_differences_name_both_values(tmp_path):
    mine = describe(tmp_path)
    other = describe(tmp_path, "clevr_005", "objaworld", tokenizer=_tokenizer(), codes_per_image=64)
    lines = mine.differences(other)
    assert [line.split(":")[0] for line in lines] == [
        "vocabulary.num_text",
        "vocabulary.bos",
        "vocabulary.eos",
        "vocabulary.num_image_codes",
        "schema",
        "codes_per_image",
    ]
    assert lines[0] == "vocabulary.num_text: the checkpoint has 512, the config 128256"
    # Another name for the same content is no difference.
    renamed = dataclasses.replace(mine.vocabulary, name="own.yaml")
    assert mine.differences(dataclasses.replace(mine, vocabulary=renamed)) == []


def _tokenizer() -> Path:
    return Path(__file__).parents[2] / "kyvo/tokens/mini_tokenizer.json"


def test_what_is_missing_is_said(tmp_path):
    bare = describe(tmp_path, "clevr", schema="clevr", codes_per_image=0)
    for opened in (open_text_tokenizer, open_image_tokenizer):
        with pytest.raises(InputError, match="training config"):
            opened(bare)
    with pytest.raises(InputError, match="scene_schema"):
        open_codec(dataclasses.replace(bare, schema=None))
    assert read_description(tmp_path) is None


def test_a_damaged_description_is_refused(tmp_path):
    (tmp_path / DESCRIPTION).write_text("[]")
    with pytest.raises(InputError, match="expected an object"):
        read_description(tmp_path)
    values = describe(tmp_path).to_json() | {"model": {"_component_": "os.system"}}
    (tmp_path / DESCRIPTION).write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"'os\.system' may not be used here"):
        read_description(tmp_path)


def test_older_checkpoints_say_no_codebook(tmp_path):
    values = describe(tmp_path).to_json()
    del values["codebook_sha256"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(values))
    assert read_description(tmp_path).codebook_sha256 is None
    assert describe(tmp_path, codes_per_image=0).codebook_sha256 is None

"""Text tokenizers: the shipped one, and Llama's on a made-up file of its format."""

import base64
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scene_samples import CODECS, MINI
from tokenizers import Tokenizer, models

from kyvo.common.errors import InputError
from kyvo.scenes import WordField
from kyvo.tokens.text_tokenizer import JsonText, LlamaText, load_text_tokenizer
from kyvo.tokens.vocabulary import get_vocabulary

SHIPPED = load_text_tokenizer(None, MINI)
NUM_RANKS = 128_000


@pytest.fixture(scope="session")
def ranks() -> list[str]:
    """Lines of a tokenizer.model: every byte, then unreachable strings up to Llama's size."""
    tokens = [bytes([i]) for i in range(256)]
    tokens += [i.to_bytes(4, "big") for i in range(256, NUM_RANKS)]
    return [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]


@pytest.fixture(scope="session")
def llama(ranks: list[str], tmp_path_factory: pytest.TempPathFactory) -> LlamaText:
    path = tmp_path_factory.mktemp("llama") / "tokenizer.model"
    path.write_text("".join(ranks))
    return LlamaText(path)


@given(st.text(max_size=40))
def test_shipped_tokenizer_round_trip(text: str) -> None:
    assert SHIPPED.decode(SHIPPED.encode(text)) == text


def test_shipped_tokenizer_fits_and_knows_the_schemas_words() -> None:
    assert SHIPPED.size <= MINI.num_text
    fields = [f for f in CODECS["clevr"].schema.fields if isinstance(f, WordField)]
    words = [word for field in fields for word in field.words]
    assert [len(SHIPPED.encode(f" {word}")) for word in words] == [1] * 15


@pytest.mark.parametrize("name", ["<|begin_of_text|>", "<|end_of_text|>"])
def test_text_cannot_spell_special_tokens(name: str, llama: LlamaText) -> None:
    """A question with "<|end_of_text|>" in it would end the sequence."""
    assert not {MINI.bos, MINI.eos} & set(SHIPPED.encode(f"a {name} b"))
    assert max(llama.encode(f"a {name} b")) < 256


def test_special_and_unknown_ids_are_shown() -> None:
    word = SHIPPED.encode(" cube")
    assert SHIPPED.decode([MINI.eos]) == "<|end_of_text|>"
    assert SHIPPED.decode([*word, 500, 511, *word]) == " cube<500><511> cube"


def test_characters_split_over_tokens_are_whole() -> None:
    ids = SHIPPED.encode("\u00e9\u4e16")
    assert len(ids) == 5
    assert SHIPPED.decode(ids) == "\u00e9\u4e16"


def test_llama_tokenizer_bytes_and_special_tokens(llama: LlamaText) -> None:
    clevr = get_vocabulary("clevr")
    assert llama.encode("a cube") == list(b"a cube")
    assert llama.decode([*b"yes", clevr.eos]) == "yes<|end_of_text|>"
    assert llama.size == clevr.num_text


def test_llama_tokenizer_decodes_every_text_id(llama: LlamaText) -> None:
    """torchtune gives Llama's 128011 no token; a model may still write it."""
    assert llama.decode([65, 128011, 66]) == "A<128011>B"
    assert all(llama.decode([i]) for i in range(128_000, 128_256))


def test_mended_tokenizer_file_is_read_again(ranks: list[str], tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_text("".join(ranks[:1000]))
    with pytest.raises(InputError, match=r"has 1000 tokens, expected 128000.*truncated"):
        LlamaText(path)
    path.write_text("".join(ranks))
    assert LlamaText(path).encode("A") == [65]


@pytest.mark.parametrize("content", ["version https://git-lfs.github.com/spec/v1\n", "\xff\xfe"])
def test_other_files_are_no_llama_tokenizer(content: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"Llama tokenizer: {re.escape(str(path))}"):
        LlamaText(path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": {"type": "BPE"'])
def test_broken_json_tokenizer(content: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}: cannot be read"):
        JsonText(path)


def test_missing_and_unsuitable_tokenizers(llama: LlamaText, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vocabulary 'clevr' needs its text tokenizer"):
        load_text_tokenizer(None, get_vocabulary("clevr"))
    for name in ("none.json", "none.model"):
        with pytest.raises(InputError, match="no such file"):
            load_text_tokenizer(tmp_path / name, MINI)
    big = Tokenizer(models.WordLevel({str(i): i for i in range(513)}, unk_token="0"))
    big.save(str(tmp_path / "big.json"))
    with pytest.raises(InputError, match="has 513 ids, but vocabulary 'mini' has room for 512"):
        load_text_tokenizer(tmp_path / "big.json", MINI)


def test_llama_tokenizer_does_not_fit_the_mini_vocabulary(ranks: list[str], tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_text("".join(ranks))
    with pytest.raises(InputError, match="has 128256 ids, but vocabulary 'mini'"):
        load_text_tokenizer(path, MINI)
    assert load_text_tokenizer(path, get_vocabulary("clevr")).encode("b") == [98]


def test_a_models_folder_stands_for_its_tokenizer(ranks: list[str], tmp_path: Path) -> None:
    clevr = get_vocabulary("clevr")
    with pytest.raises(InputError, match=str(tmp_path)):
        load_text_tokenizer(tmp_path, clevr)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer\.json: cannot be read"):
        load_text_tokenizer(tmp_path, clevr)
    for folder in ("original", "."):
        path = tmp_path / folder / "tokenizer.model"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(ranks))
        assert load_text_tokenizer(tmp_path, clevr).encode("ab") == list(b"ab")

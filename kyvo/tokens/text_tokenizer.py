"""Text <-> ids: Llama's tokenizer, or the small one that ships for the mini models."""

import os
from collections.abc import Callable, Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from tokenizers import Tokenizer
from torchtune.models.llama3 import Llama3Tokenizer

from kyvo.common.errors import InputError
from kyvo.common.files import require_file
from kyvo.tokens.interface import TextTokenizer
from kyvo.tokens.vocabulary import Vocabulary

_FILE_NAMES = ("tokenizer.model", "original/tokenizer.model", "tokenizer.json")


class LlamaText:
    """Llama 3's tokenizer, from Meta's ``tokenizer.model``."""

    def __init__(self, path: Path) -> None:
        require_file(path, "Llama tokenizer")
        # Without this tiktoken reads its own copy of the first file that had this path.
        os.environ["TIKTOKEN_CACHE_DIR"] = ""
        try:
            self._tokenizer = Llama3Tokenizer(str(path))
        except (ValueError, KeyError) as error:
            raise InputError(
                f"Llama tokenizer: {path}: cannot be read: {error}. "
                "Expected the file tokenizer.model of Llama 3."
            ) from None
        self._special = frozenset(self._tokenizer.special_tokens.values())
        if self._tokenizer.base_vocab_size != min(self._special):
            raise InputError(
                f"Llama tokenizer: {path}: has {self._tokenizer.base_vocab_size} tokens, "
                f"expected {min(self._special)}. The file may be truncated: get it again."
            )

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``."""
        return list(self._tokenizer.encode(text, add_bos=False, add_eos=False))

    def decode(self, ids: list[int]) -> str:
        """The text of ``ids``, special tokens by name, ids that have none as <id>."""
        return _decode_known(ids, self._is_known, self._decode)

    @property
    def size(self) -> int:
        """Number of ids."""
        return int(self._tokenizer.base_vocab_size) + len(self._special)

    def _is_known(self, token: int) -> bool:
        return token < self._tokenizer.base_vocab_size or token in self._special

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, truncate_at_eos=False, skip_special_tokens=False))


class JsonText:
    """A tokenizer saved by the Hugging Face ``tokenizers`` library."""

    def __init__(self, path: Path) -> None:
        require_file(path, "text tokenizer")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception
            raise InputError(
                f"text tokenizer: {path}: cannot be read: {error}. "
                "Expected a tokenizer.json of the Hugging Face tokenizers library."
            ) from None
        # A text that spells "<|end_of_text|>" does not end the sequence.
        self._tokenizer.encode_special_tokens = True

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        """The text of ``ids``, special tokens by name, ids that have none as <id>."""
        return _decode_known(ids, self._is_known, self._decode)

    @property
    def size(self) -> int:
        """Number of ids."""
        return int(self._tokenizer.get_vocab_size())

    def _is_known(self, token: int) -> bool:
        return self._tokenizer.id_to_token(token) is not None

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


def load_text_tokenizer(path: Path | None, vocabulary: Vocabulary) -> TextTokenizer:
    """The tokenizer of the file that ``find_text_tokenizer`` finds.

    Raises:
        InputError: there is no such file, or it is unreadable, or the tokenizer has more ids than
            the vocabulary's text block.
    """
    chosen = find_text_tokenizer(path, vocabulary)
    tokenizer = JsonText(chosen) if chosen.suffix == ".json" else LlamaText(chosen)
    if tokenizer.size > vocabulary.num_text:
        raise InputError(
            f"text tokenizer: {chosen} has {tokenizer.size} ids, but vocabulary "
            f"'{vocabulary.name}' has room for {vocabulary.num_text}. Give its tokenizer file."
        )
    return tokenizer


def find_text_tokenizer(path: Path | None, vocabulary: Vocabulary) -> Path:
    """The tokenizer file at ``path`` (``*.json``: Hugging Face, else Meta's), or the shipped one.

    Of a folder, as ``tune download`` fills it, the ``tokenizer.model`` there or in ``original/``
    is taken, or ``tokenizer.json``.

    Raises:
        InputError: the folder has none, or none is given and the vocabulary ships none.
    """
    if path is None and vocabulary.shipped_tokenizer is None:
        raise InputError(
            f"vocabulary '{vocabulary.name}' needs its text tokenizer, and none was given. "
            "Give one as tokenizer, such as ./llama-3-models/Llama3.2-1B/tokenizer.model, or "
            "choose a vocabulary that brings its own, such as mini."
        )
    chosen = _file_in(path) if path else _shipped(vocabulary)
    if chosen.is_dir():
        raise InputError(
            f"text tokenizer: {chosen}: none of {', '.join(_FILE_NAMES)} is there. Download it "
            "with 'tune download meta-llama/Llama-3.2-1B-Instruct' (README), or give the file."
        )
    return chosen


def _shipped(vocabulary: Vocabulary) -> Path:
    return Path(str(files(__package__).joinpath(str(vocabulary.shipped_tokenizer))))


def _file_in(path: Path) -> Path:
    """The tokenizer's file, where ``path`` is the folder of a model."""
    candidates = [path / name for name in _FILE_NAMES]
    return next((file for file in candidates if file.is_file()), path)


def _decode_known(
    ids: Sequence[int], is_known: Callable[[int], bool], decode: Callable[[list[int]], str]
) -> str:
    """``decode`` of the known ids; the libraries drop the others or fail on them."""
    return "".join(
        decode(list(group)) if known else "".join(f"<{token}>" for token in group)
        for known, group in groupby(ids, is_known)
    )

"""What the project needs of a text tokenizer, for those who are given one."""

from typing import Protocol


class TextTokenizer(Protocol):
    """What the project needs of a text tokenizer; no begin or end ids are added."""

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``."""

    def decode(self, ids: list[int]) -> str:
        """The text of ``ids``; special tokens are shown as their names, unknown ids as <id>."""

    @property
    def size(self) -> int:
        """Number of ids."""

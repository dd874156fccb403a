"""Where things are in the released data set, so that own data can be there too (DATA.md)."""

from dataclasses import dataclass
from pathlib import Path

PARTS = {
    "evaluation": "images-and-scenes-for-evaluation",
    "pretokenized": "pretokenized-data",
    "vqgan": "vqgan-models-and-codebooks",
}
"""The three folders under the root; each has one folder per data set."""

_RELEASED_SHAPE = (1024, 256)
_CODEBOOKS = {
    "clevr": "custom_vqgan_embedding_1024CLEVRLARGE_256dim.npy",
    "objaworld": ("custom_vqgan_embedding_256SYNTHETIC_LIVINGROOM_PARK_LARGE_EP100_256dim.npy"),
    "objectron": "custom_vqgan_embedding_256Omni3D-OBJECTRON_256dim.npy",
}


@dataclass(frozen=True)
class ReleasedLayout:
    """The tree of one data set under the root folder.

    Attributes:
        root: the root folder.
        dataset: such as ``clevr``.
        suffix: what follows the names of image and scene files: CLEVR's differ by task, others
            have none.
        subfolder: where CLEVR's test sets of instructions are, one file a kind.
    """

    root: Path
    dataset: str
    suffix: str = "merged_for_rendering_and_recognition"
    subfolder: str = ""

    def part(self, name: str) -> Path:
        """The data set's folder in a part of the tree, one of ``PARTS``."""
        return self.root / PARTS[name] / self.dataset

    @property
    def images(self) -> Path:
        """Pretokenised images."""
        return self.part("pretokenized") / "images"

    @property
    def scenes(self) -> Path:
        """Pretokenised scenes."""
        return self.part("pretokenized") / "3d-scenes"

    @property
    def texts(self) -> Path:
        """Pretokenised texts."""
        return self.part("pretokenized") / "text"

    @property
    def models(self) -> Path:
        """VQGAN folders and codebooks."""
        return self.part("vqgan")

    @property
    def originals(self) -> Path:
        """Images and scenes that predictions are compared with."""
        return self.part("evaluation") / "original_images"

    def image_file(self, split: str) -> Path:
        """Image codes of a split."""
        return self.images / self.subfolder / f"{split}_vqgan_indices{self._suffix}.json"

    def scene_file(self, split: str) -> Path:
        """Scene ids of a split."""
        return self.scenes / self.subfolder / f"{split}_tokenized_scenes{self._suffix}.json"

    def text_file(self, split: str, name: str) -> Path:
        """Text ids of a split, such as ``text_instructions`` or ``vqa_answers``."""
        return self.texts / self.subfolder / f"{split}_{name}.json"

    def codebook(self, shape: tuple[int, ...]) -> Path:
        """Where a codebook is: the released name is for one of the released shape."""
        released = _CODEBOOKS.get(self.dataset) if shape == _RELEASED_SHAPE else None
        return self.models / (released or "codebook.npy")

    @property
    def _suffix(self) -> str:
        return f"_{self.suffix}" if self.suffix else ""

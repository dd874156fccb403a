"""Where things lie in the released data set, so that own data can lie there too (DATA.md)."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReleasedLayout:
    """The tree of one data set, such as ``clevr``, under the root folder."""

    root: Path
    dataset: str
    # What follows the names of image and scene files: CLEVR's differ by task, others have none.
    suffix: str = "merged_for_rendering_and_recognition"

    @property
    def images(self) -> Path:
        """Pretokenised images."""
        return self.root / "pretokenized-data" / self.dataset / "images"

    @property
    def scenes(self) -> Path:
        """Pretokenised scenes."""
        return self.root / "pretokenized-data" / self.dataset / "3d-scenes"

    @property
    def texts(self) -> Path:
        """Pretokenised texts."""
        return self.root / "pretokenized-data" / self.dataset / "text"

    @property
    def models(self) -> Path:
        """VQGAN folders and codebooks."""
        return self.root / "vqgan-models-and-codebooks" / self.dataset

    @property
    def originals(self) -> Path:
        """Pictures and scenes that predictions are compared with."""
        return self.root / "images-and-scenes-for-evaluation" / self.dataset / "original_images"

    def image_file(self, split: str) -> Path:
        """Image codes of a split."""
        return self.images / f"{split}_vqgan_indices{self._suffix}.json"

    def scene_file(self, split: str) -> Path:
        """Scene ids of a split."""
        return self.scenes / f"{split}_tokenized_scenes{self._suffix}.json"

    def text_file(self, split: str, name: str) -> Path:
        """Text ids of a split, such as ``text_instructions`` or ``vqa_answers``."""
        return self.texts / f"{split}_{name}.json"

    @property
    def _suffix(self) -> str:
        return f"_{self.suffix}" if self.suffix else ""

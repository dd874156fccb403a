"""Files of generated image embeddings, decoded to images.

``FOLDER/R/{generated,ground_truth}_image_tokens_R_KEY_I.npy``, codebook vectors float32
(C, h, w), become ``OUTPUT/{GENERATED,GROUNDTRUTH}/{generated,ground_truth}_STEM.png``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from kyvo.common.errors import InputError
from kyvo.common.files import atomic_file, read_array
from kyvo.images.codec import ImageCodec
from kyvo.images.vqgan import VQGANConfig

_FOLDERS = {"generated": "GENERATED", "ground_truth": "GROUNDTRUTH"}
IMAGE_FOLDERS = tuple(_FOLDERS.values())
"""Where the decoded images go, in the folder of the output."""


@dataclass(frozen=True)
class EmbeddingFile:
    """One file of image embeddings and the image that it becomes."""

    path: Path
    kind: str
    stem: str

    def image_path(self, output: Path) -> Path:
        """Where the decoded image goes."""
        return output / _FOLDERS[self.kind] / f"{self.kind}_{self.stem}.png"


def find_vqgan(folder: Path) -> Path:
    """The VQGAN run folder in ``folder`` (or ``folder`` itself), found by its checkpoint.

    Raises:
        InputError: there is none, or more than one.
    """
    found = [path.parents[1] for path in folder.glob("**/checkpoints/last.ckpt")]
    if len(found) != 1:
        listed = ", ".join(str(path) for path in sorted(found)) or "none"
        raise InputError(
            f"VQGAN: {folder}: expected one folder with checkpoints/last.ckpt, found {listed}."
        )
    return found[0]


def find_embeddings(folder: Path) -> list[EmbeddingFile]:
    """The embedding files of a run's ``folder``, whose name is the run identifier.

    The stem is the key up to ``.png``. What follows it (ObjaWorld's environment) is kept, since
    two keys may differ in nothing else; the released code drops it and loses one of the two.

    Raises:
        InputError: no such folder, no such files, or two files of one name.
    """
    run = re.escape(folder.name)
    pattern = re.compile(rf"(generated|ground_truth)_image_tokens_{run}_(.+)_(\d+)\.npy")
    matches = [(pattern.fullmatch(path.name), path) for path in sorted(folder.glob("*.npy"))]
    files = [EmbeddingFile(path, m[1], m[2].replace(".png", "", 1)) for m, path in matches if m]
    if not files:
        raise InputError(
            f"image embeddings: {folder}: no files named generated_image_tokens_"
            f"{folder.name}_KEY_INDEX.npy. Give the folder that generate_3d.py wrote."
        )
    seen: dict[tuple[str, str], Path] = {}
    for file in files:
        other = seen.setdefault((file.kind, file.stem), file.path)
        if other != file.path:
            raise InputError(f"image embeddings: {other} and {file.path.name} are the same image.")
    return files


def decode_embeddings(codec: ImageCodec, files: Sequence[EmbeddingFile], output: Path) -> int:
    """Decode every file into its image under ``output``; the number of images.

    Raises:
        InputError: a file is not of this VQGAN.
    """
    starts = range(0, len(files), codec.batch_size)
    for start in tqdm(starts, desc="decoding", unit="batch", disable=None):
        part = files[start : start + codec.batch_size]
        vectors_BDhw = np.stack([_read(file.path, codec.config) for file in part])
        images_BHWC = codec.decode_vectors(vectors_BDhw)
        for file, image_HWC in zip(part, images_BHWC, strict=True):
            with atomic_file(file.image_path(output), durable=False) as temporary:
                Image.fromarray(image_HWC).save(temporary, format="PNG", compress_level=3)
    return len(files)


def _read(path: Path, config: VQGANConfig) -> np.ndarray:
    array = read_array(path, "image embeddings")
    side, width = config.codes_per_side, config.embed_dim
    expected = (width, side, side)
    if array.shape != expected or array.dtype != np.float32 or not np.isfinite(array).all():
        raise InputError(
            f"image embeddings: {path}: found {array.dtype} {array.shape}, expected finite "
            f"float32 {expected}. Is this the VQGAN that the images were tokenised with?"
        )
    return array

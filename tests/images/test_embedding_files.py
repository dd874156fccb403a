"""Embedding files to images: names, stems, refusals, and the pixels themselves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kyvo.common.errors import InputError
from kyvo.images.codec import ImageCodec
from kyvo.images.embedding_files import decode_embeddings, find_embeddings, find_vqgan
from kyvo.images.vqgan import VQGAN, VQGANConfig


def _touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        np.save(folder / name, np.zeros((4, 2, 2), dtype=np.float32))


def test_stems_keep_what_tells_keys_apart(tmp_path: Path) -> None:
    folder = tmp_path / "run_1"
    _touch(
        folder,
        "generated_image_tokens_run_1_CLEVR_val_000000.png_0.npy",
        "ground_truth_image_tokens_run_1_CLEVR_val_000000.png_0.npy",
        "generated_image_tokens_run_1_scene_1.png_park_1.npy",
        "generated_image_tokens_run_1_scene_1.png_livingroom_2.npy",
    )
    found = {(file.kind, file.stem) for file in find_embeddings(folder)}
    assert found == {
        ("generated", "CLEVR_val_000000"),
        ("ground_truth", "CLEVR_val_000000"),
        ("generated", "scene_1_park"),
        ("generated", "scene_1_livingroom"),
    }


def test_empty_folder_and_doubles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files named"):
        find_embeddings(tmp_path)
    folder = tmp_path / "r"
    names = [f"generated_image_tokens_r_a.png_{i}.npy" for i in (0, 1)]
    _touch(folder, *names)
    with pytest.raises(InputError, match="same image"):
        find_embeddings(folder)


@pytest.fixture(scope="module")
def model() -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(
        VQGANConfig(
            embed_dim=4, n_embed=8, z_channels=8, resolution=16, ch=32, ch_mult=(1, 1),
            num_res_blocks=1, attn_resolutions=(),
        )
    ).eval()  # fmt: skip


def test_images_hold_the_decoded_pixels(tmp_path: Path, model: VQGAN) -> None:
    codes = torch.randint(8, (3, 8, 8), generator=torch.Generator().manual_seed(1))
    vectors = model.embed_codes(codes).detach().numpy()
    folder = tmp_path / "r"
    folder.mkdir()
    for index, vector in enumerate(vectors):
        np.save(folder / f"generated_image_tokens_r_k{index}.png_{index}.npy", vector)
    files = find_embeddings(folder)
    assert decode_embeddings(ImageCodec(model, batch_size=2), files, tmp_path / "out") == 3
    with torch.no_grad():
        images = model.decode(codes)
    for index, image in enumerate(images):
        with Image.open(tmp_path / "out" / "GENERATED" / f"generated_k{index}.png") as stored:
            pixels = np.asarray(stored).astype(float)
        expected = (image.permute(1, 2, 0).numpy() + 1) * 127.5
        assert np.abs(pixels - expected).max() <= 0.51


def test_embeddings_of_another_vqgan_are_refused(tmp_path: Path, model: VQGAN) -> None:
    folder = tmp_path / "r"
    _touch(folder, "generated_image_tokens_r_a.png_0.npy")
    with pytest.raises(InputError, match=r"expected finite float32 \(4, 8, 8\)"):
        decode_embeddings(ImageCodec(model), find_embeddings(folder), tmp_path)


def test_the_only_vqgan_is_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        find_vqgan(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "last.ckpt").touch()
        if name == "one":
            assert find_vqgan(tmp_path) == tmp_path / "one"
    with pytest.raises(InputError, match="expected one folder"):
        find_vqgan(tmp_path)

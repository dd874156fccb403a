import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqgan_fixtures import SMALL, named_tensor, random_images, with_named_weights

from kyvo.common.errors import InputError
from kyvo.images.codec import ImageCodec
from kyvo.images.quantizers import as_rows, nearest_codes
from kyvo.images.vqgan import VQGAN, VQGANConfig

GOLDEN = json.loads((Path(__file__).parents[1] / "goldens/vqgan/golden.json").read_text())
GUMBEL = dataclasses.replace(SMALL, quantizer="gumbel", embed_dim=16)


@pytest.mark.parametrize("case", ["tiny", pytest.param("full", marks=pytest.mark.slow)])
@torch.inference_mode()
def test_matches_the_reference(case: str) -> None:
    golden = GOLDEN[case]
    shape = {k: tuple(v) if isinstance(v, list) else v for k, v in golden["cfg"].items()}
    config = VQGANConfig(embed_dim=golden["embed_dim"], n_embed=golden["n_embed"], **shape)
    model = VQGAN(config).eval()
    keys = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert keys == golden["keys"]
    model.load_state_dict({name: named_tensor(name, tuple(s)) for name, s in keys.items()})
    side = config.resolution
    noise = np.random.default_rng(4).uniform(-1, 1, (1, 3, side, side)).astype(np.float32)

    features = model.features(torch.from_numpy(noise))
    codes = model.quantize.codes(features)
    output = model.decode_embeddings(model.embed_codes(codes))

    assert features.mean().item() == pytest.approx(golden["pre_quant_mean"], abs=1e-5)
    assert features.std().item() == pytest.approx(golden["pre_quant_std"], abs=1e-5)
    assert codes.flatten().tolist() == golden["indices"]
    assert codes.shape[1:] == (config.codes_per_side,) * 2
    assert output.mean().item() == pytest.approx(golden["decoded_mean"], abs=1e-4)
    assert output.std().item() == pytest.approx(golden["decoded_std"], abs=1e-4)
    np.testing.assert_allclose(output[0, :, :6, :6], golden["decoded_corner"], atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 20), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_nearest_codes_are_nearest(seed: int, num_vectors: int, num_codes: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, codebook = (
        rng.standard_normal((num_vectors, dim)),
        rng.standard_normal((num_codes, dim)),
    )
    found = nearest_codes(torch.from_numpy(vectors), torch.from_numpy(codebook)).numpy()
    distances = np.linalg.norm(vectors[:, None] - codebook[None], axis=2) ** 2
    chosen = distances[np.arange(num_vectors), found]
    np.testing.assert_allclose(chosen, distances.min(axis=1), atol=1e-5)


def test_ties_take_the_first_code() -> None:
    codebook = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    assert nearest_codes(torch.tensor([[0.0, 3.0], [2.0, 0.0]]), codebook).tolist() == [0, 0]


def test_rows_run_in_raster_order() -> None:
    maps = torch.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    rows = as_rows(maps)
    assert rows[1].tolist() == maps[0, :, 0, 1].tolist()
    assert rows[6].tolist() == maps[1, :, 1, 0].tolist()


@torch.inference_mode()
def test_gumbel_codes_match_a_naive_argmax() -> None:
    model = with_named_weights(VQGAN(GUMBEL))
    images = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (2, 3, 32, 32))).float()
    features = model.features(images).double().numpy()
    weight = model.quantize.proj.weight.double().numpy()[:, :, 0, 0]
    bias = model.quantize.proj.bias.double().numpy()
    expected = np.einsum("bchw,kc->bhwk", features, weight) + bias
    assert model.encode(images).numpy().tolist() == expected.argmax(-1).tolist()


def test_gumbel_has_the_reference_names() -> None:
    model = VQGAN(GUMBEL)
    keys = {k: tuple(v.shape) for k, v in model.state_dict().items() if k.startswith("quantize")}
    assert keys == {
        "quantize.proj.weight": (32, 16, 1, 1),
        "quantize.proj.bias": (32,),
        "quantize.embed.weight": (32, 16),
    }


@pytest.mark.parametrize("config", [SMALL, GUMBEL])
def test_images_to_codes_and_back(config: VQGANConfig) -> None:
    model = with_named_weights(VQGAN(config))
    codes = ImageCodec(model, batch_size=2).encode(random_images(5))
    assert codes.shape == (5, 8, 8)
    assert codes.dtype == np.int64
    assert len(np.unique(codes)) > 3
    images = ImageCodec(model, batch_size=3).decode(codes)
    assert images.shape == (5, 32, 32, 3)
    assert images.dtype == np.uint8


@torch.inference_mode()
def test_decode_clamps_what_embeddings_do_not() -> None:
    model = with_named_weights(VQGAN(SMALL))
    with torch.no_grad():
        model.decoder.conv_out.weight.mul_(20)
    codes = torch.arange(64).remainder(32).view(1, 8, 8)
    free = model.decode_embeddings(model.codebook[codes].permute(0, 3, 1, 2))
    assert free.abs().max() > 1
    assert torch.equal(model.decode(codes), free.clamp(-1, 1))


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_codes_do_not_depend_on_the_batch(batch_size: int) -> None:
    model = with_named_weights(VQGAN(SMALL))
    images = random_images(7)
    order = np.random.default_rng(3).permutation(7)
    expected = ImageCodec(model, batch_size=7).encode(images)
    found = ImageCodec(model, batch_size=batch_size).encode(images[order])
    assert np.array_equal(found, expected[order])


def test_bfloat16_changes_few_codes_and_leaves_the_model_alone() -> None:
    model, images = with_named_weights(VQGAN(SMALL)), random_images(6)
    codes = ImageCodec(model).encode(images)
    fast = ImageCodec(model, precision="bf16")
    assert (fast.encode(images) == codes).mean() > 0.85
    difference = fast.decode(codes).astype(int) - ImageCodec(model).decode(codes)
    assert abs(difference).mean() < 2
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())


def test_code_vectors_decode_as_their_codes() -> None:
    codec = ImageCodec(with_named_weights(VQGAN(SMALL)))
    codes = np.random.default_rng(4).integers(0, 32, (3, 8, 8))
    table_KD = with_named_weights(VQGAN(SMALL)).codebook.detach().numpy()
    vectors_NDhw = np.moveaxis(table_KD[codes], -1, 1)
    assert np.array_equal(codec.decode_vectors(vectors_NDhw), codec.decode(codes))


@pytest.mark.gpu
def test_the_fast_codec_on_the_gpu_agrees_with_the_exact_one() -> None:
    model, images = with_named_weights(VQGAN(SMALL)), random_images(7)
    codes = ImageCodec(model).encode(images)
    fast = ImageCodec(model, "cuda", 4, "bf16", compiled=True)
    assert (fast.encode(images) == codes).mean() > 0.85
    difference = fast.decode(codes).astype(int) - ImageCodec(model).decode(codes)
    assert abs(difference).mean() < 2


def test_downsampling_factor() -> None:
    assert SMALL.downsampling_factor == 4
    assert dataclasses.replace(SMALL, ch_mult=(1, 1, 2, 2, 4)).downsampling_factor == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ch": 48}, "multiple of num_groups 32"),
        ({"resolution": 30}, "multiple of 4"),
        ({"double_z": True}, "double_z"),
        ({"num_res_blocks": 0}, "positive"),
        ({"ch_mult": ()}, "ch_mult"),
        ({"dropout": 1.0}, "dropout"),
        ({"quantizer": "gumbel"}, "embed_dim"),
    ],
)
def test_impossible_shapes_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SMALL, **change)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((1, 30, 32, 3), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
    ],
)
def test_wrong_images_are_refused(images: np.ndarray) -> None:
    with pytest.raises(InputError, match="images: found"):
        ImageCodec(VQGAN(SMALL)).encode(images)


@pytest.mark.parametrize("bad", [-1, 32])
def test_codes_outside_the_codebook_are_refused(bad: int) -> None:
    codes = np.zeros((3, 8, 8), np.int64)
    codes[2, 1, 1] = bad
    with pytest.raises(InputError, match=f"{bad} in image 2 is outside 0..31"):
        ImageCodec(VQGAN(SMALL)).decode(codes)


def test_float_codes_are_refused() -> None:
    with pytest.raises(InputError, match="expected integers"):
        ImageCodec(VQGAN(SMALL)).decode(np.zeros((1, 8, 8)))

"""Ways in for images: against masks, plain convolutions, and what must not matter."""

import pytest
import torch
import torch.nn.functional as F
from kyvo_stand_ins import TINY_SIZES

from kyvo.common.errors import InputError
from kyvo.images.preprocessing import to_model_range
from kyvo.models import kyvo_model, load_released_state, released_state_dict
from kyvo.models.llama import Prefix, prefix_attention
from kyvo.tokens.vocabulary import get_vocabulary

VOCABULARY = get_vocabulary("mini")
IMAGE_START, IMAGE_END = VOCABULARY.brackets("image")
NUM_TOKENS, SIZE = 4, 8


def build(**options):
    torch.manual_seed(0)
    image_input = {"num_tokens": NUM_TOKENS, "image_size": SIZE, **options}
    model = kyvo_model(vocabulary=VOCABULARY, **TINY_SIZES, image_input=image_input)
    model.tok_embeddings.set_codebook(torch.randn(512, TINY_SIZES["codebook_dim"]))
    return model.eval()


def prompts(length=12):
    """Two samples that open with an image and one that opens with a scene."""
    torch.manual_seed(1)
    ids_BL = torch.randint(2, 500, (3, length))
    codes_BP = VOCABULARY.image.start + torch.randint(512, (3, NUM_TOKENS))
    ids_BL[:, 0] = VOCABULARY.bos
    ids_BL[:2, 1] = IMAGE_START
    ids_BL[:2, 2 : 2 + NUM_TOKENS] = codes_BP[:2]
    ids_BL[:2, 2 + NUM_TOKENS] = IMAGE_END
    return ids_BL


def images(seed=2):
    torch.manual_seed(seed)
    return torch.randint(256, (3, SIZE, SIZE, 3), dtype=torch.uint8)


@pytest.mark.parametrize("groups", [1, 2])
def test_prefix_attention_is_attention_under_its_mask(groups):
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 9, heads, 8) for heads in (4, 4 // groups, 4 // groups))
    samples_B = torch.tensor([True, False, True])
    rows, columns = torch.arange(9)[:, None], torch.arange(9)
    within = (rows < 5) & (columns < 5)
    mask_BLL = (columns <= rows) | (within & samples_B[:, None, None])
    expected = F.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), attn_mask=mask_BLL[:, None], enable_gqa=groups > 1
    ).transpose(1, 2)
    found = prefix_attention(q, k, v, Prefix(5, samples_B))
    torch.testing.assert_close(found, expected)


def test_a_prefix_longer_than_the_batch_is_no_prefix():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 2, 8) for _ in range(3))
    found = prefix_attention(q, k, v, Prefix(5, torch.tensor([False, False])))
    torch.testing.assert_close(found, prefix_attention(q, k, v, None))


@torch.no_grad()
def test_pixels_take_the_place_of_codes():
    model, ids_BL, pixels = build(kind="pixels"), prompts(), images()
    logits = model(ids_BL, pixels_BHWC=pixels)
    other_ids, other_pixels = ids_BL.clone(), images(3)
    other_ids[:2, 2 : 2 + NUM_TOKENS] = VOCABULARY.image.start
    torch.testing.assert_close(model(other_ids, pixels_BHWC=pixels), logits)
    changed = model(ids_BL, pixels_BHWC=other_pixels)
    assert (changed[:2, 2:] - logits[:2, 2:]).abs().amax(-1).min() > 1e-4
    torch.testing.assert_close(changed[2], logits[2])
    torch.testing.assert_close(changed[:, :2], logits[:, :2])


@torch.no_grad()
def test_the_stem_is_its_convolutions_in_raster_order():
    model, pixels = build(kind="pixels", channels=8), images()
    weights = dict(model.image_input.named_parameters())
    x = to_model_range(pixels)
    x = F.gelu(F.conv2d(x, *convolution(weights, 0), stride=2, padding=2))
    x = F.gelu(F.conv2d(x, *convolution(weights, 2), stride=2, padding=1))
    expected = F.conv2d(x, *convolution(weights, 4))
    h = torch.zeros(3, 12, TINY_SIZES["embed_dim"])
    found = model.image_input(h, prompts(), model.tok_embeddings, pixels)
    for row in range(2):
        for column in range(2):
            place = 2 + 2 * row + column
            torch.testing.assert_close(found[:2, place], expected[:2, :, row, column])


def convolution(weights, layer):
    return weights[f"encoder.{layer}.weight"], weights[f"encoder.{layer}.bias"]


@torch.no_grad()
def test_a_grid_adds_convolved_code_vectors():
    model, ids_BL = build(kind="grid"), prompts()
    codes = ids_BL[:2, 2 : 2 + NUM_TOKENS] - VOCABULARY.image.start
    vectors = model.tok_embeddings.vqgan_codebook.weight[codes].view(2, 2, 2, -1)
    expected = model.image_input.encoder(vectors.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    h = model.tok_embeddings(ids_BL)
    found = model.image_input(h, ids_BL, model.tok_embeddings)
    added = (found - h)[:2, 2 : 2 + NUM_TOKENS]
    torch.testing.assert_close(added, expected.reshape(2, NUM_TOKENS, -1))
    torch.testing.assert_close(found[2], h[2])


@torch.no_grad()
@pytest.mark.parametrize("is_prefix", [False, True])
def test_the_first_token_sees_the_whole_image_with_a_prefix_only(is_prefix):
    model, ids_BL = build(prefix=is_prefix), prompts()
    other = ids_BL.clone()
    other[:, 1 + NUM_TOKENS] = VOCABULARY.image.start + 7
    changed = (model(other) - model(ids_BL)).abs().amax(-1)
    assert bool(changed[0, 2] > 1e-6) is is_prefix
    assert changed[2, 2] == 0


@torch.no_grad()
def test_positions_tell_tokens_of_one_code_apart():
    ids_BL = prompts()
    ids_BL[:, 2 : 2 + NUM_TOKENS] = VOCABULARY.image.start
    for has_positions in (False, True):
        model = build(positions=has_positions, prefix=True)
        h = model.image_input(model.tok_embeddings(ids_BL), ids_BL, model.tok_embeddings)
        tokens = h[0, 2 : 2 + NUM_TOKENS]
        assert len(tokens.unique(dim=0)) == (NUM_TOKENS if has_positions else 1)


def test_every_weight_learns():
    model = build(kind="pixels", positions=True, prefix=True)
    model(prompts(), pixels_BHWC=images()).square().sum().backward()
    for name, parameter in model.image_input.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_the_papers_way_has_no_part_for_images():
    model = kyvo_model(vocabulary=VOCABULARY, **TINY_SIZES)
    assert model.image_input is None
    assert not [name for name in model.state_dict() if name.startswith("image_input")]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"kind": "grid", "num_tokens": 5}, "square"),
        ({"prefix": True, "num_tokens": 0}, "square"),
        ({"kind": "pixels", "image_size": 10}, "pixels a token"),
        ({"kind": "pixel"}, "expected codes, grid, pixels"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options, word):
    with pytest.raises(InputError, match=word):
        build(**options)


def test_weights_go_out_and_come_back():
    """Those that Llama has no name for keep their own."""
    options = {"kind": "pixels", "positions": True}
    model = build(**options)
    state = released_state_dict(model)
    assert {k for k in state if k.startswith("image_input.")} == {
        f"image_input.{name}" for name, _ in model.image_input.named_parameters()
    }
    other = build(**options)
    for parameter in other.parameters():
        parameter.data.zero_()
    load_released_state(other, state, "test")
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name

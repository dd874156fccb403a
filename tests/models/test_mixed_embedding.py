"""The mixed embedding: values of the released models, ids at the edges, who gets gradients.

Shapes: B samples, L positions, D width.
"""

import numpy as np
import pytest
import torch
from kyvo_stand_ins import MINI_CODEBOOK, golden, golden_model, tiny_model

from kyvo.models.embedding import MixedEmbedding, sin_cos_table
from kyvo.tokens.vocabulary import SCENE_START, get_vocabulary

VARIANTS = ("sin_cos_plus_learned", "sin_cos", "learned", "mlp_projector")
MINI_VARIANTS = (
    {"number_embedding": "sin_cos_plus_learned"},
    {"number_embedding": "sin_cos"},
    {"number_embedding": "learned"},
    {"image_projection": "mlp"},
)
# The row of the goldens: ids of all blocks, the first and last of each among them.
GOLDEN_IDS = [128000, 129466, 129471, 129472, 130494, 129467, 129470, 129457, 129459, 129461]
GOLDEN_IDS += [500, 128256, 128856, 129456, 129460, 129458, 128001]


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_and_shapes_are_those_of_the_released_models(variant):
    shapes = {name: list(value.shape) for name, value in golden_model(variant).state_dict().items()}
    assert shapes == golden("embeddings.json")[variant]["keys"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_values_are_those_of_the_released_models(variant):
    with torch.no_grad():
        found_LD = golden_model(variant).tok_embeddings(torch.tensor([GOLDEN_IDS]))[0]
    expected_LD = torch.tensor(golden("embeddings.json")[variant]["embedding_bf16"])
    # The golden rounds its weights, their sums and products to bfloat16.
    torch.testing.assert_close(found_LD, expected_LD, rtol=2e-2, atol=2e-2)


def test_sin_cos_table_is_the_closed_form():
    width, rows = 12, 30
    expected = np.array(
        [
            [(np.sin, np.cos)[i % 2](p / 10000 ** (2 * (i // 2) / width)) for i in range(width)]
            for p in range(rows)
        ]
    )
    np.testing.assert_allclose(sin_cos_table(rows, width).numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("bad_id", [-1, get_vocabulary("mini").size])
def test_an_id_in_no_block_raises(bad_id, is_frozen):
    embedding = tiny_model().tok_embeddings
    if is_frozen:
        embedding.materialize_table()
    with pytest.raises(IndexError):
        embedding(torch.tensor([[5, bad_id]]))


@pytest.mark.parametrize("choices", MINI_VARIANTS, ids=str)
def test_the_frozen_table_equals_the_forward_pass(choices):
    embedding = tiny_model(**choices).tok_embeddings
    ids_BL = torch.arange(get_vocabulary("mini").size)[None]
    with torch.no_grad():
        before_BLD = embedding(ids_BL)
        embedding.materialize_table()
        torch.testing.assert_close(embedding(ids_BL), before_BLD, rtol=0, atol=1e-6)


def test_objectron_embeds_scene_start_as_the_last_number_row():
    vocabulary = get_vocabulary("objectron")
    embedding = MixedEmbedding(vocabulary, width=8)
    scene_start = vocabulary.marker_id(SCENE_START)
    assert scene_start == 128359
    assert embedding.numbers_embedding.weight.shape[0] == 104
    with torch.no_grad():
        found_D = embedding(torch.tensor([[scene_start, scene_start + 1]]))[0]
    expected_D = embedding.numbers_embedding.weight[103] + embedding.static_sin_cos_embedding(
        torch.tensor(103)
    )
    torch.testing.assert_close(found_D[0], expected_D)
    torch.testing.assert_close(found_D[1], embedding.added_embedding.weight[0])


def test_image_codes_are_projected_codebook_rows():
    model = tiny_model()
    image = get_vocabulary("mini").image
    codes = np.array([0, 17, 511])
    with torch.no_grad():
        found_LD = model.tok_embeddings(torch.from_numpy(codes + image.start)[None])[0]
    projection = model.tok_embeddings.vqgan_embed_proj.weight.detach().numpy()
    np.testing.assert_allclose(found_LD, MINI_CODEBOOK[codes] @ projection.T, atol=1e-5)


def test_gradients_reach_new_rows_and_never_the_fixed_tables():
    embedding = tiny_model().tok_embeddings
    vocabulary = get_vocabulary("mini")
    ids = [5, vocabulary.number.start, vocabulary.marker.start, vocabulary.image.start]
    embedding(torch.tensor([ids])).square().sum().backward()
    names = {name for name, p in embedding.named_parameters() if p.grad is not None}
    assert names == {
        "numbers_embedding.weight",
        "added_embedding.weight",
        "vqgan_embed_proj.weight",
    }
    touched = embedding.numbers_embedding.weight.grad.abs().sum(dim=1).nonzero().flatten()
    assert touched.tolist() == [0]


def test_text_rows_train_only_on_request():
    ids_BL = torch.tensor([[5]])
    embedding = tiny_model(train_text_embedding=True).tok_embeddings
    embedding(ids_BL).sum().backward()
    assert embedding.token_embedding.weight.grad[5].eq(1).all()
    assert not tiny_model().tok_embeddings.token_embedding.weight.requires_grad

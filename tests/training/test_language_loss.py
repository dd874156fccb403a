"""The loss against the released code's values, naive loops, and itself in other arrangements.

Shapes: B samples, L positions, D width, N labelled positions, V ids.
"""

import math
from functools import partial

import pytest
import torch
from kyvo_stand_ins import golden, sources, tiny_model, write_data
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from kyvo.data.batches import LossWeighting, collate
from kyvo.data.dataset import kyvo_dataset
from kyvo.tokens.sequences import IGNORED_LABEL, Sample
from kyvo.tokens.vocabulary import get_vocabulary
from kyvo.training import language_loss, loss_weight
from kyvo.training.loss import compiled_score, head_loss

LOSSES = golden("losses.json")


class FixedLogits(nn.Module):
    """A model that answers with given logits, whatever it reads."""

    def __init__(self, logits_BLV):
        super().__init__()
        num_ids = logits_BLV.shape[-1]
        self.logits_BLV, self.output = logits_BLV, nn.Linear(num_ids, num_ids, bias=False)
        nn.init.eye_(self.output.weight)

    def hidden_states(self, _tokens_BL, positions_N):
        return self.logits_BLV.flatten(0, 1)[positions_N]


def golden_batch(row):
    case = next(r for r in LOSSES if r["case"] == row["case"] and "logits" in r)
    samples = []
    for i, labels in enumerate(case["labels"]):
        labels_L = torch.tensor(labels).numpy()
        first = int((labels_L != IGNORED_LABEL).argmax())
        samples.append((str(i), Sample(labels_L.clip(0), labels_L, first, first + 1)))
    weighting = LossWeighting(row["weight_first_positions"], row["weight"])
    return torch.tensor(case["logits"])[:, :-1], collate(samples, weighting)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    paths = write_data(tmp_path_factory.mktemp("data"), num_samples=6)
    dataset = kyvo_dataset(
        vocabulary=get_vocabulary("mini"),
        task="3-I",
        codes_per_image=16,
        **sources(paths, "three_d_source", "image_source"),
    )
    return [dataset[i] for i in range(len(dataset))]


def value_and_gradients(model, batch, normalization="valid", chunk=0):
    model.zero_grad()
    loss = language_loss(model, batch, normalization, chunk).total
    (loss / loss_weight(batch, normalization)).backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.trainable_parameters().items()}


@pytest.mark.parametrize("index", range(len(LOSSES)))
def test_reference_normalization_gives_the_released_codes_loss(index):
    logits_BLV, batch = golden_batch(LOSSES[index])
    sums = language_loss(FixedLogits(logits_BLV), batch, "reference")
    found = sums.total.item() / loss_weight(batch, "reference")
    assert found == pytest.approx(LOSSES[index]["loss"], rel=1e-5)


def naive_rows(weighting):
    """For every row of the first case: weighted losses of its labels, weights, hits."""
    case = LOSSES[0]
    for row_logits, row_labels in zip(case["logits"], case["labels"], strict=True):
        losses, weights, hits = [], [], 0
        for scores, label in zip(row_logits, row_labels[1:], strict=False):
            if label == IGNORED_LABEL:
                continue
            in_window = 1 <= len(losses) <= weighting["weight_first_positions"]
            weights.append(weighting["weight"] if in_window else 1.0)
            nats = math.log(sum(map(math.exp, scores))) - scores[label]
            losses.append(weights[-1] * nats)
            hits += max(scores) == scores[label]
        yield sum(losses), sum(weights), hits


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("normalization", ["valid", "sample"])
def test_normalizations_are_means_over_labels_or_over_rows(index, normalization):
    logits_BLV, batch = golden_batch(LOSSES[index])
    losses, weights, hits = zip(*naive_rows(LOSSES[index]), strict=True)
    expected = {
        "valid": sum(losses) / sum(weights),
        "sample": sum(a / b for a, b in zip(losses, weights, strict=True)) / len(losses),
    }
    sums = language_loss(FixedLogits(logits_BLV), batch, normalization)
    found = sums.total.item() / loss_weight(batch, normalization)
    assert found == pytest.approx(expected[normalization], rel=1e-5)
    assert int(sums.correct) == sum(hits)


def test_labelled_positions_alone_give_the_full_heads_loss_and_gradients(samples):
    model = tiny_model()
    batch = collate(samples, LossWeighting())
    _, gradients = value_and_gradients(model, batch)
    labels_BL = torch.full(batch.tokens_BL.shape, IGNORED_LABEL).flatten()
    labels_BL[batch.positions_N] = batch.labels_N
    model.zero_grad()
    logits_BLV = model(batch.tokens_BL)
    full = nn.functional.cross_entropy(logits_BLV.flatten(0, 1), labels_BL)
    full.backward()
    mean = language_loss(model, batch).total / loss_weight(batch, "valid")
    torch.testing.assert_close(mean, full)
    for name, parameter in model.trainable_parameters().items():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("normalization", ["valid", "sample", "reference"])
@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_chunks_of_the_head_change_nothing(samples, normalization, chunk):
    model = tiny_model()
    batch = collate(samples, LossWeighting(5, 10.0))
    loss, gradients = value_and_gradients(model, batch, normalization)
    chunked, chunked_gradients = value_and_gradients(model, batch, normalization, chunk)
    torch.testing.assert_close(chunked, loss)
    torch.testing.assert_close(chunked_gradients, gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("normalization", ["valid", "sample", "reference"])
def test_two_accumulated_parts_give_the_whole_batchs_gradient(samples, normalization):
    model = tiny_model()
    weighting = LossWeighting(5, 10.0)
    # The reference averages over padded positions, so parts must be padded alike.
    ordered = sorted(samples, key=lambda item: len(item[1].tokens))
    same = [item for item in ordered if len(item[1].tokens) == len(ordered[0][1].tokens)]
    rows = same if normalization == "reference" else ordered
    assert len(rows) > 1
    parts = [collate(rows[:1], weighting), collate(rows[1:], weighting)]
    _, whole = value_and_gradients(model, collate(rows, weighting), normalization)
    model.zero_grad()
    weight = sum(loss_weight(part, normalization) for part in parts)
    for part in parts:
        (language_loss(model, part, normalization).total / weight).backward()
    added = {n: p.grad for n, p in model.trainable_parameters().items()}
    torch.testing.assert_close(added, whole, atol=1e-5, rtol=1e-4)


def plain_head(hidden_ND, head_VD, labels_N, weights_N):
    """The formula: logits, log-softmax, all gradients by autograd."""
    logits_NV = nn.functional.linear(hidden_ND, head_VD)
    losses_N = nn.functional.cross_entropy(logits_NV, labels_N, reduction="none")
    return (losses_N * weights_N).sum(), (logits_NV.argmax(-1) == labels_N).sum()


def head_inputs(dtype=torch.float64, num_labels=11, num_ids=29, scale=1.0):
    torch.manual_seed(2)
    hidden_ND = torch.randn(num_labels, 6, dtype=dtype).mul_(scale).requires_grad_()
    head_VD = torch.randn(num_ids, 6, dtype=dtype, requires_grad=True)
    return hidden_ND, head_VD, torch.randint(num_ids, (num_labels,)), torch.rand(num_labels) + 0.5


def gradients_of(function, inputs, *choices, scale=0.7):
    loss, hits = function(*inputs, *choices)
    return loss.detach(), hits, *torch.autograd.grad(loss * scale, inputs[:2])


@pytest.mark.parametrize("chunk", [0, 1, 4, 11, 50])
def test_the_fused_head_is_the_formula(chunk):
    inputs = head_inputs()
    found, expected = gradients_of(head_loss, inputs, chunk), gradients_of(plain_head, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("num_ids", [29, 32, 33])
@pytest.mark.parametrize("chunk", [0, 4])
def test_padding_the_ids_changes_nothing(num_ids, chunk):
    inputs = head_inputs(num_ids=num_ids)
    padded = gradients_of(partial(head_loss, alignment=16), inputs, chunk)
    torch.testing.assert_close(padded, gradients_of(plain_head, inputs), rtol=1e-6, atol=1e-7)


def test_the_fused_heads_gradient_is_the_slope():
    """Central differences in float64, of every number."""
    inputs = head_inputs(num_labels=3, num_ids=5)
    inputs = (*inputs[:3], inputs[3].double())
    _, _, *gradients = gradients_of(head_loss, inputs, 2, scale=1.0)
    for tensor, gradient in zip(inputs[:2], gradients, strict=True):
        for place in torch.cartesian_prod(*map(torch.arange, tensor.shape)).tolist():
            ends = []
            for change in (1e-6, -2e-6):
                tensor.data[tuple(place)] += change
                ends.append(head_loss(*inputs)[0].item())
            tensor.data[tuple(place)] += 1e-6
            slope = (ends[0] - ends[1]) / 2e-6
            assert slope == pytest.approx(gradient[tuple(place)].item(), abs=1e-7)


@pytest.mark.parametrize("frozen", [0, 1])
def test_only_what_is_trained_gets_a_gradient(frozen):
    inputs = head_inputs()
    expected = gradients_of(plain_head, inputs)[3 - frozen]
    inputs[frozen].requires_grad_(False)
    trained = inputs[1 - frozen]
    (head_loss(*inputs, 4)[0] * 0.7).backward()
    torch.testing.assert_close(trained.grad, expected, rtol=1e-6, atol=1e-7)
    assert inputs[frozen].grad is None


def test_validation_makes_the_same_loss_and_no_gradient():
    inputs = head_inputs()
    expected = plain_head(*inputs)
    with torch.no_grad():
        found = head_loss(*inputs, 4)
    assert not found[0].requires_grad
    torch.testing.assert_close(found[0], expected[0].detach(), rtol=1e-6, atol=1e-7)
    assert found[1] == expected[1]


def test_a_batch_without_labels_has_no_loss():
    loss, hits, *gradients = gradients_of(head_loss, head_inputs(num_labels=0), 4)
    assert (loss, hits) == (0, 0)
    assert all((gradient == 0).all() for gradient in gradients)


def test_no_logits_outlive_their_chunk_and_gradients_are_not_copied():
    inputs = head_inputs(torch.float32, num_labels=40, num_ids=50)
    loss, _ = head_loss(*inputs, 8)
    saved = loss.grad_fn.saved_tensors
    assert [tensor.shape for tensor in saved] == [(40, 6), (50, 6)]
    kept = [tensor.data_ptr() for tensor in saved]
    del saved
    loss.backward()
    assert [tensor.grad.data_ptr() for tensor in inputs[:2]] == kept


def test_a_second_backward_pass_is_refused():
    loss, _ = head_loss(*head_inputs())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("chunk", [0, 16])
def test_autocast_rounds_products_but_not_the_sure_labels_gradient(chunk):
    """Logits of 20 and more: probabilities within 2^-9 of one would round to it."""
    inputs = head_inputs(torch.float32, num_labels=64, scale=4.0)
    inputs = (*inputs[:2], (inputs[0] @ inputs[1].T).argmax(-1), inputs[3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients_of(head_loss, inputs, chunk)
        expected = gradients_of(plain_head, inputs)
    assert found[2].dtype == found[3].dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.01)
    sure_N = torch.softmax(inputs[0] @ inputs[1].T, -1).amax(-1) > 1 - 2**-9
    assert sure_N.sum() > 5
    assert (found[2][sure_N].norm(dim=-1) > 0).float().mean() > 0.9


def test_bfloat16_chunks_are_summed_in_float32():
    inputs = head_inputs(torch.bfloat16, num_labels=512, num_ids=4)
    exact = gradients_of(
        plain_head, [t.detach().float().requires_grad_() for t in inputs[:2]] + list(inputs[2:])
    )
    whole, chunked = (gradients_of(head_loss, inputs, chunk)[3] for chunk in (0, 1))
    errors = [(gradient.float() - exact[3]).norm() for gradient in (whole, chunked)]
    assert chunked.dtype == torch.bfloat16
    assert errors[1] < 1.5 * errors[0]


def test_the_compiled_score_is_compiled_once_and_changes_nothing():
    counter = CompileCounterWithBackend("aot_eager")
    score = compiled_score(backend=counter)
    for num_labels in (11, 7, 40, 23):
        inputs = head_inputs(torch.float32, num_labels)
        found = gradients_of(head_loss, inputs, 0, score)
        torch.testing.assert_close(found, gradients_of(head_loss, inputs))
    assert counter.frame_count == 1

"""The loss against the released code's values, naive loops, and itself in other arrangements.

Shapes: B samples, L positions, D width, N labelled positions, V ids.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from kyvo_stand_ins import golden, sources, tiny_model, write_data
from torch import nn

from kyvo.data.batches import LossWeighting, collate
from kyvo.data.dataset import kyvo_dataset
from kyvo.tokens.sequences import IGNORED_LABEL, Sample
from kyvo.tokens.vocabulary import get_vocabulary
from kyvo.training import language_loss, loss_weight
from kyvo.training.loss import SoftNumbers

LOSSES = golden("losses.json")


class FixedLogits(nn.Module):
    """A model that answers with given logits, whatever it reads."""

    def __init__(self, logits_BLV):
        super().__init__()
        num_ids = logits_BLV.shape[-1]
        self.logits_BLV, self.output = logits_BLV, nn.Linear(num_ids, num_ids, bias=False)
        nn.init.eye_(self.output.weight)

    def hidden_states(self, _tokens_BL, positions_N, pixels_BHWC=None):
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
    """For every row of the first case: weighted losses of its labels, weights, correct labels."""
    case = LOSSES[0]
    for row_logits, row_labels in zip(case["logits"], case["labels"], strict=True):
        losses, weights, correct = [], [], 0
        for scores, label in zip(row_logits, row_labels[1:], strict=False):
            if label == IGNORED_LABEL:
                continue
            in_window = 1 <= len(losses) <= weighting["weight_first_positions"]
            weights.append(weighting["weight"] if in_window else 1.0)
            nats = math.log(sum(map(math.exp, scores))) - scores[label]
            losses.append(weights[-1] * nats)
            correct += max(scores) == scores[label]
        yield sum(losses), sum(weights), correct


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("normalization", ["valid", "sample"])
def test_normalizations_are_means_over_labels_or_over_rows(index, normalization):
    logits_BLV, batch = golden_batch(LOSSES[index])
    losses, weights, correct = zip(*naive_rows(LOSSES[index]), strict=True)
    expected = {
        "valid": sum(losses) / sum(weights),
        "sample": sum(a / b for a, b in zip(losses, weights, strict=True)) / len(losses),
    }
    sums = language_loss(FixedLogits(logits_BLV), batch, normalization)
    found = sums.total.item() / loss_weight(batch, normalization)
    assert found == pytest.approx(expected[normalization], rel=1e-5)
    assert int(sums.correct) == sum(correct)


def test_a_row_that_asks_several_times_counts_as_many_samples():
    logits_BLV, batch = golden_batch(LOSSES[0])
    losses, weights, _ = zip(*naive_rows(LOSSES[0]), strict=True)
    turns = [1 + row % 3 for row in range(len(losses))]
    batch = replace(batch, turns_B=torch.tensor(turns, dtype=torch.float32))
    means = [a / b for a, b in zip(losses, weights, strict=True)]
    expected = sum(n * mean for n, mean in zip(turns, means, strict=True)) / sum(turns)
    total = language_loss(FixedLogits(logits_BLV), batch, "sample").total.item()
    assert total / loss_weight(batch, "sample") == pytest.approx(expected, rel=1e-5)
    assert turns != [1] * len(turns)


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


def test_a_soft_number_is_a_gaussian_around_its_true_value():
    """The closed form over the grid of 0.05; labels that are no numbers stay alone."""
    vocabulary = get_vocabulary("mini")
    label, marker = vocabulary.number_id("0.500"), vocabulary.marker.start
    soft = SoftNumbers(vocabulary, 0.04, torch.device("cpu"))
    targets = soft.targets(torch.tensor([label, marker]), torch.tensor([0.02, 0.0]))
    grid = np.array([float(string) for string in vocabulary.numbers])
    density = np.exp(-0.5 * ((grid - 0.52) / 0.04) ** 2)
    np.testing.assert_allclose(targets.targets_NK[0], density / density.sum(), atol=1e-6)
    assert targets.is_soft_N.tolist() == [True, False]
    assert not targets.targets_NK[1].any()
    assert float(targets.targets_NK[0] @ torch.tensor(grid).float()) == pytest.approx(
        0.52, abs=2e-3
    )
    on_grid = soft.targets(torch.tensor([label]), None)
    assert float(on_grid.targets_NK[0] @ torch.tensor(grid).float()) == pytest.approx(0.5, abs=1e-5)

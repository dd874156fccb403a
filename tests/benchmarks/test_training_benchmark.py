"""The training benchmark: what it compares is the same mathematics, and its values add up."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from kyvo_stand_ins import tiny_model
from torch.nn.attention import SDPBackend
from torch.utils.flop_counter import FlopCounterMode

from kyvo.common.errors import InputError
from kyvo.data.batches import LossWeighting, collate
from kyvo.tokens.vocabulary import get_vocabulary
from kyvo.training import language_loss, loss_weight

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
bench, data, reference, training = map(
    importlib.import_module, ("bench", "training_data", "training_reference", "training")
)
MINI = get_vocabulary("mini")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def without_compiling():
    """Compiling takes a minute on a CPU and changes no value here."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return data.write_data(tmp_path_factory.mktemp("data"), MINI, data.Shape(64, (1, 2)), 40)


def open_task(paths, task):
    return data.open_task(paths, MINI, data.Shape(64, (1, 2)), task)


@pytest.fixture
def batch(paths):
    dataset = open_task(paths, "I-3")
    return collate([dataset[i] for i in range(6)], LossWeighting())


def test_the_data_have_the_lengths_of_the_tasks(paths):
    """BOS, image with markers, OUTPUT-START; scenes of 14 ids an object and two; EOS."""
    scenes = {2 + 14 * objects for objects in (1, 2)}
    assert set(open_task(paths, "I-3").lengths) == {1 + 66 + 1 + scene + 1 for scene in scenes}
    assert set(open_task(paths, "3-I").lengths) == {1 + scene + 1 + 66 + 1 for scene in scenes}
    instruction = open_task(paths, "I+3+T-I+3").lengths
    assert instruction.min() >= 3 + 2 * (66 + 16) + 8
    assert instruction.max() <= 3 + 2 * (66 + 30) + 24
    first = open_task(paths, "I-3")
    assert len({tuple(first[i][1].tokens) for i in range(40)}) == 40


def test_the_references_loss_is_the_projects_under_its_normalization(batch):
    model = tiny_model()
    labels_BL = reference.dense_labels(batch)
    loss, accuracy = reference.reference_loss(model, MINI, batch, labels_BL)
    sums = language_loss(model, batch, "reference")
    torch.testing.assert_close(loss, sums.total / loss_weight(batch, "reference"))
    assert accuracy == pytest.approx(int(sums.correct) / len(batch.labels_N))


def test_the_references_embedding_is_the_projects(batch):
    embedding = tiny_model().tok_embeddings
    found = reference.masked_embedding(embedding, MINI, batch.tokens_BL)
    torch.testing.assert_close(found, embedding(batch.tokens_BL))


def test_labels_without_weight_change_no_loss(batch):
    model = tiny_model()
    every = training.with_every_position(batch)
    assert len(every.labels_N) == batch.tokens_BL.numel()
    assert loss_weight(every, "valid") == pytest.approx(loss_weight(batch, "valid"))
    found, expected = (language_loss(model, made).total for made in (every, batch))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_flops_are_those_that_torch_counts(paths):
    """Of full rows, less attention, whose upper triangle torch counts too."""
    dataset = open_task(paths, "I-3")
    longest = [i for i in range(40) if dataset.lengths[i] == dataset.lengths.max()][:4]
    batch = collate([dataset[i] for i in longest], LossWeighting())
    model = tiny_model()
    with FlopCounterMode(display=False) as counter:
        language_loss(model, batch).total.backward()
    counts = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    attention = sum(flops for op, flops in counts.items() if "attention" in op)
    width, length = 32, batch.tokens_BL.shape[1]
    causal = 6 * len(model.layers) * width * length * batch.num_tokens
    # The projection of the codebook, which the formula leaves out.
    projection = 2 * 2 * 512 * 16 * width
    matmuls = sum(counts.values()) - attention - projection
    assert training.flops_of(model, batch) - causal == pytest.approx(matmuls, rel=0.02)


def run(tmp_path, *arguments):
    output = tmp_path / "found.json"
    fixed = "--device cpu --model mini --samples 40 --steps 2 --rounds 1 --output"
    training.main([*fixed.split(), str(output), *arguments])
    return json.loads(output.read_text())


@pytest.mark.slow
def test_cases_are_measured_beside_the_reference(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "WARMUP_STEPS", 1)
    cases = ["reference", "labels", "compiled", "bfloat16", "all"]
    found = run(tmp_path, "--workload", "recognition", "--batch-sizes", "8", "--only", *cases)
    assert found["script"] == "benchmarks/training.py"
    assert found["command"].startswith("python3 benchmarks/training.py --device cpu")
    assert found["ceilings"].keys() == {"matmul_flops_per_s", "copy_bytes_per_s"}
    rows = {row["what"]: row for row in found["rows"]}
    # Five rows of each; float8 is left out on a CPU, and reported.
    assert len(rows) == 5 * (len(cases) - 1)
    assert "all: left out, float8 needs a GPU" in capsys.readouterr().out
    labels = rows["recognition, batch 32, labels: samples"]
    assert labels["reference"] == rows["recognition, batch 32, reference: samples"]["value"]
    tokens = rows["recognition, batch 32, labels: real tokens"]["value"]
    assert 84 < tokens / labels["value"] < 98
    flops = rows["recognition, batch 32, labels: model FLOPs"]
    assert flops["ceiling"] == pytest.approx(found["ceilings"]["matmul_flops_per_s"] / 1e12)


@pytest.mark.parametrize("undone", ["attention", "labels", "asking", "buckets", "kernels"])
def test_levers_taken_off_leave_the_losses_alike(tmp_path, undone):
    runner = training.Bench(training.MODELS["mini"], CPU, tmp_path, 40)
    workload = training.Workload("I-3", 8)
    losses = []
    changed = training.Case(undone=undone)
    if undone == "kernels":
        changed = training.Case(kernels=(SDPBackend.MATH,))
    for case in (training.Case(), changed):
        step, _ = runner.step(case)
        batches = list(zip(range(2), runner.batches(runner.open(workload), case, 8), strict=False))
        losses.append([float(step(batch)) for _, batch in batches])
    if undone == "buckets":
        assert losses[0] == pytest.approx(losses[1], rel=0.01)
    else:
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_curves_start_alike_and_kernels_are_listed(tmp_path):
    found = run(
        tmp_path, "--workload", "rendering", "--only", "--curve", "3", "--profile", "labels"
    )
    assert found["rows"] == []
    curves = found["curves"]
    assert curves.keys() == {name for name in training.CURVES if not name.startswith("all")}
    for losses in curves.values():
        assert len(losses) == 3
        assert losses[0] == pytest.approx(curves["float32"][0], rel=0.01)
    assert 0 < sum(kernel["share"] for kernel in found["kernels"]) <= 1 + 1e-9
    shares = [kernel["share"] for kernel in found["kernels"]]
    assert shares == sorted(shares, reverse=True)


def test_counts_of_zero_are_refused():
    with pytest.raises(InputError, match="--steps"):
        training.main(["--steps", "0"])


def test_a_row_prints_its_share_of_reference_and_ceiling():
    row = bench.Row("speed", 12.0, "m/s", 4.0, "walking", 24.0, "running", "uphill")
    assert "3.00 x walking" in str(row)
    assert "50% of running" in str(row)
    assert str(row).endswith("uphill")


def test_times_are_the_median_after_the_warm_up(monkeypatch):
    clock, spent = [0.0], iter([9.0, 9.0, 1.0, 5.0, 2.0])

    def work():
        clock[0] += next(spent)

    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])
    assert bench.median_seconds(work, CPU, warmup=2, repeats=3) == 2.0


def test_the_machine_is_named():
    found = bench.machine(CPU)
    assert found["torch"] == torch.__version__
    assert found["cuda"] == "none"
    assert found["device"]
    assert bench.peak_memory(CPU) > 10**7

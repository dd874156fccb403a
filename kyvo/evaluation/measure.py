"""The values of one finished generation run: every metric of its outputs, and its parse rate."""

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from kyvo.common.files import folder_lock
from kyvo.decoding import GenerationPlan, GenerationSummary
from kyvo.evaluation.table import Row
from kyvo.images.checkpoint import load_vqgan
from kyvo.images.codec import ImageCodec
from kyvo.images.embedding_files import (
    IMAGE_FOLDERS,
    decode_embeddings,
    find_embeddings,
    find_vqgan,
)
from kyvo.metrics.answers import AnswerScores, score_answers
from kyvo.metrics.images import ImageScores, score_images
from kyvo.metrics.jaccard import score_scenes
from kyvo.metrics.registry import answer_values, image_metrics, scene_values
from kyvo.metrics.scene_files import load_evaluation

# Measured beside the model: what its image tokenizer alone, or a constant answer, would reach.
TOKENIZER, MOST_FREQUENT = "tokenizer alone", "most frequent answer"


@dataclass
class Measurement:
    """A run's values.

    Attributes:
        run_identifier: names the run.
        weights: the checkpoint that generated.
        num_samples: how many samples were generated.
        num_available: how many the data set has.
        values: by metric; ``jaccard@TAU`` beside their mean ``jaccard``.
        baselines: values of others on the same samples, by their name.
        compared_with: the ground truth of each metric.
        notes: what could not be read or was not scored.
    """

    run_identifier: str
    weights: str
    num_samples: int
    num_available: int
    values: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    compared_with: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """A row and its measurements: by checkpoint, one of every config."""

    row: Row
    measurements: dict[str, list[Measurement]]

    @property
    def all_runs(self) -> list[Measurement]:
        """The measurements of all checkpoints."""
        return [run for runs in self.measurements.values() for run in runs]

    def value(self, checkpoint: str, metric: str) -> float | None:
        """The mean over the row's configs; None where the metric was not measured for all."""
        return _mean(run.values.get(metric) for run in self.measurements[checkpoint])

    def baseline(self, name: str, metric: str) -> float | None:
        """A baseline's value, measured here on the same samples; None if it was not."""
        first = next(iter(self.measurements.values()))
        return _mean(run.baselines.get(name, {}).get(metric) for run in first)


def measure(plan: GenerationPlan, summary: GenerationSummary, row: Row) -> Measurement:
    """All values of a run that ``generate_3d.py`` or ``run_generation`` has finished.

    Raises:
        InputError: a file of the ground truth is missing or does not belong to the run.
    """
    report = summary.report
    result = Measurement(
        plan.config.run_identifier,
        str(plan.weights or "untrained"),
        len(plan.indices),
        len(plan.dataset),
    )
    modalities = {segment.modality for segment in plan.reader.task.outputs}
    if "three_d" in modalities:
        _measure_scenes(plan, row, result)
    if "text" in modalities:
        _measure_answers(plan, result)
    if "image" in modalities and row.vqgan is not None:
        _measure_images(plan, row, row.vqgan, result)
    if report.num_objects:
        result.values["objects_read"] = report.num_complete / report.num_objects
    result.notes += [f"{count} x {reason}" for reason, count in report.reasons.most_common()]
    return result


def _measure_scenes(plan: GenerationPlan, row: Row, result: Measurement) -> None:
    folder, schema = plan.files.three_d_folder, plan.reader.codec.schema
    truth = folder / f"groundtruth_scenes_{plan.config.run_identifier}.json"
    if row.scenes is not None:
        truth = plan.config.data_root / row.scenes
    # Of a part of the test set the rest is not missing.
    is_part = len(plan.indices) < len(plan.dataset)
    keys = {plan.files.name(index) for index in plan.indices} if is_part else None
    predictions = folder / f"predicted_scenes_{plan.config.run_identifier}.json"
    scores = score_scenes(load_evaluation(predictions, truth, schema, keys=keys))
    scores.write(folder)
    result.values |= scene_values(scores)
    result.values |= {f"jaccard@{tau.tau:g}": tau.jaccard for tau in scores.taus}
    result.compared_with["jaccard"] = str(truth)
    result.notes += scores.evaluation.notes
    for baseline in row.baselines:
        if baseline.predictions is not None:
            path = plan.config.data_root / baseline.predictions
            found = load_evaluation(path, truth, schema, baseline.method, keys=keys)
            result.baselines[baseline.name] = scene_values(score_scenes(found))


def _measure_answers(plan: GenerationPlan, result: Measurement) -> None:
    folder, run = plan.files.three_d_folder, plan.config.run_identifier
    truth = folder / f"groundtruth_answers_{run}.json"
    scores = score_answers(folder / f"predicted_answers_{run}.json", truth)
    scores.write(folder)
    ((most_frequent, _),) = Counter(scores.groundtruth.values()).most_common(1)
    constant = AnswerScores(dict.fromkeys(scores.groundtruth, most_frequent), scores.groundtruth)
    result.values |= answer_values(scores)
    result.baselines[MOST_FREQUENT] = answer_values(constant)
    result.compared_with["accuracy"] = str(truth)


def _measure_images(plan: GenerationPlan, row: Row, vqgan: Path, result: Measurement) -> None:
    output = plan.config.output_dir / "decoded_images" / plan.config.run_identifier
    with folder_lock(output):
        _decode_and_compare(plan, row, vqgan, output, result)


def _decode_and_compare(
    plan: GenerationPlan, row: Row, vqgan: Path, output: Path, result: Measurement
) -> None:
    for folder in IMAGE_FOLDERS:
        # Images of an earlier run with more samples must not count.
        shutil.rmtree(output / folder, ignore_errors=True)
    paths = plan.files.image_paths(plan.indices)
    files = [file for file in find_embeddings(plan.files.image_folder) if file.path in paths]
    model = load_vqgan(find_vqgan(plan.config.data_root / vqgan))
    decode_embeddings(ImageCodec(model, plan.device), files, output)
    truth = output / "GROUNDTRUTH" if row.images is None else plan.config.data_root / row.images
    generated = [file for file in files if file.kind == "generated"]
    result.values["images_read"] = len(generated) / len(plan.indices)
    metrics = image_metrics()
    result.compared_with[next(iter(metrics))] = str(truth)
    if not generated:
        return
    scores = score_images(output / "GENERATED", truth, metrics)
    scores.write(output)
    result.values |= {name: scores.mean(name) for name in metrics}
    if row.images is not None:
        tokenizer = score_images(output / "GROUNDTRUTH", truth, metrics)
        same = ImageScores({name: tokenizer.pairs[name] for name in scores.pairs}, 0)
        result.baselines[TOKENIZER] = {name: same.mean(name) for name in metrics}


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean; None if there are none or one is missing."""
    listed = list(values)
    present = [value for value in listed if value is not None]
    return fmean(present) if present and len(present) == len(listed) else None

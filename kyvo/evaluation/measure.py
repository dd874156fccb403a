"""The figures of one finished generation run: Jaccard index, SSIM and L2, accuracy, parse rate."""

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kyvo.decoding import GenerationPlan, GenerationSummary
from kyvo.evaluation.table import Row
from kyvo.images.checkpoint import load_vqgan
from kyvo.images.embedding_files import decode_embeddings, find_embeddings, find_vqgan
from kyvo.metrics.answers import read_answers, score_answers
from kyvo.metrics.images import ImageScores, score_images
from kyvo.metrics.jaccard import score_scenes
from kyvo.metrics.scene_files import load_evaluation

# Measured beside the model: what its image tokenizer alone, or a constant answer, would reach.
TOKENIZER, MOST_FREQUENT = "tokenizer alone", "most frequent answer"


@dataclass(frozen=True)
class Measurement:
    """A run's figures.

    Attributes:
        figures: by metric; ``jaccard@TAU`` beside their mean ``jaccard``.
        baselines: figures of others on the same samples, by their name.
        compared_with: the ground truth of each metric.
        notes: what the figures leave out.
    """

    run_identifier: str
    weights: str
    num_samples: int
    num_available: int
    figures: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    compared_with: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class _Findings:
    figures: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    compared_with: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(plan: GenerationPlan, summary: GenerationSummary, row: Row) -> Measurement:
    """All figures of a run that ``generate_3d.py`` or ``run_generation`` has finished.

    Raises:
        InputError: a file of the ground truth is missing or does not belong to the run.
    """
    findings = _Findings()
    modalities = {segment.modality for segment in plan.reader.task.outputs}
    if "three_d" in modalities:
        _measure_scenes(plan, row, findings)
    if "text" in modalities:
        _measure_answers(plan, findings)
    if "image" in modalities and row.vqgan is not None:
        _measure_images(plan, row, row.vqgan, findings)
    report = summary.report
    if report.num_objects:
        findings.figures["objects_read"] = report.num_complete / report.num_objects
    findings.notes += [f"{count} x {reason}" for reason, count in report.reasons.most_common()]
    return Measurement(
        plan.config.run_identifier,
        str(plan.weights or "untrained"),
        len(plan.indices),
        len(plan.dataset),
        findings.figures,
        findings.baselines,
        findings.compared_with,
        tuple(findings.notes),
    )


def _measure_scenes(plan: GenerationPlan, row: Row, findings: _Findings) -> None:
    folder, schema = plan.files.three_d_folder, plan.config.scene_schema
    truth = folder / f"groundtruth_scenes_{plan.config.run_identifier}.json"
    if row.scenes is not None:
        truth = plan.config.data_root / row.scenes
    predictions = folder / f"predicted_scenes_{plan.config.run_identifier}.json"
    scores = score_scenes(load_evaluation(predictions, truth, schema))
    scores.write(folder)
    findings.figures["jaccard"] = scores.mean
    findings.figures |= {f"jaccard@{tau.tau:g}": tau.jaccard for tau in scores.taus}
    findings.compared_with["jaccard"] = str(truth)
    findings.notes += scores.evaluation.notes
    for baseline in row.baselines:
        if baseline.predictions is not None:
            path = plan.config.data_root / baseline.predictions
            scores = score_scenes(load_evaluation(path, truth, schema, "cube-rcnn"))
            findings.baselines[baseline.name] = {"jaccard": scores.mean}


def _measure_answers(plan: GenerationPlan, findings: _Findings) -> None:
    folder, run = plan.files.three_d_folder, plan.config.run_identifier
    truth = folder / f"groundtruth_answers_{run}.json"
    scores = score_answers(folder / f"predicted_answers_{run}.json", truth)
    scores.write(folder)
    answers = Counter(read_answers(truth, "true answers").values())
    findings.figures["accuracy"] = scores.accuracy
    findings.baselines[MOST_FREQUENT] = {"accuracy": max(answers.values()) / answers.total()}
    findings.compared_with["accuracy"] = str(truth)


def _measure_images(plan: GenerationPlan, row: Row, vqgan: Path, findings: _Findings) -> None:
    output = plan.config.output_dir / "decoded_images" / plan.config.run_identifier
    # Pictures of an earlier run with more samples must not count.
    shutil.rmtree(output, ignore_errors=True)
    wanted = plan.files.image_paths(plan.indices)
    files = [file for file in find_embeddings(plan.files.image_folder) if file.path in wanted]
    model = load_vqgan(find_vqgan(plan.config.data_root / vqgan))
    decode_embeddings(model, files, output, plan.config.batch_size, str(plan.device))
    truth = output / "GROUNDTRUTH" if row.images is None else plan.config.data_root / row.images
    generated = [file for file in files if file.kind == "generated"]
    findings.figures["images_read"] = len(generated) / len(plan.indices)
    findings.compared_with["ssim"] = str(truth)
    if generated:
        scores = score_images(output / "GENERATED", truth)
        scores.write(output)
        findings.figures |= _similarity(scores)
    if row.images is not None:
        findings.baselines[TOKENIZER] = _similarity(score_images(output / "GROUNDTRUTH", truth))


def _similarity(scores: ImageScores) -> dict[str, float]:
    return {"ssim": scores.ssim, "l2": scores.l2}

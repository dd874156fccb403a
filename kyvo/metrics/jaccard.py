"""Jaccard index of predicted scenes: true positives / (true + false positives + false negatives).

Per scene, then averaged over scenes. A scene that is empty and predicted to be empty scores 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from kyvo.common.errors import InputError
from kyvo.common.files import atomic_file, write_json
from kyvo.metrics.matching import match_objects
from kyvo.metrics.scene_files import Evaluation, ScenePair
from kyvo.scenes import PAPER_TAUS, MatchingRule, Scene


@dataclass(frozen=True)
class SceneScore:
    """Counts of one scene.

    Attributes:
        key: names the scene.
        true_positives: predicted objects that are in the scene.
        false_positives: predicted objects that are not.
        false_negatives: objects of the scene that were missed.
        is_predicted: False where there was no prediction to score.
    """

    key: str
    true_positives: int
    false_positives: int
    false_negatives: int
    is_predicted: bool = True

    @property
    def jaccard(self) -> float:
        """The scene's Jaccard index, in [0, 1]."""
        total = self.true_positives + self.false_positives + self.false_negatives
        return self.true_positives / total if total else 1.0


@dataclass(frozen=True)
class TauScores:
    """Every scene's score at one tau, in the unit of the positions."""

    tau: float
    scenes: tuple[SceneScore, ...]

    @property
    def jaccard(self) -> float:
        """Mean over all scenes; a scene without a prediction counts as missed."""
        return fmean(scene.jaccard for scene in self.scenes)

    @property
    def predicted_jaccard(self) -> float:
        """Mean over the scenes that have a prediction: what the released code reports; or 0."""
        found = [scene.jaccard for scene in self.scenes if scene.is_predicted]
        return fmean(found) if found else 0.0

    @property
    def mean_counts(self) -> tuple[float, float, float]:
        """True positives, false positives and false negatives per scene."""
        return (
            fmean(scene.true_positives for scene in self.scenes),
            fmean(scene.false_positives for scene in self.scenes),
            fmean(scene.false_negatives for scene in self.scenes),
        )


@dataclass(frozen=True)
class JaccardScores:
    """The scores of one evaluation at one or several taus."""

    evaluation: Evaluation
    taus: tuple[TauScores, ...]

    @property
    def mean(self) -> float:
        """Mean of the Jaccard index over the taus: with ``PAPER_TAUS`` the paper's value."""
        return fmean(scores.jaccard for scores in self.taus)

    @property
    def num_missing(self) -> int:
        """Scenes without a prediction."""
        return sum(pair.predicted is None for pair in self.evaluation.pairs)

    @property
    def predicted_mean(self) -> float:
        """``mean`` over the scenes that have a prediction: what the released code reports."""
        return fmean(scores.predicted_jaccard for scores in self.taus)

    def summary(self) -> str:
        """The values as lines of text."""
        pairs, missing = self.evaluation.pairs, self.num_missing
        lines = [f"{len(pairs)} scenes scored by the rule of {self.evaluation.schema.name}"]
        lines += self.evaluation.notes
        if missing:
            lines.append(f"{missing} scenes have no prediction: all their objects are missed")
        for scores in self.taus:
            lines += _tau_lines(scores, missing > 0)
        if len(self.taus) > 1:
            lines.append(f"mean of {len(self.taus)} taus: Jaccard Index: {self.mean:.4f}")
        return "\n".join(lines)

    def write(self, folder: Path | str) -> None:
        """Write ``jaccard_index_tau-TAU.txt`` per tau, and ``jaccard.json``, into ``folder``."""
        for scores in self.taus:
            with atomic_file(Path(folder) / f"jaccard_index_tau-{scores.tau}.txt") as path:
                path.write_text(f"Jaccard Index: {scores.jaccard:.4f}\n")
        write_json(
            Path(folder) / "jaccard.json",
            {
                "dataset": self.evaluation.schema.name,
                "jaccard": self.mean,
                "notes": list(self.evaluation.notes),
                "taus": {str(scores.tau): _tau_json(scores) for scores in self.taus},
            },
        )


def score_scenes(evaluation: Evaluation, taus: Sequence[float] | None = None) -> JaccardScores:
    """Score every scene at every tau, in the unit of the positions; None: at those of the rule."""
    return JaccardScores(
        evaluation,
        tuple(
            TauScores(
                tau,
                tuple(_score_scene(pair, evaluation.rule, tau) for pair in evaluation.pairs),
            )
            for tau in (evaluation.rule.taus if taus is None else taus)
        ),
    )


def parse_taus(values: Sequence[str], of_rule: Sequence[float] = PAPER_TAUS) -> tuple[float, ...]:
    """Parse the values of ``--tau``: positive numbers, or ``paper`` for those of the rule.

    Raises:
        InputError: a value is neither.
    """
    taus: list[float] = []
    for value in values:
        taus += of_rule if value == "paper" else [_parse_tau(value)]
    return tuple(dict.fromkeys(taus))


def _parse_tau(value: str) -> float:
    try:
        tau = float(value)
    except ValueError:
        tau = math.nan
    if not 0 < tau < math.inf:
        raise InputError(f"--tau: {value!r}: expected a positive number, or 'paper'.")
    return tau


def _score_scene(pair: ScenePair, rule: MatchingRule, tau: float) -> SceneScore:
    matches = match_objects(pair.predicted or Scene(), pair.groundtruth, rule, tau)
    return SceneScore(
        pair.key,
        len(matches.pairs),
        len(matches.false_positives),
        len(matches.false_negatives),
        pair.predicted is not None,
    )


def _tau_lines(scores: TauScores, with_reference: bool) -> list[str]:
    true_positives, false_positives, false_negatives = scores.mean_counts
    lines = [
        f"tau {scores.tau}: Jaccard Index: {scores.jaccard:.4f} (per scene {true_positives:.2f} "
        f"true positives, {false_positives:.2f} false positives, "
        f"{false_negatives:.2f} false negatives)"
    ]
    if with_reference:
        lines.append(
            f"tau {scores.tau}: only scenes with a prediction, as the released code counts: "
            f"{scores.predicted_jaccard:.4f}"
        )
    return lines


def _tau_json(scores: TauScores) -> dict[str, Any]:
    counts = ("true_positives", "false_positives", "false_negatives")
    return {
        "jaccard": scores.jaccard,
        "jaccard_of_predicted_scenes": scores.predicted_jaccard,
        **{f"mean_{name}": value for name, value in zip(counts, scores.mean_counts, strict=True)},
        "scenes": {
            scene.key: {
                **{name: getattr(scene, name) for name in counts},
                "jaccard": scene.jaccard,
                "predicted": scene.is_predicted,
            }
            for scene in scores.scenes
        },
    }

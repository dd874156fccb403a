"""Every metric of a run: its name, what it scores, how it is written, and the function.

A new metric is a function in a module of its own and one entry here: the evaluation's table, its
JSON and the HTML report then have it too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from kyvo.metrics.answers import AnswerScores
from kyvo.metrics.images import ImageMetric, l2, ssim
from kyvo.metrics.jaccard import JaccardScores


@dataclass(frozen=True)
class _Named:
    """What every metric has.

    Attributes:
        name: its key in files.
        title: how tables call it.
        form: how its value is written.
    """

    name: str
    title: str
    form: str


@dataclass(frozen=True)
class SceneMetric(_Named):
    """A metric of predicted scenes.

    Attributes:
        function: its value, of the matched scenes (``evaluation.pairs`` has the scenes
            themselves); None: it says nothing about this run.
    """

    function: Callable[[JaccardScores], float | None]
    modality: Literal["three_d"] = "three_d"


@dataclass(frozen=True)
class ImagePairMetric(_Named):
    """A metric of a generated and a true image; a run's value is the mean over the images.

    Attributes:
        function: its value, of one pair.
    """

    function: ImageMetric
    modality: Literal["image"] = "image"


@dataclass(frozen=True)
class AnswerMetric(_Named):
    """A metric of predicted answers.

    Attributes:
        function: its value, of all answers and their truth.
    """

    function: Callable[[AnswerScores], float]
    modality: Literal["text"] = "text"


Metric = SceneMetric | ImagePairMetric | AnswerMetric

_METRICS: tuple[Metric, ...] = (
    SceneMetric("jaccard", "Jaccard, mean over tau", "{:.4f}", lambda scores: scores.mean),
    SceneMetric(
        "jaccard_predicted",
        "Jaccard, of scenes with a prediction",
        "{:.4f}",
        lambda scores: scores.predicted_mean if scores.num_missing else None,
    ),
    AnswerMetric("accuracy", "accuracy", "{:.4f}", lambda scores: scores.accuracy),
    ImagePairMetric("ssim", "SSIM", "{:.4f}", ssim),
    ImagePairMetric("l2", "L2", "{:.5f}", l2),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}
"""By name, in the order of the tables."""


def image_metrics() -> Mapping[str, ImageMetric]:
    """The functions of all metrics of images, by name."""
    return {m.name: m.function for m in METRICS.values() if isinstance(m, ImagePairMetric)}


def scene_values(scores: JaccardScores) -> dict[str, float]:
    """The values of all metrics of scenes that say something about the run, by name."""
    values = {m.name: m.function(scores) for m in METRICS.values() if isinstance(m, SceneMetric)}
    return {name: value for name, value in values.items() if value is not None}


def answer_values(scores: AnswerScores) -> dict[str, float]:
    """The values of all metrics of answers, by name."""
    return {m.name: m.function(scores) for m in METRICS.values() if isinstance(m, AnswerMetric)}

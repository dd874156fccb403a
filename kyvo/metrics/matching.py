"""Which predicted objects are the same as which ground-truth objects.

One matcher; what differs between data sets is their schema's ``MatchingRule``, that is, data.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kyvo.scenes import MatchingRule, Scene, SceneObject


@dataclass(frozen=True)
class Matches:
    """The outcome for one scene, as indices into its predicted and ground-truth objects.

    Attributes:
        pairs: true positives, (predicted, ground truth).
        false_positives: predicted objects left over.
        false_negatives: ground-truth objects left over.
    """

    pairs: tuple[tuple[int, int], ...]
    false_positives: tuple[int, ...]
    false_negatives: tuple[int, ...]


@dataclass(frozen=True)
class _Reading:
    """What a rule compares of an object."""

    words: tuple[str, ...]
    numbers: Mapping[str, tuple[float, ...]]


def is_scorable(item: SceneObject, rule: MatchingRule) -> bool:
    """Whether an object has every word and every finite number that the rule compares."""
    return _read(item, rule) is not None


def match_objects(predicted: Scene, groundtruth: Scene, rule: MatchingRule, tau: float) -> Matches:
    """Match the predictions, in their order, with ground-truth objects closer than ``tau``.

    Each object is matched at most once. An object in which one of the rule's words or numbers is
    missing or not finite matches nothing.
    """
    predicted_readings = [_read(item, rule) for item in predicted.objects]
    groundtruth_readings = [_read(item, rule) for item in groundtruth.objects]
    free = list(range(len(groundtruth_readings)))
    pairs: list[tuple[int, int]] = []
    for index, reading in enumerate(predicted_readings):
        candidates = [
            (distance, candidate)
            for candidate in free
            if (distance := _distance(reading, groundtruth_readings[candidate], rule)) < tau
        ]
        if candidates:
            _, chosen = min(candidates) if rule.is_nearest else candidates[0]
            free.remove(chosen)
            pairs.append((index, chosen))
    matched = {index for index, _ in pairs}
    rest = tuple(index for index in range(len(predicted_readings)) if index not in matched)
    return Matches(tuple(pairs), rest, tuple(free))


def _read(item: SceneObject, rule: MatchingRule) -> _Reading | None:
    """What the rule compares, or None if some of it is missing or not finite."""
    words = tuple(item.words[key] for key in rule.words if key in item.words)
    numbers = {key: _leading(item, key, count, rule) for key, count in rule.counts.items()}
    return (
        _Reading(words, numbers)
        if len(words) == len(rule.words) and all(numbers.values())
        else None
    )


def _leading(item: SceneObject, key: str, count: int, rule: MatchingRule) -> tuple[float, ...]:
    """The first ``count`` numbers of a field; none if they are not all there."""
    found = item.numbers.get(key, ())
    if rule.broadcasts and len(found) == 1:
        found *= count
    numbers = found[:count]
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else ()


def _distance(
    predicted: _Reading | None, groundtruth: _Reading | None, rule: MatchingRule
) -> float:
    """Distance of two readings, infinite if they cannot be the same object."""
    if predicted is None or groundtruth is None or predicted.words != groundtruth.words:
        return math.inf
    for bound in rule.bounds:
        if not bound.allows(predicted.numbers[bound.key], groundtruth.numbers[bound.key]):
            return math.inf
    places = (reading.numbers[rule.position] for reading in (predicted, groundtruth))
    return math.dist(*(place[: rule.distance_axes] for place in places))

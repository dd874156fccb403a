"""Which predicted objects are the same as which ground-truth objects.

One matcher; what differs between datasets is a ``MatchingRule``, that is, data. Lengths are in
scene units (metres for Objectron), angles in radians.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kyvo.common.errors import InputError

SceneObject = Mapping[str, Any]


@dataclass(frozen=True)
class Tolerance:
    """The largest mean absolute error allowed over some of an object's numbers.

    Attributes:
        axes: which of the rule's numbers.
        limit: the bound, in the numbers' own unit.
        period: errors are measured the short way round a circle of this length.
        inclusive: an error equal to ``limit`` is still allowed.
    """

    axes: slice
    limit: float
    period: float = math.inf
    inclusive: bool = False

    def allows(self, predicted: Sequence[float], groundtruth: Sequence[float]) -> bool:
        """Whether the error between two objects' numbers stays within the limit."""
        pairs = zip(predicted[self.axes], groundtruth[self.axes], strict=True)
        errors = [abs(math.remainder(p - g, self.period)) for p, g in pairs]
        error = math.fsum(errors) / len(errors)
        return error <= self.limit if self.inclusive else error < self.limit


@dataclass(frozen=True)
class MatchingRule:
    """When two objects count as the same.

    Attributes:
        words: fields that must be equal.
        numbers: (field, how many of its leading numbers) that are read, in this order.
        distance_axes: the distance compared with tau is over this many of the leading numbers.
        tolerances: further bounds that must hold.
        nearest: a prediction takes the nearest ground-truth object that qualifies, not the first.
        broadcast: a list of a single number stands for all its numbers. That is how the released
            code's CLEVR metric takes a position that was cut short.
    """

    words: tuple[str, ...]
    numbers: tuple[tuple[str, int], ...]
    distance_axes: int
    tolerances: tuple[Tolerance, ...] = ()
    nearest: bool = False
    broadcast: bool = False

    def read(self, item: SceneObject) -> tuple[list[str], list[float]] | None:
        """The words and numbers of an object, or None if one is missing or no finite number."""
        words = [item.get(field) for field in self.words]
        numbers = [self._leading(item.get(field), count) for field, count in self.numbers]
        if not all(isinstance(word, str) for word in words) or not all(numbers):
            return None
        return [str(word) for word in words], [value for values in numbers for value in values]

    def _leading(self, values: Any, count: int) -> list[float]:
        """The first ``count`` numbers of a list, or nothing if they are not all there."""
        if not isinstance(values, list | tuple):
            return []
        if self.broadcast and len(values) == 1:
            values = [*values] * count
        numbers = [value for value in values[:count] if _is_finite_number(value)]
        return numbers if len(numbers) == count else []


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


def objectron_rule(dimension_tau: float = 0.05) -> MatchingRule:
    """Objectron's rule; ``dimension_tau`` bounds the mean absolute error of the dimensions.

    Raises:
        InputError: ``dimension_tau`` is negative or not finite.
    """
    if not 0 <= dimension_tau < math.inf:
        raise InputError(f"dimension_tau: expected 0 or more metres, found {dimension_tau}.")
    return MatchingRule(
        words=("category",),
        numbers=(("center_cam", 3), ("dimensions", 3)),
        distance_axes=3,
        tolerances=(Tolerance(slice(3, 6), dimension_tau, inclusive=True),),
        nearest=True,
    )


RULES: Mapping[str, MatchingRule] = {
    "clevr": MatchingRule(
        words=("size", "color", "material", "shape"),
        numbers=(("3d_coords", 2),),
        distance_axes=2,
        broadcast=True,
    ),
    "objaworld": MatchingRule(
        words=("shape",),
        numbers=(("3d_coords", 4),),
        distance_axes=2,
        tolerances=(
            Tolerance(slice(2, 3), 0.05),
            Tolerance(slice(3, 4), 0.15, period=2 * math.pi),
        ),
    ),
    "objectron": objectron_rule(),
}


def rule_of(dataset: str, dimension_tau: float = 0.05) -> MatchingRule:
    """The rule of a data set; ``dimension_tau`` (metres) matters where dimensions do."""
    return {**RULES, "objectron": objectron_rule(dimension_tau)}[dataset]


def match_objects(
    predicted: Sequence[SceneObject],
    groundtruth: Sequence[SceneObject],
    rule: MatchingRule,
    tau: float,
) -> Matches:
    """Match the predictions, in their order, with ground-truth objects closer than ``tau``.

    Each object is matched at most once. An object that lacks one of the rule's fields, or holds
    something there that is no finite number, matches nothing.
    """
    predicted_readings = [rule.read(item) for item in predicted]
    groundtruth_readings = [rule.read(item) for item in groundtruth]
    free = list(range(len(groundtruth)))
    pairs: list[tuple[int, int]] = []
    for index, reading in enumerate(predicted_readings):
        candidates = [
            (distance, candidate)
            for candidate in free
            if (distance := _distance(reading, groundtruth_readings[candidate], rule)) < tau
        ]
        if candidates:
            _, chosen = min(candidates) if rule.nearest else candidates[0]
            free.remove(chosen)
            pairs.append((index, chosen))
    hits = {index for index, _ in pairs}
    misses = tuple(index for index in range(len(predicted)) if index not in hits)
    return Matches(tuple(pairs), misses, tuple(free))


def _distance(
    predicted: tuple[list[str], list[float]] | None,
    groundtruth: tuple[list[str], list[float]] | None,
    rule: MatchingRule,
) -> float:
    """Distance of two readings, infinite if they cannot be the same object."""
    if predicted is None or groundtruth is None or predicted[0] != groundtruth[0]:
        return math.inf
    if not all(bound.allows(predicted[1], groundtruth[1]) for bound in rule.tolerances):
        return math.inf
    return math.dist(predicted[1][: rule.distance_axes], groundtruth[1][: rule.distance_axes])


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

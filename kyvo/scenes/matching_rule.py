"""When two objects count as the same: a schema's rule of matching, as data.

Lengths are in the units of the schema's axes. The matching itself is ``kyvo.metrics.matching``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kyvo.common.errors import InputError

PAPER_TAUS = (0.05, 0.10, 0.15, 0.20, 0.25)
"""The paper's bounds on the distance, in scene units; its value is the mean over them."""


@dataclass(frozen=True)
class Tolerance:
    """The largest mean absolute error allowed over some numbers of a field.

    Attributes:
        key: the number field.
        axes: which of the field's numbers.
        limit: the bound, in the numbers' own unit.
        period: errors are measured the short way round a circle of this length; None: straight.
        is_inclusive: an error equal to ``limit`` is still allowed.
    """

    key: str
    axes: tuple[int, ...]
    limit: float
    period: float | None = None
    is_inclusive: bool = False

    def allows(self, predicted: Sequence[float], groundtruth: Sequence[float]) -> bool:
        """Whether the error between the field's numbers of two objects stays within the limit."""
        pairs = [(predicted[axis], groundtruth[axis]) for axis in self.axes]
        errors = [abs(math.remainder(p - g, self.period or math.inf)) for p, g in pairs]
        error = math.fsum(errors) / len(errors)
        return error <= self.limit if self.is_inclusive else error < self.limit


@dataclass(frozen=True)
class MatchingRule:
    """When two objects count as the same.

    Attributes:
        words: keys of the word fields that must be equal.
        position: key of the number field that holds the position.
        distance_axes: the distance compared with tau is over this many of its leading numbers.
        tolerances: further bounds that must hold.
        dimensions: one more, on the object's extents; ``--dimension_tau`` sets its limit.
        is_nearest: a prediction takes the nearest ground-truth object that qualifies, not the
            first.
        broadcasts: a position of a single number stands for all its numbers. That is how the
            released code's CLEVR metric takes a position that was cut short.
        taus: the bounds on the distance over which the reported mean runs.
    """

    words: tuple[str, ...]
    position: str
    distance_axes: int
    tolerances: tuple[Tolerance, ...] = ()
    dimensions: Tolerance | None = None
    is_nearest: bool = False
    broadcasts: bool = False
    taus: tuple[float, ...] = PAPER_TAUS

    @property
    def bounds(self) -> tuple[Tolerance, ...]:
        """All tolerances, that of the dimensions last."""
        return self.tolerances + ((self.dimensions,) if self.dimensions else ())

    @property
    def counts(self) -> dict[str, int]:
        """How many leading numbers of each field the rule reads, by the field's key."""
        counts = {self.position: self.distance_axes}
        for bound in self.bounds:
            counts[bound.key] = max(counts.get(bound.key, 0), *(axis + 1 for axis in bound.axes))
        return counts

    def with_dimension_tau(self, dimension_tau: float) -> "MatchingRule":
        """The rule with another limit of the dimensions; the same where it has none.

        Raises:
            InputError: ``dimension_tau`` is negative or not finite.
        """
        if not 0 <= dimension_tau < math.inf:
            raise InputError(f"dimension_tau: expected 0 or more, found {dimension_tau}.")
        if self.dimensions is None:
            return self
        return replace(self, dimensions=replace(self.dimensions, limit=dimension_tau))

    def describe(self) -> str:
        """The fields that the rule reads, such as ``shape, 3d_coords (4 numbers)``."""
        numbers = [f"{key} ({count} numbers)" for key, count in self.counts.items()]
        return ", ".join([*self.words, *numbers])

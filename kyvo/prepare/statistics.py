"""What the objects of many scenes hold: how many, which words, which numbers."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from kyvo.scenes import Axis, NumberField, Scene, Schema, WordField


@dataclass
class AxisStatistics:
    """Range of the numbers on an axis, in its unit, and how far they are from its grid."""

    axis: Axis
    low: float = math.inf
    high: float = -math.inf
    count: int = 0
    total_error: float = 0.0
    largest_error: float = 0.0

    def add(self, value: float) -> None:
        """Count a number that fits the axis."""
        error = abs(math.remainder(self.axis.snap(value) - value, self.axis.period or math.inf))
        self.low, self.high = min(self.low, value), max(self.high, value)
        self.count += 1
        self.total_error += error
        self.largest_error = max(self.largest_error, error)

    def line(self) -> str:
        """The statistics as text."""
        if not self.count:
            return f"{self.axis.name}: no numbers"
        return (
            f"{self.axis.name}: {self.low:.6g} .. {self.high:.6g} {self.axis.unit}, snapping moves "
            f"by {self.total_error / self.count:.3g} on average, {self.largest_error:.3g} at most"
        )


@dataclass
class SceneStatistics:
    """Statistics of the scenes of one schema; scenes are added as they stream by."""

    schema: Schema
    num_scenes: int = 0
    objects_per_scene: Counter[int] = field(default_factory=Counter)
    words: dict[str, Counter[str]] = field(default_factory=dict)
    numbers: dict[str, list[AxisStatistics]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for fld in self.schema.fields:
            if isinstance(fld, NumberField):
                self.numbers[fld.key] = [AxisStatistics(axis) for axis in fld.axes]
            else:
                self.words[fld.key] = Counter()

    def add(self, scene: Scene) -> None:
        """Count a scene whose objects fit the schema."""
        self.num_scenes += 1
        self.objects_per_scene[len(scene.objects)] += 1
        for item in scene.objects:
            for key, counter in self.words.items():
                counter[item.words[key]] += 1
            for key, axes in self.numbers.items():
                for axis, value in zip(axes, item.numbers[key], strict=True):
                    axis.add(value)

    def lines(self) -> list[str]:
        """The statistics as lines of text; words that never occur are named too."""
        per_scene = sorted(self.objects_per_scene.items())
        lines = [f"objects per scene: {_listed((str(n), count) for n, count in per_scene)}"]
        for fld in self.schema.fields:
            if isinstance(fld, WordField):
                found = self.words[fld.key]
                lines.append(f"{fld.key}: {_listed((word, found[word]) for word in fld.words)}")
            else:
                lines += [f"{fld.key} {axis.line()}" for axis in self.numbers[fld.key]]
        return lines


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{what} x {count}" for what, count in counts) or "none"

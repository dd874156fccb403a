"""Whether two samples may come from one distribution."""

from typing import Any

import numpy as np


def are_alike(first: list[Any], second: list[Any]) -> bool:
    """Whether two samples of categories differ no more than 99.9 % of such pairs do."""
    statistic, freedom = chi2_of_two(first, second)
    # 3.1 standard deviations of the normal law of the cube root (Wilson and Hilferty).
    spread = 2 / (9 * freedom)
    return statistic < freedom * (1 - spread + 3.1 * spread**0.5) ** 3


def chi2_of_two(first: list[Any], second: list[Any]) -> tuple[float, int]:
    """Pearson's statistic of two samples of categories, and its degrees of freedom."""
    kinds = sorted({*first, *second})
    table = np.array([[each.count(kind) for kind in kinds] for each in (first, second)])
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    return float(((table - expected) ** 2 / expected).sum()), len(kinds) - 1


def ks_distance(first: list[float], second: list[float]) -> float:
    grid = np.sort([*first, *second])
    one, other = (np.searchsorted(np.sort(x), grid, "right") / len(x) for x in (first, second))
    return float(abs(one - other).max())

"""The order in which the codes of an image are written."""

import math
from functools import cache

import numpy as np


@cache
def centre_first(num_codes: int) -> np.ndarray:
    """Raster positions in centre-first order, int64 (num_codes,): 120, 119, 121, ... for 256.

    From the centre outwards, left and right in turn; when the left is used up, the rest of the
    right in order. Images that the model generates are written so (paper, section on rendering).
    """
    centre = int(num_codes // 2 - math.sqrt(num_codes) // 2)
    order = [centre]
    for offset in range(1, num_codes):
        order += [p for p in (centre - offset, centre + offset) if 0 <= p < num_codes]
    positions = np.array(order, dtype=np.int64)
    positions.flags.writeable = False
    return positions

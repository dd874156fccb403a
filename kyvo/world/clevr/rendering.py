"""Images of CLEVR scenes that come as JSON, such as a report's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kyvo.world.clevr.scene import ClevrScene
from kyvo.world.render.tracer import render


def render_json(
    scenes: Sequence[Mapping[str, Any]], height: int, width: int, samples_per_pixel: int = 4
) -> np.ndarray:
    """Render scenes of CLEVR's JSON: uint8 (B, height, width, 3), sRGB.

    Raises:
        InputError: a scene is not understood; its number and image are named.
    """
    parsed = [
        ClevrScene.from_json(scene, f"scene {index} ({scene.get('image_filename', 'unnamed')})")
        for index, scene in enumerate(scenes)
    ]
    return render(parsed, height, width, samples_per_pixel)

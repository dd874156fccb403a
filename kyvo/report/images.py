"""Images for a report: files and arrays as data URIs, predicted scenes rendered again."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from kyvo.common.image_files import read_image
from kyvo.report.top_down import Map
from kyvo.scenes import Scene, SceneObject

RENDER_SIDE = 160
SAMPLES_PER_PIXEL = 4


class Renderer(Protocol):
    """Draws scenes given as JSON: uint8 (B, height, width, 3).

    ``kyvo.world.clevr.rendering.render_json`` is one.
    """

    def __call__(
        self,
        scenes: Sequence[dict[str, Any]],
        height: int,
        width: int,
        samples_per_pixel: int = ...,
    ) -> np.ndarray: ...


def image_uri(path: Path) -> str:
    """An image file as a PNG data URI.

    Raises:
        InputError: the file is no readable image.
    """
    return array_uri(read_image(path))


def array_uri(image_HWC: np.ndarray) -> str:
    """A uint8 RGB image (H, W, 3) as a PNG data URI."""
    stream = io.BytesIO()
    Image.fromarray(image_HWC).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def render_again(
    predicted: Sequence[Scene],
    environments: Sequence[Mapping[str, Any]],
    renderer: Renderer,
    top_down: Map,
) -> list[str]:
    """Render predicted objects with the camera and lights of the true scenes, as data URIs."""
    scenes = [
        {"objects": _renderable(scene, top_down), **environment}
        for scene, environment in zip(predicted, environments, strict=True)
    ]
    images_BHWC = renderer(scenes, RENDER_SIDE, RENDER_SIDE, samples_per_pixel=SAMPLES_PER_PIXEL)
    return [array_uri(image_HWC) for image_HWC in images_BHWC]


def _renderable(scene: Scene, top_down: Map) -> list[dict[str, Any]]:
    """The drawable objects as JSON, resting on the ground."""
    items = [_grounded(item, top_down) for item in scene.objects if top_down.is_drawable(item)]
    return [dict(top_down.schema.to_json(item)) for item in items]


def _grounded(item: SceneObject, top_down: Map) -> SceneObject:
    """The object with its centre as high as it is wide."""
    return item.moved(*item.position[:2], top_down.marker(item).radius)

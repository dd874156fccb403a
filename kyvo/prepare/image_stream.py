"""Images of a world that are drawn and rendered while a model trains, in place of files.

Shape legend: B images, H height, W width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kyvo.common.config import build_config
from kyvo.common.errors import InputError
from kyvo.prepare.stream import FIRST_NOISE, NUM_NOISES
from kyvo.world.clevr.batch_sampler import SceneTensors, sample_scenes, scene_batch_of
from kyvo.world.clevr.sampler import SceneOptions
from kyvo.world.render.tracer import render_batch

TRAIN, VALIDATION = "train", "val"
"""Splits whose scenes are drawn; those of a test are never among them."""

_SCENES_AT_ONCE = {"cuda": 1 << 14, "cpu": 1 << 9}
"""Scenes drawn together, about: below this, fewer cost the device the same time."""
_IMAGES_AT_ONCE = {"cuda": 1 << 12, "cpu": 1 << 5}
"""Images rendered together, about, and kept as uint8: 200 MB of 128 x 128 pixels on a GPU."""


class WorldImages:
    """Batches of different images, made on the device that trains on them.

    A batch depends on its number, its size, the seed and the options alone, never on the batches
    before. Only a batch that begins a new chunk of scenes makes the host wait for the device.

    Args:
        options: what scenes to draw.
        seed: of the world.
        side: of the square images, pixels; they show the camera's frustum squeezed.
        samples_per_pixel: rays through each pixel.
        batch_size: images of a batch.
        device: where they are made and stay.

    Raises:
        InputError: a number is less than 1.
    """

    def __init__(
        self,
        options: SceneOptions,
        seed: int,
        side: int,
        samples_per_pixel: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        if min(side, samples_per_pixel, batch_size) < 1:
            raise InputError(
                f"image stream: side {side}, samples_per_pixel {samples_per_pixel}, batch_size "
                f"{batch_size}. Expected whole numbers of at least 1."
            )
        self.options = options
        self.seed = seed
        self.side = side
        self.samples_per_pixel = samples_per_pixel
        self.batch_size = batch_size
        self.device = device
        self._render_size = _whole_parts(_IMAGES_AT_ONCE, device, batch_size)
        self._scene_size = _whole_parts(_SCENES_AT_ONCE, device, self._render_size)
        self._scenes: tuple[int, SceneTensors] | None = None
        self._images: tuple[int, Tensor] | None = None

    def batch(self, number: int) -> Tensor:
        """Training images (B, H, W, 3) uint8 of the batch with this number, from 0."""
        chunk, place = divmod(number * self.batch_size, self._render_size)
        if self._images is None or self._images[0] != chunk:
            # The old chunk goes first, so that there is never room for two.
            self._images = None
            self._images = chunk, self._render_batches(self._scenes_of(chunk), chunk)
        return self._images[1][place : place + self.batch_size]

    def validation(self, count: int) -> Tensor:
        """The first held-out images, uint8 (count, H, W, 3); the same ones in every call."""
        scenes = self._draw(0, count, VALIDATION)
        parts = range(0, count, self._render_size)
        return torch.cat([self._render(_cut(scenes, i, i + self._render_size), 0) for i in parts])

    def _scenes_of(self, chunk: int) -> SceneTensors:
        """Scenes of a chunk of images, cut from those that are drawn together."""
        number, place = divmod(chunk * self._render_size, self._scene_size)
        if self._scenes is None or self._scenes[0] != number:
            self._scenes = number, self._draw(number * self._scene_size, self._scene_size, TRAIN)
        return _cut(self._scenes[1], place, place + self._render_size)

    def _draw(self, first: int, count: int, split: str) -> SceneTensors:
        index_N = torch.arange(first, first + count)
        return sample_scenes(index_N, split, self.seed, self.options, self.device)

    def _render_batches(self, scenes: SceneTensors, chunk: int) -> Tensor:
        """The images of a chunk, each batch with a noise of its own."""
        first = chunk * self._render_size // self.batch_size
        parts = [
            (i, FIRST_NOISE + number % NUM_NOISES)
            for number, i in enumerate(range(0, self._render_size, self.batch_size), first)
        ]
        return torch.cat(
            [self._render(_cut(scenes, i, i + self.batch_size), noise) for i, noise in parts]
        )

    def _render(self, scenes: SceneTensors, noise: int) -> Tensor:
        batch = scene_batch_of(scenes)
        return render_batch(batch, self.side, self.side, self.samples_per_pixel, noise)


def world_images(
    side: int,
    batch_size: int,
    device: torch.device,
    seed: int = 0,
    samples_per_pixel: int = 2,
    scenes: Mapping[str, Any] | None = None,
) -> WorldImages:
    """The stream that a config names; ``scenes`` are fields of ``SceneOptions``, else CLEVR's.

    Raises:
        InputError: an unknown or impossible option, or a number that is less than 1.
    """
    options = build_config(SceneOptions, scenes or {}, "image stream: scenes")
    return WorldImages(options, seed, side, samples_per_pixel, batch_size, device)


def _whole_parts(sizes: Mapping[str, int], device: torch.device, part: int) -> int:
    """The device's size, or near it: a multiple of ``part``, at least one."""
    return max(1, sizes.get(device.type, sizes["cpu"]) // part) * part


def _cut(scenes: SceneTensors, start: int, stop: int) -> SceneTensors:
    tensors = (tensor[..., start:stop].contiguous() for tensor in scenes.tensors())
    return SceneTensors(scenes.split, *tensors)

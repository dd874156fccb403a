"""Rays through the pixels of an image.

Shapes: G scenes of a pass, L lights, A pixels of the whole image, Q samples per pixel, R rays,
S rows of N rays (R = S * N); a leading 3 holds x, y, z.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kyvo.world.constants import ASPECT, HALF_WIDTH, LIGHTS
from kyvo.world.render.geometry import normalize
from kyvo.world.render.scene_batch import Viewers

NO_PRIMITIVE = -1
"""The primitive index of a ray that hits none, or leaves none."""

R2_SEQUENCE = (0.7548776662, 0.5698402910)
"""Steps of the additive low-discrepancy sequence in two dimensions (powers of the inverse of the
plastic number): the samples of a pixel, and of a light, spread evenly."""


@dataclass(frozen=True)
class Rays:
    """Rays of one pass.

    Attributes:
        origins_3R: where they start (metres).
        directions_3R: unit vectors.
        scenes_R: index of their scene in the pass.
        offsets_2LR: the point of each light that their shadow ray aims at, in -0.5..0.5 edges.
        source_R: index of the primitive that they leave, or NO_PRIMITIVE. Primitives are convex: a
            ray that leaves one never hits it again.
        row_length: rays in a row share their scene and come in rows of this length.
    """

    origins_3R: Tensor
    directions_3R: Tensor
    scenes_R: Tensor
    offsets_2LR: Tensor
    source_R: Tensor
    row_length: int = 1

    def rows(self, values: Tensor) -> Tensor:
        """Return values (..., R) as rows (..., S, N) that share their scene."""
        return values.unflatten(-1, (-1, self.row_length))

    def spread(self, table: Tensor) -> Tensor:
        """Return the columns of ``table`` (..., G) that belong to the rows: (..., S, 1)."""
        return table.index_select(-1, self.scenes_R[:: self.row_length])[..., None]

    def spread_viewers(self, viewers: Viewers) -> Viewers:
        """Return the viewers of each row's scene."""
        fields = (viewers.positions, viewers.right, viewers.up, viewers.forward)
        return Viewers(*map(self.spread, fields))


class Frame:
    """The pixels of an image, their samples and their noise.

    Noise depends on the pixel, the sample and the seed, not on the scene.

    Attributes:
        shape: height and width (pixels).
        num_pixels: A.
        num_samples: Q.
        x_QA, y_QA: how far right of and above the axis the samples are, at distance 1.
        offsets_2LQA: the point of each light that a sample's shadow rays aim at, see ``Rays``.
    """

    def __init__(
        self, height: int, width: int, samples_per_pixel: int, seed: int, device: torch.device
    ) -> None:
        self.shape = (height, width)
        self.num_pixels = height * width
        self.num_samples = samples_per_pixel
        self.offsets_2LQA = self._light_offsets(seed).to(device)
        x_QA, y_QA = self._plane_points()
        self.x_QA, self.y_QA = x_QA.to(device), y_QA.to(device)

    def pixel_ranges(self, limit: int) -> Iterator[slice]:
        """Yield ranges of pixels that make at most ``limit`` rays each, or one pixel."""
        step = max(1, limit // self.num_samples)
        for start in range(0, self.num_pixels, step):
            yield slice(start, min(start + step, self.num_pixels))

    def rays(self, cameras: Viewers, pixels: slice) -> Rays:
        """Return the camera rays through ``pixels``, ordered by scene, then sample, then pixel."""
        num_scenes = cameras.positions.shape[1]
        x_R, y_R = self.x_QA[:, pixels].reshape(-1), self.y_QA[:, pixels].reshape(-1)
        forward, right, up = (
            axis_3G[:, :, None] for axis_3G in (cameras.forward, cameras.right, cameras.up)
        )
        directions_3GR = normalize(forward + x_R * right + y_R * up)
        origins_3GR = cameras.positions[:, :, None].expand_as(directions_3GR)
        scenes_R = torch.arange(num_scenes, device=x_R.device).repeat_interleave(len(x_R))
        offsets_2LQA = self.offsets_2LQA[..., pixels].flatten(2)
        return Rays(
            origins_3GR.reshape(3, -1),
            directions_3GR.reshape(3, -1),
            scenes_R,
            offsets_2LQA.repeat(1, 1, num_scenes),
            torch.full_like(scenes_R, NO_PRIMITIVE),
            len(x_R),
        )

    def _light_offsets(self, seed: int) -> Tensor:
        """Return one point of each light (the sun included) for every sample: (2, L, Q, A)."""
        generator = torch.Generator().manual_seed(seed)
        start_2L1A = torch.rand(2, len(LIGHTS) + 1, 1, self.num_pixels, generator=generator)
        step_2111 = torch.tensor(R2_SEQUENCE)[:, None, None, None]
        samples_Q1 = torch.arange(self.num_samples)[:, None]
        return (start_2L1A + samples_Q1 * step_2111).frac() - 0.5

    def _plane_points(self) -> tuple[Tensor, Tensor]:
        """Return how far right of and above the axis the samples (Q, A) are, at distance 1."""
        height, width = self.shape
        samples_Q1 = torch.arange(self.num_samples)[:, None]
        jitter_x, jitter_y = ((samples_Q1 * step + 0.5).frac() for step in R2_SEQUENCE)
        pixels_A = torch.arange(self.num_pixels)
        columns_A, rows_A = pixels_A % width, pixels_A.div(width, rounding_mode="floor")
        x_QA = ((columns_A + jitter_x) * (2 / width) - 1) * HALF_WIDTH
        y_QA = (1 - (rows_A + jitter_y) * (2 / height)) * (HALF_WIDTH / ASPECT)
        return x_QA, y_QA

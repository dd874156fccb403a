"""How an input image enters the model. Output images are always codes, one token each.

codes   its codes, embedded like any other token (the paper's way)
grid    its codes, each mixed with its neighbours by two convolutions over the grid
pixels  its pixels, through convolutions that halve both sides; its tokens then hold no codes

An image is an input that this part sees when it opens the sequence: BOS, IMAGE-START, tokens,
IMAGE-END. The task decides that, the same way for every sample of it.

Shapes: B samples, L positions, P tokens of an input image, S = sqrt(P) of them a side, D width, C
dimensions of a code vector, H and W pixels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kyvo.common.errors import InputError
from kyvo.images.preprocessing import to_model_range
from kyvo.models.embedding import MixedEmbedding
from kyvo.tokens.vocabulary import Vocabulary

ImageInputKind = Literal["codes", "grid", "pixels"]
_FIRST = 2
"""Position of an input image's first token: BOS and IMAGE-START come before it."""
_MOST_CHANNELS = 512


@dataclass(frozen=True)
class ImageInputOptions:
    """The model's arguments about input images.

    Attributes:
        num_tokens: tokens of an input image, a square number.
        kind: codes, grid or pixels.
        image_size: side of the images in pixels; of pixels only.
        channels: of the first convolution; each further one doubles them, up to 512.
        positions: add learned embeddings of an input token's row and column.
        prefix: let the tokens of an input image attend to all of it, not only to those before.
    """

    num_tokens: int
    kind: ImageInputKind = "codes"
    image_size: int = 0
    channels: int = 64
    positions: bool = False
    prefix: bool = False

    @property
    def side(self) -> int:
        """Tokens along a side."""
        return round(self.num_tokens**0.5)

    @property
    def for_data(self) -> dict[str, int]:
        """What a data set must know of a model that reads pixels; else nothing."""
        if self.kind != "pixels":
            return {}
        return {"pixel_tokens": self.num_tokens, "image_size": self.image_size}

    def __post_init__(self) -> None:
        if self.num_tokens < 1 or self.side**2 != self.num_tokens:
            raise InputError(
                f"image_input: num_tokens {self.num_tokens}: expected a square number such as 64."
            )
        if self.kind not in get_args(ImageInputKind):
            raise InputError(
                f"image_input: kind {self.kind!r}: expected {', '.join(get_args(ImageInputKind))}."
            )
        patch = self.image_size / self.side
        if self.kind == "pixels" and patch not in (2.0, 4.0, 8.0, 16.0, 32.0):
            raise InputError(
                f"image_input: image_size {self.image_size} pixels for {self.side} x {self.side} "
                "tokens: expected 2, 4, 8, 16 or 32 pixels a token along each side."
            )


def build_image_input(
    values: Mapping[str, Any] | None, vocabulary: Vocabulary, width: int, codebook_dim: int
) -> "ImageInput | None":
    """The part of a config's ``image_input``; None without one."""
    if values is None:
        return None
    return ImageInput(ImageInputOptions(**values), vocabulary, width, codebook_dim)


class ImageInput(nn.Module):
    """Puts input images into the embedded sequence, and says who attends to them.

    Attributes:
        options: as given.
        prefix_length: positions from BOS to IMAGE-END of an input image.
    """

    def __init__(
        self, options: ImageInputOptions, vocabulary: Vocabulary, width: int, codebook_dim: int
    ) -> None:
        super().__init__()
        self.options = options
        self.prefix_length = _FIRST + options.num_tokens + 1
        self._start_id, self._first_code = vocabulary.brackets("image")[0], vocabulary.image.start
        if options.kind == "grid":
            self.encoder = nn.Sequential(
                nn.Conv2d(codebook_dim, width // 2, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(width // 2, width, 3, padding=1),
            )
        elif options.kind == "pixels":
            self.encoder = nn.Sequential(*_stem(options, width))
        if options.positions:
            self.rows = nn.Parameter(torch.zeros(options.side, 1, width))
            self.columns = nn.Parameter(torch.zeros(1, options.side, width))

    def has_image(self, tokens_BL: Tensor) -> Tensor:
        """Which samples (B,) open with an image."""
        return tokens_BL[:, 1] == self._start_id

    def forward(
        self,
        h_BLD: Tensor,
        tokens_BL: Tensor,
        embedding: MixedEmbedding,
        pixels_BHWC: Tensor | None = None,
    ) -> Tensor:
        """The embedded sequence with its input images.

        Args:
            pixels_BHWC: uint8, of each sample's input image; anything where it has none; None:
                no sample has one, or pixels are not what enters.
        """
        stop = _FIRST + self.options.num_tokens
        if h_BLD.shape[1] < stop or (self.options.kind == "pixels" and pixels_BHWC is None):
            return h_BLD
        before_BLD, image_BPD, after_BLD = h_BLD.tensor_split((_FIRST, stop), dim=1)
        if self.options.kind == "grid":
            codes_BP = (tokens_BL[:, _FIRST:stop] - self._first_code).clamp(
                0, embedding.vqgan_codebook.num_embeddings - 1
            )
            vectors_BPC = F.embedding(codes_BP, embedding.vqgan_codebook.weight)
            found_BPD = image_BPD + self._encode(vectors_BPC.mT.unflatten(-1, self._grid))
        elif pixels_BHWC is not None and self.options.kind == "pixels":
            found_BPD = self._encode(to_model_range(pixels_BHWC).to(h_BLD.dtype))
        else:
            found_BPD = image_BPD
        if self.options.positions:
            found_BPD = found_BPD + (self.rows + self.columns).flatten(0, 1)
        has_image_B11 = self.has_image(tokens_BL)[:, None, None]
        image_BPD = torch.where(has_image_B11, found_BPD.to(h_BLD.dtype), image_BPD)
        return torch.cat([before_BLD, image_BPD, after_BLD], dim=1)

    @property
    def _grid(self) -> tuple[int, int]:
        return self.options.side, self.options.side

    def _encode(self, x_BCHW: Tensor) -> Tensor:
        """Tokens (B, P, D) of images or grids."""
        return self.encoder(x_BCHW).flatten(2).mT


def _stem(options: ImageInputOptions, width: int) -> Iterator[nn.Module]:
    """Convolutions of stride 2, the first of 6 x 6 pixels, then a linear map to the width."""
    num_halvings = round(options.image_size / options.side).bit_length() - 1
    before = 3
    for level in range(num_halvings):
        channels = min(options.channels << level, _MOST_CHANNELS)
        kernel, padding = (6, 2) if level == 0 else (4, 1)
        yield nn.Conv2d(before, channels, kernel, stride=2, padding=padding)
        yield nn.GELU()
        before = channels
    yield nn.Conv2d(before, width, 1)

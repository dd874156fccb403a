"""VQGAN: images to a grid of discrete codes and back (Esser et al. 2021, arXiv:2012.09841).

The state dict has exactly the keys and shapes of taming-transformers' models.
Shape legend: B batch, C channels, H height, W width (of images or of code grids), D embedding
dimensions, K codes.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kyvo.common.errors import InputError
from kyvo.images.layers import BlockOptions, Decoder, Encoder, pyramid
from kyvo.images.quantizers import GumbelQuantizer, NearestQuantizer


@dataclass(frozen=True)
class VQGANConfig:
    """Shape of a VQGAN; names as in taming-transformers' yaml.

    Attributes:
        embed_dim: dimensions of a code vector.
        n_embed: number of codes.
        z_channels: channels of the encoder's output.
        resolution: side of the square training images, pixels.
        ch: channels at full resolution, before ``ch_mult``.
        ch_mult: channels of each level, as multiples of ``ch``; each level after the first halves
            the side.
        num_res_blocks: residual blocks of a level (the decoder has one more).
        attn_resolutions: sides at which blocks are followed by attention, pixels.
        in_channels: channels of the images that are read.
        out_ch: channels of the images that are written.
        double_z: mean and variance in place of features, as in KL autoencoders; must be False.
        dropout: share of the features that residual blocks drop in training.
        num_groups: groups of channels that are normalised together; taming's code has 32 always.
        quantizer: nearest code vector, or the largest of one logit a code.

    Raises:
        InputError: on construction, where the numbers do not fit together.
    """

    embed_dim: int
    n_embed: int
    z_channels: int
    resolution: int
    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    attn_resolutions: tuple[int, ...]
    in_channels: int = 3
    out_ch: int = 3
    double_z: bool = False
    dropout: float = 0.0
    num_groups: int = 32
    quantizer: Literal["nearest", "gumbel"] = "nearest"

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise InputError("VQGAN config: " + "; ".join(problems))

    @property
    def downsampling_factor(self) -> int:
        """Pixels per code along each side (f)."""
        return 2 ** (len(self.ch_mult) - 1)

    @property
    def codes_per_side(self) -> int:
        """Codes along each side of an image of the training resolution."""
        return self.resolution // self.downsampling_factor

    def _problems(self) -> list[str]:
        sizes = (self.embed_dim, self.n_embed, self.z_channels, self.ch, self.num_res_blocks)
        checks = {
            "sizes and num_res_blocks must be positive": min(*sizes, *self.ch_mult, 1) < 1,
            "ch_mult must not be empty": not self.ch_mult,
            f"ch {self.ch} must be a multiple of num_groups {self.num_groups}": self.num_groups < 1
            or self.ch % self.num_groups,
            f"resolution {self.resolution} must be a positive multiple of "
            f"{self.downsampling_factor}": self.resolution < 1
            or self.resolution % self.downsampling_factor,
            "double_z must be false": self.double_z,
            f"dropout {self.dropout} must be in [0, 1)": not 0 <= self.dropout < 1,
            "a gumbel quantizer needs embed_dim equal to z_channels": self.quantizer == "gumbel"
            and self.embed_dim != self.z_channels,
        }
        return [message for message, failed in checks.items() if failed]


class VQGAN(nn.Module):
    """Encoder, quantiser and decoder.

    ``encode`` and ``decode`` are the way through codes; ``features`` and ``decode_embeddings``
    are the two halves without the quantiser, which training joins differently.
    """

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        stages = pyramid(config.resolution, config.ch, config.ch_mult)
        options = BlockOptions(
            config.num_res_blocks, config.attn_resolutions, config.dropout, config.num_groups
        )
        self.encoder = Encoder(stages, config.in_channels, config.z_channels, options)
        self.decoder = Decoder(stages, config.out_ch, config.z_channels, options)
        self.quantize = _build_quantizer(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    @property
    def codebook(self) -> Tensor:
        """The code vectors, (n_embed, embed_dim)."""
        return self.quantize.codebook

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Encoder output before quantisation, (B, embed_dim, H / f, W / f)."""
        return self.quant_conv(self.encoder(images_BCHW))

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Codes (B, H / f, W / f) int64 of images with values in [-1, 1]."""
        return self.quantize.codes(self.features(images_BCHW))

    def embed_codes(self, codes_BHW: Tensor) -> Tensor:
        """Code vectors laid out as a feature map, (B, embed_dim, H, W)."""
        return F.embedding(codes_BHW, self.codebook).permute(0, 3, 1, 2)

    def decode_embeddings(self, z_BDHW: Tensor) -> Tensor:
        """Images (B, out_ch, f H, f W) of code vectors; values may leave [-1, 1]."""
        return self.decoder(self.post_quant_conv(z_BDHW))

    def decode(self, codes_BHW: Tensor) -> Tensor:
        """Images (B, out_ch, f H, f W), clamped to [-1, 1], of codes (B, H, W) int64."""
        return self.decode_embeddings(self.embed_codes(codes_BHW)).clamp(-1, 1)


def _build_quantizer(config: VQGANConfig) -> NearestQuantizer | GumbelQuantizer:
    if config.quantizer == "gumbel":
        return GumbelQuantizer(config.n_embed, config.embed_dim, config.z_channels)
    return NearestQuantizer(config.n_embed, config.embed_dim)

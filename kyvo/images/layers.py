"""The convolutional layers, encoder and decoder of a VQGAN (Esser et al. 2021, arXiv:2012.09841).

Module names follow taming-transformers, so that its checkpoints load key by key.
Shape legend: B batch, C channels, H height, W width, P = H x W positions, G groups of N channels.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """One resolution of the pyramid: its side in pixels, and channels before and after it."""

    resolution: int
    in_channels: int
    out_channels: int


@dataclass(frozen=True)
class BlockOptions:
    """What all levels of an encoder and its decoder share.

    Attributes:
        num_res_blocks: residual blocks of a level.
        attn_resolutions: sides of the feature maps that attention follows, pixels.
        dropout: share of activations that training drops in each block.
        num_groups: groups of channels that are normalised together.
    """

    num_res_blocks: int
    attn_resolutions: tuple[int, ...]
    dropout: float
    num_groups: int


def pyramid(resolution: int, ch: int, ch_mult: Sequence[int]) -> list[Stage]:
    """The encoder's stages, full resolution first; each further one halves the side."""
    widths = [ch, *(ch * factor for factor in ch_mult)]
    return [
        Stage(resolution // 2**level, before, after)
        for level, (before, after) in enumerate(itertools.pairwise(widths))
    ]


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and SiLU, added to their input."""

    def __init__(self, in_channels: int, out_channels: int, options: BlockOptions) -> None:
        super().__init__()
        self.norm1 = _group_norm(options, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _group_norm(options, out_channels)
        self.dropout = nn.Dropout(options.dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut: nn.Module | None = None
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden_BCHW = self.conv1(F.silu(self.norm1(x_BCHW)))
        hidden_BCHW = self.conv2(self.dropout(F.silu(self.norm2(hidden_BCHW))))
        shortcut_BCHW = x_BCHW if self.nin_shortcut is None else self.nin_shortcut(x_BCHW)
        return shortcut_BCHW + hidden_BCHW


class AttnBlock(nn.Module):
    """Single-head self-attention over all positions, added to its input."""

    def __init__(self, channels: int, options: BlockOptions) -> None:
        super().__init__()
        self.norm = _group_norm(options, channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        normed_BCHW = self.norm(x_BCHW)
        query, key, value = (
            conv(normed_BCHW).flatten(2).transpose(1, 2) for conv in (self.q, self.k, self.v)
        )
        attended_BPC = F.scaled_dot_product_attention(query, key, value)
        attended_BCHW = attended_BPC.transpose(1, 2).reshape(x_BCHW.shape)
        return x_BCHW + self.proj_out(attended_BCHW)


class Downsample(nn.Module):
    """Halve the side with a strided convolution, padded on the right and at the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the side by repeating pixels, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention at the config's resolutions."""

    def __init__(
        self, stage: Stage, in_channels: int, num_blocks: int, options: BlockOptions
    ) -> None:
        super().__init__()
        width = stage.out_channels
        inputs = [in_channels] + [width] * (num_blocks - 1)
        attention = stage.resolution in options.attn_resolutions
        self.block = nn.ModuleList(ResnetBlock(channels, width, options) for channels in inputs)
        self.attn = nn.ModuleList(AttnBlock(width, options) for _ in inputs if attention)
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x_BCHW = block(x_BCHW)
            if self.attn:
                x_BCHW = self.attn[index](x_BCHW)
        for resample in (self.downsample, self.upsample):
            if resample is not None:
                x_BCHW = resample(x_BCHW)
        return x_BCHW


class Middle(nn.Module):
    """The blocks at the lowest resolution: residual, attention, residual."""

    def __init__(self, channels: int, options: BlockOptions) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, options)
        self.attn_1 = AttnBlock(channels, options)
        self.block_2 = ResnetBlock(channels, channels, options)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x_BCHW)))


class Encoder(nn.Module):
    """Images (B, in_channels, R, R) to features (B, z_channels, R / f, R / f)."""

    def __init__(
        self,
        stages: Sequence[Stage],
        in_channels: int,
        z_channels: int,
        options: BlockOptions,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, stages[0].in_channels, 3, padding=1)
        self.down = nn.ModuleList()
        for stage in stages:
            level = Level(stage, stage.in_channels, options.num_res_blocks, options)
            if stage is not stages[-1]:
                level.downsample = Downsample(stage.out_channels)
            self.down.append(level)
        width = stages[-1].out_channels
        self.mid = Middle(width, options)
        self.norm_out = _group_norm(options, width)
        self.conv_out = nn.Conv2d(width, z_channels, 3, padding=1)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        x_BCHW = self.conv_in(images_BCHW)
        for level in self.down:
            x_BCHW = level(x_BCHW)
        return self.conv_out(F.silu(self.norm_out(self.mid(x_BCHW))))


class Decoder(nn.Module):
    """Features (B, z_channels, R / f, R / f) to images (B, out_channels, R, R), not clamped."""

    def __init__(
        self,
        stages: Sequence[Stage],
        out_channels: int,
        z_channels: int,
        options: BlockOptions,
    ) -> None:
        super().__init__()
        width = stages[-1].out_channels
        self.conv_in = nn.Conv2d(z_channels, width, 3, padding=1)
        self.mid = Middle(width, options)
        self.up = nn.ModuleList()
        for stage, width in zip(stages, _widths_from_below(stages), strict=True):
            level = Level(stage, width, options.num_res_blocks + 1, options)
            if stage is not stages[0]:
                level.upsample = Upsample(stage.out_channels)
            self.up.append(level)
        self.norm_out = _group_norm(options, stages[0].out_channels)
        self.conv_out = nn.Conv2d(stages[0].out_channels, out_channels, 3, padding=1)

    @property
    def last_layer(self) -> Tensor:
        """The weight that the adaptive adversarial weight compares gradients at."""
        return self.conv_out.weight

    def forward(self, z_BCHW: Tensor) -> Tensor:
        x_BCHW = self.mid(self.conv_in(z_BCHW))
        for level in reversed(self.up):
            x_BCHW = level(x_BCHW)
        return self.conv_out(F.silu(self.norm_out(x_BCHW)))


class GroupNorm(nn.GroupNorm):
    """torch's, which when compiled keeps its input's memory layout and precision.

    torch's kernel for GPUs copies channels-last maps to the other layout and, under autocast, to
    float32; the convolution after it copies them back.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if torch.compiler.is_compiling():
            return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        return super().forward(input)


def group_norm(
    x_BCHW: Tensor, num_groups: int, weight_C: Tensor, bias_C: Tensor, eps: float
) -> Tensor:
    """``F.group_norm`` as operations that a compiler fuses with their neighbours.

    Moments are taken over each channel's positions first, which reads channels-last maps in the
    order of their memory, and then over the few values of a group; all of it in float32.
    """
    batch, channels = x_BCHW.shape[:2]
    var_BC, mean_BC = torch.var_mean(x_BCHW.float(), dim=(2, 3), correction=0)
    mean_BGN = mean_BC.view(batch, num_groups, channels // num_groups)
    # The variance of a group: that within its channels, and that of their means.
    var_BG1 = (var_BC.view_as(mean_BGN)).mean(2, keepdim=True)
    var_BG1 = var_BG1 + mean_BGN.var(2, correction=0, keepdim=True)
    rstd_BC = (var_BG1 + eps).rsqrt().expand_as(mean_BGN).flatten(1)
    group_mean_BC = mean_BGN.mean(2, keepdim=True).expand_as(mean_BGN).flatten(1)
    scale_BC = rstd_BC * weight_C
    shift_BC = bias_C - group_mean_BC * scale_BC
    normed_BCHW = x_BCHW.float() * scale_BC[..., None, None] + shift_BC[..., None, None]
    return normed_BCHW.to(x_BCHW.dtype)


def _group_norm(options: BlockOptions, channels: int) -> nn.GroupNorm:
    return GroupNorm(options.num_groups, channels, eps=1e-6)


def _widths_from_below(stages: Sequence[Stage]) -> Iterator[int]:
    """Channels that each decoder level gets from the next lower resolution."""
    yield from (stage.out_channels for stage in stages[1:])
    yield stages[-1].out_channels

"""The patch discriminator of VQGAN training (PatchGAN, Isola et al. 2017, arXiv:1611.07004)."""

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Images (B, 3, H, W) to one logit per overlapping patch, (B, 1, h, w).

    ``num_layers`` strided convolutions, each doubling the channels up to 8 x ``width``, then two
    convolutions without stride. With 3 layers a patch is 70 x 70 pixels.
    """

    def __init__(self, in_channels: int = 3, width: int = 64, num_layers: int = 3) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(num_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for level in range(1, num_layers + 1):
            stride = 2 if level < num_layers else 1
            layers += [
                nn.Conv2d(widths[level - 1], widths[level], 4, stride, 1, bias=False),
                nn.BatchNorm2d(widths[level]),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.main = nn.Sequential(*layers)
        self.main.apply(_start)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.main(images_BCHW)


def _start(layer: nn.Module) -> None:
    """Small normal weights, as the DCGAN paper found to train stably."""
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
        nn.init.zeros_(layer.bias)

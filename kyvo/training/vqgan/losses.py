"""The terms of the VQGAN's training loss (Esser et al. 2021, section 3.1, and LPIPS).

Shape legend: B batch, C channels, H height, W width.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kyvo.common.weight_files import check_weights, read_state_dict
from kyvo.training.vqgan.config import LossConfig

# Channels of VGG16's convolutions; a new group starts after each pooling.
_VGG16_GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_MAX_ADAPTIVE_WEIGHT = 1e4


class PerceptualLoss(nn.Module):
    """LPIPS: distance between VGG16 features of two images (Zhang et al. 2018).

    Features of five depths are scaled to unit length over the channels; their squared
    differences are weighted per channel by learnt heads and averaged over positions.
    """

    shift: Tensor
    scale: Tensor
    heads: nn.ModuleList

    def __init__(self) -> None:
        super().__init__()
        self.features = _vgg16_features()
        self.heads = nn.ModuleList(
            nn.Conv2d(group[-1], 1, 1, bias=False) for group in _VGG16_GROUPS
        )
        # ImageNet's mean and deviation for images in [-1, 1], as LPIPS states them.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
        """Mean distance over the batch, a scalar; images in [-1, 1]."""
        pairs = zip(self._depths(first_BCHW), self._depths(second_BCHW), strict=True)
        distances = [
            head((first - second).square()).mean()
            for head, (first, second) in zip(self.heads, pairs, strict=True)
        ]
        return torch.stack(distances).sum()

    def _depths(self, images_BCHW: Tensor) -> list[Tensor]:
        x_BCHW = (images_BCHW - self.shift) / self.scale
        depths = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                depths.append(F.normalize(x_BCHW, dim=1, eps=1e-10))
            x_BCHW = layer(x_BCHW)
        return depths


def load_perceptual_loss(config: LossConfig) -> PerceptualLoss | None:
    """LPIPS from torchvision's VGG16 file (its classifier excluded) and LPIPS's heads.

    None if the config has no perceptual term.

    Raises:
        InputError: a file is missing or does not hold the expected weights.
    """
    vgg16_weights, lpips_weights = config.vgg16_weights, config.lpips_weights
    if not config.perceptual or vgg16_weights is None or lpips_weights is None:
        return None
    loss = PerceptualLoss()
    features = read_state_dict(vgg16_weights, "VGG16 weights")
    features = {k: v for k, v in features.items() if not k.startswith("classifier.")}
    heads = {f"features.{k}": v for k, v in loss.features.state_dict().items()}
    check_weights(features, heads, f"VGG16 weights: {vgg16_weights}")
    loss.features.load_state_dict({k.removeprefix("features."): v for k, v in features.items()})
    named = {f"lin{i}.model.1.weight": weight for i, weight in enumerate(loss.heads.parameters())}
    lpips = read_state_dict(lpips_weights, "LPIPS weights")
    check_weights(lpips, named, f"LPIPS weights: {lpips_weights}")
    for name, weight in named.items():
        weight.data.copy_(lpips[name])
    return loss


def reconstruction_loss(output_BCHW: Tensor, target_BCHW: Tensor, config: LossConfig) -> Tensor:
    """Weighted mean absolute and squared error, a scalar."""
    error_BCHW = output_BCHW - target_BCHW
    return config.l1 * error_BCHW.abs().mean() + config.l2 * error_BCHW.square().mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Hinge loss: real logits should exceed 1, fake ones stay below -1."""
    return 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Ratio of the two losses' gradient norms at the decoder's last layer, at most 10,000.

    It keeps the adversarial term about as strong as the reconstruction term.
    """
    (rec_grad,) = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)
    (adv_grad,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    ratio = rec_grad.norm() / (adv_grad.norm() + 1e-4)
    return ratio.clamp(0, _MAX_ADAPTIVE_WEIGHT).detach()


def _vgg16_features() -> nn.Sequential:
    """VGG16's convolutional part, numbered as in torchvision; ReLUs not in place."""
    layers: list[nn.Module] = []
    widths = itertools.chain([3], *_VGG16_GROUPS)
    for group in _VGG16_GROUPS:
        for channels in group:
            layers += [nn.Conv2d(next(widths), channels, 3, padding=1), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)

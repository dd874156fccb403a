import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from vqgan_fixtures import named_tensor

from kyvo.common.errors import InputError
from kyvo.training.vqgan.config import LossConfig
from kyvo.training.vqgan.discriminator import PatchDiscriminator
from kyvo.training.vqgan.losses import (
    PerceptualLoss,
    adaptive_weight,
    discriminator_loss,
    load_perceptual_loss,
    reconstruction_loss,
)

PLAIN = LossConfig(l1=2.0, l2=3.0, commitment=0.25, codebook=1.0)
# VGG16's convolutions in torchvision's numbering; a pooling follows each group.
GROUPS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


def test_reconstruction_loss_in_closed_form() -> None:
    target = torch.zeros(1, 3, 2, 2)
    output = torch.full((1, 3, 2, 2), 0.5)
    assert reconstruction_loss(output, target, PLAIN).item() == pytest.approx(2 * 0.5 + 3 * 0.25)


def test_hinge_loss_in_closed_form() -> None:
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0])
    assert discriminator_loss(real, fake).item() == pytest.approx(0.5 * (0.25 + 1.0))


def test_adaptive_weight_is_the_ratio_of_gradients() -> None:
    layer = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    strong, weak = 6 * layer[0] + 8 * layer[1], 0.3 * layer[0] + 0.4 * layer[1]
    assert adaptive_weight(strong, weak, layer).item() == pytest.approx(20, rel=1e-3)
    assert adaptive_weight(strong, 0 * layer.sum(), layer).item() == pytest.approx(1e4)


def test_discriminator_patches_are_70_pixels_wide() -> None:
    critic = PatchDiscriminator().eval()
    images = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    images.requires_grad_(True)
    logits = critic(images)
    assert logits.shape == (1, 1, 14, 14)
    logits[0, 0, 7, 7].backward()
    seen = images.grad[0].abs().sum(0) > 0
    assert seen.any(0).sum() == 70
    assert seen.any(1).sum() == 70


def weight_files(folder: Path) -> tuple[Path, Path]:
    shapes = {n: tuple(v.shape) for n, v in PerceptualLoss().features.state_dict().items()}
    vgg = {f"features.{n}": named_tensor(n, shape) for n, shape in shapes.items()}
    vgg["classifier.0.weight"] = torch.zeros(2, 2)
    widths = (64, 128, 256, 512, 512)
    heads = {
        f"lin{i}.model.1.weight": named_tensor(f"lin{i}", (1, width, 1, 1)).abs()
        for i, width in enumerate(widths)
    }
    torch.save(vgg, folder / "vgg16.pth")
    torch.save(heads, folder / "lpips.pth")
    return folder / "vgg16.pth", folder / "lpips.pth"


def perceptual_loss(vgg_path: Path, lpips_path: Path) -> PerceptualLoss:
    config = dataclasses.replace(
        PLAIN, perceptual=1.0, vgg16_weights=vgg_path, lpips_weights=lpips_path
    )
    loss = load_perceptual_loss(config)
    assert loss is not None
    return loss


def naive_lpips(first: torch.Tensor, second: torch.Tensor, vgg: dict, heads: dict) -> float:
    mean = np.array([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    deviation = np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    pair = [torch.from_numpy(((x.numpy() + 1) / 2 - mean) / deviation) for x in (first, second)]
    total = 0.0
    for depth, group in enumerate(GROUPS):
        for number in group:
            weight = vgg[f"features.{number}.weight"].double()
            bias = vgg[f"features.{number}.bias"].double()
            pair = [F.conv2d(x, weight, bias, padding=1).clamp_min(0) for x in pair]
        units = [x / x.square().sum(1, keepdim=True).sqrt() for x in pair]
        head = heads[f"lin{depth}.model.1.weight"].double()
        total += ((units[0] - units[1]).square() * head).sum(1).mean().item()
        pair = [F.max_pool2d(x, 2) for x in pair]
    return total


def test_perceptual_loss_matches_a_naive_one(tmp_path: Path) -> None:
    vgg_path, lpips_path = weight_files(tmp_path)
    loss = perceptual_loss(vgg_path, lpips_path)
    rng = np.random.default_rng(0)
    first, second = (
        torch.from_numpy(rng.uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)) for _ in range(2)
    )
    vgg, heads = (torch.load(path, weights_only=True) for path in (vgg_path, lpips_path))
    expected = naive_lpips(first, second, vgg, heads)
    assert loss(first, second).item() == pytest.approx(expected, rel=0.01)
    assert loss(first, first).item() == 0


def test_without_the_perceptual_term_no_weights_are_read() -> None:
    assert load_perceptual_loss(PLAIN) is None


def test_wrong_perceptual_weights_are_refused(tmp_path: Path) -> None:
    vgg_path, lpips_path = weight_files(tmp_path)
    with pytest.raises(InputError, match=r"missing: lin0\.model"):
        perceptual_loss(vgg_path, vgg_path)
    weights = torch.load(vgg_path, weights_only=True)
    del weights["features.28.bias"]
    torch.save(weights, vgg_path)
    with pytest.raises(InputError, match=r"missing: features\.28\.bias"):
        perceptual_loss(vgg_path, lpips_path)


def test_perceptual_term_needs_its_weights() -> None:
    with pytest.raises(InputError, match="vgg16_weights"):
        LossConfig(l1=1.0, l2=0.0, commitment=0.25, codebook=1.0, perceptual=1.0)

"""Our VQGAN against taming-transformers' own modules, given the same weights.

Runs where the submodule ``taming-transformers`` is checked out (``git submodule update --init``),
or where the environment variable KYVO_TAMING_SOURCE names a folder that holds its ``taming``.
Only single source files are loaded: its other dependencies are not needed.
Shape legend: B batch, C channels, H height, W width, D embedding dimensions.
"""

import dataclasses
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kyvo.images.vqgan import VQGAN, VQGANConfig
from kyvo.training.vqgan.discriminator import PatchDiscriminator
from kyvo.training.vqgan.losses import PerceptualLoss, load_perceptual_loss

ROOT = Path(__file__).parents[2]
SOURCE = Path(os.environ.get("KYVO_TAMING_SOURCE", ROOT / "taming-transformers"))
TOLERANCE = 1e-4  # float32, values of the order of 1; 1/255 is 4e-3
LPIPS_CHANNELS = (64, 128, 256, 512, 512)

pytestmark = pytest.mark.skipif(
    not (SOURCE / "taming").is_dir(), reason=f"taming-transformers is not checked out in {SOURCE}"
)

SMALL = VQGANConfig(
    embed_dim=8,
    n_embed=32,
    z_channels=16,
    resolution=32,
    ch=32,
    ch_mult=(1, 2),
    num_res_blocks=1,
    attn_resolutions=(),
)
RELEASED_SHAPE = dataclasses.replace(
    SMALL,
    embed_dim=32,
    n_embed=128,
    z_channels=32,
    resolution=64,
    ch_mult=(1, 1, 2, 2, 4),
    num_res_blocks=2,
    attn_resolutions=(4,),
)
GUMBEL = dataclasses.replace(
    SMALL,
    embed_dim=16,
    n_embed=64,
    resolution=64,
    ch_mult=(1, 1, 2, 4),
    num_res_blocks=2,
    attn_resolutions=(8, 32),
    quantizer="gumbel",
)


def load(name: str) -> ModuleType:
    """Run one file of the source as a module, leaving no compiled file in its folder."""
    path = SOURCE.joinpath(*name.split(".")).with_suffix(".py")
    module = ModuleType(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    return module


def provide(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    """Let the source import ``members`` from module ``name``."""
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def rearrange(x: Tensor, pattern: str) -> Tensor:
    """What the source uses of einops: a permutation of named axes."""
    before, after = (side.split() for side in pattern.split("->"))
    return x.permute([before.index(axis) for axis in after])


class Reference(nn.Module):
    """The source's parts, named as in its VQModel and GumbelVQ."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        model = load("taming.modules.diffusionmodules.model")
        quantize = load("taming.modules.vqvae.quantize")
        self.encoder = model.Encoder(**dataclasses.asdict(config))
        self.decoder = model.Decoder(**dataclasses.asdict(config))
        if config.quantizer == "gumbel":
            sizes = (config.z_channels, config.embed_dim, config.n_embed)
            self.quantize = quantize.GumbelQuantize(*sizes)
        else:
            self.quantize = quantize.VectorQuantizer2(
                config.n_embed, config.embed_dim, beta=0.25, sane_index_shape=True
            )
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)


Pair = tuple[VQGAN, Reference, Tensor]


@pytest.fixture
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """Our model and the source's with the same random weights, and the source's features."""
    provide(monkeypatch, "einops", rearrange=rearrange)
    torch.manual_seed(0)
    ours, theirs = VQGAN(request.param).eval(), Reference(request.param).eval()
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        features_BDHW = theirs.quant_conv(theirs.encoder(images_of(request.param)))
        spread_codes(ours.codebook, features_BDHW)
        theirs.load_state_dict(ours.state_dict())
        yield ours, theirs, features_BDHW


def spread_codes(codebook_KD: Tensor, features_BDHW: Tensor) -> None:
    """Put the codes near features, so that different positions take different ones."""
    vectors_ND = features_BDHW.permute(0, 2, 3, 1).flatten(0, 2)
    chosen_KD = vectors_ND[torch.randint(len(vectors_ND), (len(codebook_KD),))]
    codebook_KD.copy_(chosen_KD + 0.1 * vectors_ND.std(dim=0) * torch.randn_like(chosen_KD))


def images_of(config: VQGANConfig) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, config.resolution, config.resolution, generator=random) * 2 - 1


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


each_model = pytest.mark.parametrize(
    "pair", [SMALL, RELEASED_SHAPE, GUMBEL], indirect=True, ids=["small", "released", "gumbel"]
)


@each_model
def test_features(pair: Pair) -> None:
    ours, _, features_BDHW = pair
    assert features_BDHW.std() > 0.05
    assert_close(ours.features(images_of(ours.config)), features_BDHW)


@pytest.mark.parametrize("pair", [SMALL, RELEASED_SHAPE], indirect=True, ids=["small", "released"])
def test_nearest_codes(pair: Pair) -> None:
    ours, theirs, features_BDHW = pair
    codes_BHW = theirs.quantize(features_BDHW)[2][2]
    assert len(codes_BHW.unique()) > 10
    assert torch.equal(ours.quantize.codes(features_BDHW), codes_BHW)


@pytest.mark.parametrize("pair", [GUMBEL], indirect=True, ids=["gumbel"])
def test_gumbel_codes(pair: Pair) -> None:
    """The source draws codes from its logits; the likeliest one is what we take."""
    ours, theirs, features_BDHW = pair
    codes_BHW = theirs.quantize(features_BDHW, return_logits=True)[-1].argmax(dim=1)
    assert len(codes_BHW.unique()) > 3
    assert torch.equal(ours.quantize.codes(features_BDHW), codes_BHW)


@each_model
def test_pictures(pair: Pair) -> None:
    ours, theirs, features_BDHW = pair
    quantized_BDHW, _, (_, _, codes_BHW) = theirs.quantize(features_BDHW)
    picture_BCHW = theirs.decoder(theirs.post_quant_conv(quantized_BDHW))
    assert picture_BCHW.std() > 0.05
    assert_close(ours.decode(codes_BHW), picture_BCHW.clamp(-1, 1))


@pytest.mark.parametrize("training", [False, True])
def test_discriminator(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(monkeypatch, "taming.modules.util", **vars(load("taming.modules.util")))
    source = load("taming.modules.discriminator.model")
    torch.manual_seed(0)
    ours, theirs = PatchDiscriminator(3, 16, 3), source.NLayerDiscriminator(3, 16, 3)
    nn.init.normal_(ours.main[-1].weight)
    theirs.load_state_dict(ours.state_dict())
    images_BCHW = images_of(RELEASED_SHAPE)
    logits = theirs.train(training)(images_BCHW)
    assert_close(ours.train(training)(images_BCHW), logits)


def test_perceptual_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vgg16 = PerceptualLoss().features
    weights = {
        f"lin{i}.model.1.weight": torch.rand(1, n, 1, 1) for i, n in enumerate(LPIPS_CHANNELS)
    }
    torch.save({f"features.{k}": v for k, v in vgg16.state_dict().items()}, tmp_path / "vgg.pth")
    torch.save(weights, tmp_path / "lpips.pth")
    models = SimpleNamespace(vgg16=lambda pretrained: SimpleNamespace(features=vgg16))
    provide(monkeypatch, "torchvision", models=models)
    provide(monkeypatch, "taming.util", get_ckpt_path=lambda *_: tmp_path / "lpips.pth")
    theirs = load("taming.modules.losses.lpips").LPIPS().eval()
    ours = load_perceptual_loss(tmp_path / "vgg.pth", tmp_path / "lpips.pth")
    first_BCHW, second_BCHW = images_of(RELEASED_SHAPE)[:, None]
    distance = theirs(first_BCHW, second_BCHW).mean()
    assert distance > 0.05
    assert_close(ours(first_BCHW, second_BCHW), distance)

"""Every yaml of configs/ fits its class."""

from pathlib import Path

import pytest

from kyvo.config import load_config
from kyvo.decoding import GenerationConfig
from kyvo.images.training import VQGANTrainingConfig
from kyvo.training import TrainingConfig

ROOT = Path(__file__).parents[1]
KINDS = {
    "mini/train.yaml": TrainingConfig,
    "mini/eval/recognition.yaml": GenerationConfig,
    "mini/eval/rendering.yaml": GenerationConfig,
    "mini/vqgan.yaml": VQGANTrainingConfig,
    "vqgan/clevr.yaml": VQGANTrainingConfig,
}
PARTS = {"mini/model.yaml", "mini/eval/base.yaml", "mini/quickstart.yaml"}


@pytest.mark.parametrize("name", KINDS)
def test_configs_load(name: str) -> None:
    for folder in ("configs", "kyvo/configs"):
        assert isinstance(load_config(KINDS[name], ROOT / folder / name), KINDS[name])


def test_every_config_is_listed() -> None:
    found = {str(path.relative_to(ROOT / "configs")) for path in ROOT.glob("configs/**/*.yaml")}
    assert found == KINDS.keys() | PARTS


@pytest.mark.parametrize("name", sorted(KINDS.keys() | PARTS - {"mini/quickstart.yaml"}))
def test_every_key_is_commented(name: str) -> None:
    """On its line, or by the comment that heads its group of lines."""
    uncommented, is_covered = [], False
    for line in (ROOT / "configs" / name).read_text().splitlines():
        text = line.strip()
        is_covered = text.startswith("#") or (is_covered and bool(text))
        is_header = text.endswith(":") or text.startswith("_component_:")
        if text and not (is_covered or is_header or "#" in text):
            uncommented.append(text)
    assert uncommented == []

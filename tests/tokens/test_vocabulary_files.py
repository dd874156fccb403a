"""Vocabularies from yaml files: the presets written as files, and everything that is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kyvo.common.config import load_config
from kyvo.common.errors import InputError, InputErrors
from kyvo.tokens.vocabulary import NumberRange, get_vocabulary
from kyvo.training import TrainingConfig

ROOT = Path(__file__).parents[2]
MARKERS = ["[SIZE]", "[COLOR]", "[MATERIAL]", "[SHAPE]", "[LOCATION]"]
MINI: dict[str, Any] = {
    "text": "mini",
    "numbers": [{"low": -3, "high": 3, "step": 0.05}],
    "decimals": 3,
    "markers": MARKERS,
    "num_image_codes": 512,
}


def write(folder: Path, **changes: Any) -> str:
    path = folder / "vocabulary.yaml"
    path.write_text(yaml.safe_dump({**MINI, **changes}))
    return str(path)


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("mini", {}),
        ("clevr_005", {"text": "llama", "num_image_codes": 1024}),
        (
            "clevr",
            {
                "text": "llama",
                "numbers": [{"low": -3, "high": 3, "step": 0.005}],
                "num_image_codes": 1024,
            },
        ),
    ],
)
def test_a_preset_as_a_file_has_the_same_ids(
    preset: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    found, expected = get_vocabulary(write(tmp_path, **changes)), get_vocabulary(preset)
    assert found.size == expected.size
    assert (found.bos, found.eos, found.text) == (expected.bos, expected.eos, expected.text)
    assert found.shipped_tokenizer == expected.shipped_tokenizer
    assert [found.token_string(i) for i in range(found.size)] == [
        expected.token_string(i) for i in range(expected.size)
    ]
    assert found.image == expected.image


@given(st.integers(-300, 300), st.integers(0, 40), st.integers(1, 30))
def test_a_range_is_its_whole_tenths(low: int, count: int, step: int) -> None:
    """Counted in whole tenths, so that no rounding is shared with the code."""
    high = low + count * step
    found = NumberRange(low / 10, high / 10, step / 10).values
    assert found == tuple(tenths / 10 for tenths in range(low, high + 1, step))


def test_overlapping_ranges_share_their_ids(tmp_path: Path) -> None:
    numbers = [{"low": 0, "high": 1, "step": 0.5}, {"low": -1, "high": 2, "step": 1}]
    vocabulary = get_vocabulary(write(tmp_path, numbers=numbers, decimals=1))
    assert vocabulary.numbers == ("-1.0", "0.0", "0.5", "1.0", "2.0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "lama"}, "did you mean 'llama'"),
        ({"numbers": [{"low": 0, "high": 1, "step": 0.3}]}, "numbers[0]: 3.33333 steps"),
        ({"numbers": [{"low": 1, "high": 0, "step": 0.5}]}, "low <= high"),
        ({"numbers": [{"low": 0, "high": 1, "step": 0}]}, "step above 0"),
        ({"numbers": [{"low": 0, "high": float("inf"), "step": 1}]}, "finite"),
        ({"numbers": [{"low": 0, "high": 1e9, "step": 1e-3}]}, "100000 at most"),
        ({"decimals": 1}, "-2.95 cannot be written with 1 decimals"),
        ({"decimals": 9}, "0 to 6"),
        ({"markers": ["[SIZE]", "[SIZE]"]}, "is there twice"),
        ({"markers": ["[SCENE-START]"]}, "every vocabulary has it"),
        ({"markers": ["size"]}, "capitals in brackets"),
        ({"num_image_codes": 0}, "1 or more"),
        ({"shapes": 3}, "shapes: unknown key"),
    ],
)
def test_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(InputError) as error:
        get_vocabulary(path)
    assert message in str(error.value)
    assert path in str(error.value)


def test_every_problem_of_a_run_with_a_bad_file_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, decimals=1, markers=["size"], num_image_codes=0)
    with pytest.raises(InputErrors) as error:
        load_config(TrainingConfig, ROOT / "configs/mini/train.yaml", [f"vocabulary={path}"])
    text = str(error.value)
    assert "configs/mini/train.yaml" in text
    for part in (path, "-2.95 cannot", "marker 'size'", "num_image_codes"):
        assert part in text


def test_a_missing_file_and_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        get_vocabulary(str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match=r"known: clevr.*\.yaml file"):
        get_vocabulary("none")

"""Ids below the vocabulary's size that no table embeds are refused before training."""

import json
from pathlib import Path

import pytest

from kyvo.common.errors import InputError
from kyvo.data.dataset import kyvo_dataset
from kyvo.tokens.vocabulary import get_vocabulary

# The row that Objectron's spare number row leaves over, and a shape code.
CASES = [("objectron", 128371), ("paper", 129415)]


@pytest.mark.parametrize(("name", "token"), CASES)
def test_ids_without_a_meaning_are_refused(tmp_path: Path, name: str, token: int) -> None:
    images, scenes = tmp_path / "images.json", tmp_path / "scenes.json"
    images.write_text(json.dumps({"a": [0, 1, 2, 3]}))
    vocabulary = get_vocabulary(name)
    for ids, is_good in (([vocabulary.marker.stop - 1], True), ([token], False)):
        scenes.write_text(json.dumps({"a": {"token_ids": [*ids, vocabulary.marker.start]}}))
        arguments = {
            "vocabulary": vocabulary,
            "task": "I-3",
            "image_source": str(images),
            "three_d_source": str(scenes),
            "codes_per_image": 4,
        }
        if is_good:
            assert len(kyvo_dataset(**arguments)) == 1
        else:
            with pytest.raises(InputError, match=f"key 'a': id {token}"):
                kyvo_dataset(**arguments)

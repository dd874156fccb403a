"""The data set: joined by key, checked at the door, tasks drawn anew every epoch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kyvo.common.errors import InputError
from kyvo.data.dataset import KyvoDataset, kyvo_dataset
from kyvo.tokens.sequences import TASKS, SequenceBuilder
from kyvo.tokens.vocabulary import get_vocabulary

CLEVR = get_vocabulary("clevr")
GOLDENS = Path(__file__).parents[1] / "goldens/sequences"
NAMES = [f"{m}_{s}" for m in ("image", "three_d", "text") for s in ("source", "target")]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The goldens' sources, copied so that their caches lie in the test's own folder."""
    for name in NAMES:
        (tmp_path / f"{name}.json").write_text((GOLDENS / f"{name}.json").read_text())
    return {name: str(tmp_path / f"{name}.json") for name in NAMES}


def change(path: str, key: str, value: Any) -> None:
    content = json.loads(Path(path).read_text())
    content[key] = value
    Path(path).write_text(json.dumps(content))


def dataset(files: dict[str, str], task: str, **arguments: Any) -> KyvoDataset:
    return kyvo_dataset(
        vocabulary=CLEVR, task=task, **{"codes_per_image": 16, **files, **arguments}
    )


@pytest.mark.parametrize("task", ["3-I", "I+3+T-I+3", "I+3+Q-A"])
def test_equals_the_goldens(files: dict[str, str], task: str) -> None:
    golden = json.loads((GOLDENS / "sequences.json").read_text())[f"{task}|True|True"]
    data = dataset(files, task, centre_first="all")
    assert len(data) == len(golden)
    for i, expected in enumerate(golden):
        sample = data[i][1]
        assert sample.tokens.tolist() == expected["tokens"]
        assert sample.labels.tolist() == expected["labels"]


def test_keys_are_the_sorted_intersection(files: dict[str, str]) -> None:
    sources = [json.loads(Path(files[name]).read_text()) for name in NAMES[:2]]
    expected = sorted(set(sources[0]) & set(sources[1]))
    assert len(expected) < max(map(len, sources))
    data = dataset(files, "I+T-I")
    assert [data[i][0] for i in range(len(data))] == expected
    short = dataset(files, "I+T-I", max_samples=2)
    assert [short[i][0] for i in range(len(short))] == expected[:2]


def test_content_and_string_are_the_files(files: dict[str, str]) -> None:
    data = dataset(files, "I-3")
    image, scene = TASKS["I-3"].segments
    sources = [json.loads(Path(files[s.source_name]).read_text()) for s in (image, scene)]
    for i in range(len(data)):
        key = data[i][0]
        assert data.content(image, i).tolist() == sources[0][key]
        assert data.content(scene, i).tolist() == sources[1][key]["token_ids"]
        assert (data.string(image, i), data.string(scene, i)) == (None, "x")


@pytest.mark.parametrize("task", ["3-I", "I+3+T-I+3", "I+3+Q-A", "UNIFIED"])
def test_lengths_are_those_of_the_samples(files: dict[str, str], task: str) -> None:
    data = dataset(files, task, unified_tasks=["I-3", "3-I", "I+3+T-I+3"])
    for epoch in range(3):
        data.set_epoch(epoch)
        assert data.lengths.tolist() == [len(data[i][1].tokens) for i in range(len(data))]


def test_loss_on_input_can_be_turned_on(files: dict[str, str]) -> None:
    sample = dataset(files, "I-3", no_loss_on_input=False)[0][1]
    assert (sample.labels == sample.tokens).all()


@pytest.mark.parametrize(
    ("task", "given", "missing"),
    [
        ("I-3", {"image_source": None}, "task I-3 reads image_source: give"),
        (
            "I+3+T-I+3",
            {"text_source": None, "three_d_target": None},
            "reads text_source, three_d_target: give",
        ),
        ("UNIFIED", {}, "task UNIFIED needs unified_tasks"),
        ("3-X", {}, "no task '3-X'"),
    ],
)
def test_missing_paths_and_tasks(
    files: dict[str, str], task: str, given: dict[str, Any], missing: str
) -> None:
    with pytest.raises(InputError, match=missing):
        dataset(files, task, **given)


def test_only_the_files_of_the_task_are_read(files: dict[str, str]) -> None:
    unused = {name: "/nowhere" for name in NAMES if name not in ("image_source", "three_d_source")}
    assert len(dataset(files, "3-I", **unused)) == 6


@pytest.mark.parametrize(
    ("name", "ids", "message"),
    [
        ("image_source", [*range(15), 1024], "id 1024 is outside 0..1023 of vocabulary 'clevr'"),
        ("three_d_source", {"token_ids": [129457, 130495]}, r"id 130495 is outside 0\.\.130494"),
        ("image_source", [0] * 15, "has 15 codes, expected codes_per_image = 16"),
        ("image_source", [0] * 17, "has 17 codes, expected codes_per_image = 16"),
    ],
)
def test_bad_ids_name_file_and_key(
    files: dict[str, str], name: str, ids: Any, message: str
) -> None:
    change(files[name], "CLEVR_val_000002.png", ids)
    with pytest.raises(InputError, match=message) as caught:
        dataset(files, "I-3")
    assert str(caught.value).startswith(f"{name}: {files[name]}: key 'CLEVR_val_000002.png'")


def test_released_image_size(files: dict[str, str]) -> None:
    for count in (255, 257):
        Path(files["image_source"]).write_text(json.dumps({"a": [0] * 256, "b": [0] * count}))
        with pytest.raises(InputError, match=f"'b' has {count} codes, expected codes_per_image"):
            dataset(files, "I-3", codes_per_image=256)


def test_files_without_common_key(files: dict[str, str]) -> None:
    Path(files["image_source"]).write_text(json.dumps({"other": [0] * 16}))
    with pytest.raises(InputError, match="no key is present in all of:") as caught:
        dataset(files, "I-3")
    assert files["image_source"] in str(caught.value)
    assert files["three_d_source"] in str(caught.value)


def test_longest_sequence(files: dict[str, str]) -> None:
    longest = int(dataset(files, "3-I").lengths.max())
    assert len(dataset(files, "3-I", max_length=longest)) == 6
    with pytest.raises(InputError, match=rf"has {longest} tokens, but max_length is {longest - 1}"):
        dataset(files, "3-I", max_length=longest - 1)


@pytest.mark.parametrize("seed", range(10))
def test_longest_sequence_of_any_later_epoch(files: dict[str, str], seed: int) -> None:
    """Whichever tasks the first epoch draws, the longest one counts."""
    longest = int(dataset(files, "I+3+T-I+3").lengths.max())
    with pytest.raises(InputError, match=f"has {longest} tokens"):
        dataset(
            files,
            "UNIFIED",
            unified_tasks=["I-3", "I+3+T-I+3"],
            max_length=longest - 1,
            seed=seed,
        )


class TestUnified:
    """Each sample draws one of the tasks in every epoch."""

    tasks = ("I-3", "3-I", "I+3+Q-A")

    def draws(self, files: dict[str, str], seed: int, epochs: range) -> list[list[str]]:
        """Which task each sample was built for, found by building it for each."""
        data = dataset(files, "UNIFIED", unified_tasks=self.tasks, seed=seed)
        single = {task: dataset(files, task) for task in self.tasks}
        result = []
        for epoch in epochs:
            data.set_epoch(epoch)
            samples = dict(data[i] for i in range(len(data)))
            result.append(
                [
                    next(
                        task
                        for task, other in single.items()
                        if np.array_equal(_tokens(other, key), sample.tokens)
                    )
                    for key, sample in samples.items()
                ]
            )
        return result

    def test_draws(self, files: dict[str, str]) -> None:
        draws = self.draws(files, seed=3, epochs=range(6))
        assert {task for epoch in draws for task in epoch} == set(self.tasks)
        assert len({tuple(epoch) for epoch in draws}) > 1
        assert self.draws(files, seed=3, epochs=range(5, 6)) == draws[5:]
        assert self.draws(files, seed=4, epochs=range(6)) != draws

    def test_all_tasks_are_drawn_about_equally(self, files: dict[str, str]) -> None:
        data = dataset(files, "UNIFIED", unified_tasks=self.tasks)
        builders = [SequenceBuilder(CLEVR, TASKS[name]) for name in self.tasks]
        assert list(data.builders) == builders
        counts = np.zeros(3)
        for epoch in range(200):
            data.set_epoch(epoch)
            by_task = data.lengths_by_task == data.lengths
            assert by_task.any(axis=0).all()
            counts += np.bincount(data._drawn, minlength=3)
        assert np.abs(counts / counts.sum() - 1 / 3).max() < 0.05


def _tokens(data: KyvoDataset, key: str) -> np.ndarray:
    return data[data.keys.tolist().index(key.encode())][1].tokens

"""Sequences against goldens of the released code, and against the layout rules themselves."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyvo.common.errors import InputError
from kyvo.images.order import centre_first
from kyvo.tokens.sequences import (
    IGNORED_LABEL,
    TASKS,
    CentreFirst,
    Sample,
    Segment,
    SequenceBuilder,
    Task,
    get_task,
)
from kyvo.tokens.vocabulary import get_vocabulary

GOLDENS = Path(__file__).parents[1] / "goldens/sequences"
SEQUENCES = json.loads((GOLDENS / "sequences.json").read_text())
RELEASED = {key.split("|")[0] for key in SEQUENCES}
SOURCES = {
    f"{modality}_{side}": json.loads((GOLDENS / f"{modality}_{side}.json").read_text())
    for modality in ("image", "three_d", "text")
    for side in ("source", "target")
}
CLEVR = get_vocabulary("clevr")
BOS, EOS, OUTPUT, IMAGE_START, IMAGE_END = 128000, 128001, 129470, 129466, 129467
MODES = get_args(CentreFirst)


def content(segment: Segment, key: str) -> np.ndarray:
    entry = SOURCES[segment.source_name][key]
    return np.array(entry if isinstance(entry, list) else entry["token_ids"])


def common_keys(task: Task) -> list[str]:
    return sorted(set.intersection(*(set(SOURCES[s.source_name]) for s in task.segments)))


def samples(builder: SequenceBuilder) -> list[Sample]:
    task = builder.task
    return [builder.build({s: content(s, k) for s in task.segments}) for k in common_keys(task)]


def sizes(task: Task) -> dict[Segment, np.ndarray]:
    """Stored lengths of every segment, one per sample."""
    return {s: np.array([len(content(s, k)) for k in common_keys(task)]) for s in task.segments}


def test_there_are_sixty_goldens() -> None:
    assert len(SEQUENCES) == 60
    assert TASKS.keys() >= RELEASED


@pytest.mark.parametrize("golden", SEQUENCES)
def test_goldens(golden: str) -> None:
    task, no_loss_on_input, reorder = golden.split("|")
    builder = SequenceBuilder(
        CLEVR,
        get_task(task),
        "all" if reorder == "True" else "none",
        no_loss_on_input == "True",
    )
    found = [{"tokens": s.tokens.tolist(), "labels": s.labels.tolist()} for s in samples(builder)]
    assert found == SEQUENCES[golden]


def test_the_released_tasks_are_the_documented_ones() -> None:
    documented = (
        "3-I I-3 I+3+T-I+3 I+3+Q-A 3+I+T-3+I 3+I+Q-A I+Q-A 3+T-3 I+3+T-3 I+T-I+3 I+T-3 I+T-I "
        "I+T-T I+3+T-T 3-I-first3output"
    )
    assert set(documented.split()) == RELEASED
    with pytest.raises(InputError, match="no task '3-X'; known: 3-I, I-3"):
        get_task("3-X")


def test_outputs_come_from_target_files_except_in_rendering_and_recognition() -> None:
    own = {name for name in RELEASED if TASKS[name].outputs[0].side == "source"}
    assert own == {"3-I", "I-3", "3-I-first3output"}
    assert all(s.side == "source" for task in TASKS.values() for s in task.inputs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TASKS)
def test_layout(name: str, mode: CentreFirst) -> None:
    """Brackets, prompt length and lengths, whatever the order of codes."""
    builder = SequenceBuilder(CLEVR, TASKS[name], mode)
    built = samples(builder)
    assert builder.length(sizes(TASKS[name])).tolist() == [len(s.tokens) for s in built]
    for sample in built:
        tokens = sample.tokens.tolist()
        assert (tokens[0], tokens[-1]) == (BOS, EOS)
        assert tokens.index(OUTPUT) == sample.prompt_length - 1
        assert tokens.count(OUTPUT) == tokens.count(BOS) == tokens.count(EOS) == 1
        assert (sample.labels[: sample.prompt_length] == IGNORED_LABEL).all()


@pytest.mark.parametrize("name", TASKS)
def test_window_of_first_token_weighting(name: str) -> None:
    """It starts at the second label with loss; after a scene, at IMAGE-START itself."""
    for sample in samples(SequenceBuilder(CLEVR, TASKS[name])):
        tokens = sample.tokens.tolist()
        if IMAGE_START not in tokens[sample.prompt_length :]:
            assert sample.window_start is None
        elif name == "3+I+T-3+I":
            assert sample.window_start == tokens.index(IMAGE_START, sample.prompt_length)
        else:
            valid = np.flatnonzero(sample.labels != IGNORED_LABEL)
            assert sample.window_start == valid[1]


def test_ablation_skips_image_start_and_three_codes() -> None:
    for sample in samples(SequenceBuilder(CLEVR, TASKS["3-I-first3output"])):
        first = int(np.flatnonzero(sample.labels != IGNORED_LABEL)[0])
        assert sample.tokens[sample.prompt_length] == IMAGE_START
        assert first == sample.prompt_length + 4


@pytest.mark.parametrize(
    ("name", "mode", "reordered"),
    [
        ("I+3+T-I+3", "generated", [False, True]),
        ("I+3+T-I+3", "all", [False, True]),
        ("I+3+T-I+3", "none", [False, False]),
        ("I-3", "generated", [False]),
        ("I-3", "all", [True]),
        ("3-I", "generated", [True]),
        ("I+T-I", "generated", [False, True]),
        ("I+T-I", "all", [True, True]),
    ],
)
def test_which_images_are_centre_first(name: str, mode: CentreFirst, reordered: list[bool]) -> None:
    task = TASKS[name]
    images = [s for s in task.segments if s.modality == "image"]
    for key, sample in zip(
        common_keys(task), samples(SequenceBuilder(CLEVR, task, mode)), strict=True
    ):
        starts = np.flatnonzero(sample.tokens == IMAGE_START)
        for segment, start, is_reordered in zip(images, starts, reordered, strict=True):
            stop = start + 17
            assert sample.tokens[stop] == IMAGE_END
            codes = content(segment, key)
            expected = codes[centre_first(16)] if is_reordered else codes
            assert (sample.tokens[start + 1 : stop] - 129471).tolist() == expected.tolist()


def test_labels_equal_tokens_when_the_input_carries_loss() -> None:
    builder = SequenceBuilder(CLEVR, TASKS["I+3+Q-A"], no_loss_on_input=False)
    assert all((s.labels == s.tokens).all() for s in samples(builder))


def test_building_leaves_its_input_alone() -> None:
    task = TASKS["3-I"]
    contents: dict[Any, np.ndarray] = {s: content(s, "CLEVR_val_000000.png") for s in task.segments}
    copies = {s: values.copy() for s, values in contents.items()}
    sample = SequenceBuilder(CLEVR, task).build(contents)
    sample.tokens[:] = 0
    assert all((contents[s] == copies[s]).all() for s in contents)
    assert sample.labels.max() > 0


def test_centre_first_golden() -> None:
    golden = json.loads((GOLDENS / "reorder256.json").read_text())
    assert centre_first(256).tolist() == golden
    assert golden[:5] == [120, 119, 121, 118, 122]


@given(st.integers(1, 1100))
def test_centre_first_orders_by_distance_left_before_right(n: int) -> None:
    order = centre_first(n)
    centre = int(order[0])
    assert centre == int(n // 2 - n**0.5 // 2)
    assert order.tolist() == sorted(range(n), key=lambda p: (abs(p - centre), p > centre))


@given(st.integers(1, 1100), st.integers(0, 2**32 - 1))
def test_centre_first_can_be_undone(n: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(1024, size=n)
    written = codes[centre_first(n)]
    assert (written[np.argsort(centre_first(n))] == codes).all()


def test_next_turns_take_the_place_of_the_end() -> None:
    """Two turns: the tokens of both, and the first answer's end is still a label."""
    builder = SequenceBuilder(CLEVR, get_task("I+3+Q-A"), pixel_tokens=4)
    scene, question, answer = (
        builder.task.inputs[1],
        builder.task.inputs[2],
        builder.task.outputs[0],
    )
    first = {scene: np.array([7, 8]), question: np.array([1, 2, 3]), answer: np.array([4, 5])}
    second = {question: np.array([11, 12]), answer: np.array([14, 15, 16])}
    alone = builder.build(first, {scene: np.array([0.1, 0.2], dtype=np.float32)})
    both = builder.build(first, {scene: np.array([0.1, 0.2], dtype=np.float32)}, [second])
    added = [11, 12, OUTPUT, 14, 15, 16, EOS]
    assert both.tokens.tolist() == [*alone.tokens[:-1], *added]
    ignored = [IGNORED_LABEL] * 2
    assert both.labels.tolist() == [*alone.labels, *ignored, 14, 15, 16, EOS]
    assert alone.labels[-1] == EOS
    assert (alone.num_turns, both.num_turns) == (1, 2)
    assert both.prompt_length == alone.prompt_length
    assert both.remainders is not None
    assert len(both.remainders) == len(both.tokens)

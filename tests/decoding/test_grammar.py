"""The output automaton against a recursive-descent checker written from the format's rules."""

import random
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scene_samples import CODECS, scenes

from kyvo.decoding.grammar import Automaton, _Edges, output_automaton
from kyvo.scenes import SceneCodec, WordField
from kyvo.tokens.sequences import TASKS, SequenceBuilder, Task
from kyvo.tokens.vocabulary import Vocabulary

NUM_CODES = 16
CASES = [
    ("clevr", "3-I"),
    ("clevr", "I-3"),
    ("clevr", "I+3+T-I+3"),
    ("clevr", "3+I+T-3+I"),
    ("clevr", "I+3+Q-A"),
    ("objaworld", "I-3"),
    ("objectron", "I-3"),
    ("objectron", "I+T-I+3"),
]


@cache
def automaton(schema: str, task: str) -> Automaton:
    return output_automaton(TASKS[task], CODECS[schema], NUM_CODES)


def accepts(machine: Automaton, ids: list[int]) -> bool:
    """Whether every step is allowed and the last one ends the sequence."""
    state = 0
    for token in ids:
        state = int(machine.next_state[state, machine.class_of_id[token]])
        if state < 0:
            return False
    return state == machine.next_state.shape[0] - 1


class Checker:
    """Reads an output left to right, raising ValueError where the format's rules are broken."""

    def __init__(self, ids: list[int], codec: SceneCodec) -> None:
        self.ids, self.codec, self.vocabulary, self.at = ids, codec, codec.vocabulary, 0

    def fits(self, task: Task) -> bool:
        try:
            for segment in task.outputs:
                {"image": self.image, "three_d": self.scene, "text": self.text}[segment.modality]()
            self.take([self.vocabulary.eos])
        except ValueError:
            return False
        return set(self.ids[self.at :]) <= {self.vocabulary.eos}

    def peek(self) -> int:
        return self.ids[self.at] if self.at < len(self.ids) else -1

    def take(self, expected: list[int]) -> None:
        if self.ids[self.at : self.at + len(expected)] != expected:
            raise ValueError(f"expected {expected} at {self.at}")
        self.at += len(expected)

    def marker(self, name: str) -> None:
        self.take([self.vocabulary.marker_id(name)])

    def image(self) -> None:
        self.marker("[IMAGE-START]")
        for _ in range(NUM_CODES):
            if self.peek() not in self.vocabulary.image:
                raise ValueError("no image code")
            self.at += 1
        self.marker("[IMAGE-END]")

    def text(self) -> None:
        self.marker("[TEXT-START]")
        special = {self.vocabulary.bos, self.vocabulary.eos}
        while self.peek() in self.vocabulary.text and self.peek() not in special:
            self.at += 1
        self.marker("[TEXT-END]")

    def scene(self) -> None:
        self.marker("[SCENE-START]")
        while self.peek() == self.vocabulary.marker_id("[OBJECT-START]"):
            self.at += 1
            for field in self.codec.schema.fields:
                self.marker(field.marker)
                if isinstance(field, WordField):
                    self.word(field.words)
                else:
                    for axis in field.axes:
                        self.number(axis.grid)
            self.marker("[OBJECT-END]")
        self.marker("[SCENE-END]")

    def word(self, words: tuple[str, ...]) -> None:
        for word in words:
            spelt = self.codec.tokenizer.encode(f" {word}")
            if self.ids[self.at : self.at + len(spelt)] == spelt:
                return self.take(spelt)
        raise ValueError("no known word")

    def number(self, grid: tuple[float, ...]) -> None:
        string = self.vocabulary.token_string(self.peek())
        if string is None or string.startswith("[") or float(string) not in grid:
            raise ValueError("no number of this axis")
        self.at += 1


@st.composite
def outputs(draw: st.DrawFn, schema: str, name: str) -> list[int]:
    """The output part of a sequence that the codec and the builder made."""
    codec, task = CODECS[schema], TASKS[name]
    vocabulary = codec.vocabulary
    start, end = map(vocabulary.marker_id, ("[TEXT-START]", "[TEXT-END]"))
    contents = {}
    for segment in task.segments:
        if segment.modality == "image":
            ids = draw(st.lists(st.integers(0, 511), min_size=NUM_CODES, max_size=NUM_CODES))
        elif segment.modality == "three_d":
            ids = codec.encode(draw(scenes(codec.schema, max_objects=3)))
        else:
            ids = [start, *codec.tokenizer.encode(draw(st.text(max_size=8))), end]
        contents[segment] = np.array(ids)
    sample = SequenceBuilder(vocabulary, task).build(contents)
    return [int(i) for i in sample.tokens[sample.prompt_length :]]


@pytest.mark.parametrize(("schema", "task"), CASES)
@given(data=st.data())
def test_what_the_builder_writes_is_accepted(schema: str, task: str, data: st.DataObject) -> None:
    ids = data.draw(outputs(schema, task))
    assert Checker(ids, CODECS[schema]).fits(TASKS[task])
    machine = automaton(schema, task)
    assert accepts(machine, ids)
    assert accepts(machine, [*ids, ids[-1], ids[-1]])
    assert not accepts(machine, ids[:-1])


@pytest.mark.parametrize(("schema", "task"), CASES)
@settings(max_examples=12)
@given(data=st.data())
def test_corruptions_are_judged_as_by_the_checker(
    schema: str, task: str, data: st.DataObject
) -> None:
    """Every place of a valid output, with tokens changed, dropped and added."""
    codec = CODECS[schema]
    ids = data.draw(outputs(schema, task))
    machine = automaton(schema, task)
    dice = random.Random(data.draw(st.integers(0, 1000)))
    for corrupted in corruptions(ids, codec.vocabulary, dice):
        assert accepts(machine, corrupted) == Checker(corrupted, codec).fits(TASKS[task])


def corruptions(ids: list[int], vocabulary: Vocabulary, dice: random.Random) -> Iterator[list[int]]:
    for place in range(len(ids)):
        for token in (dice.randrange(vocabulary.size), dice.choice(ids)):
            yield [*ids[:place], token, *ids[place + 1 :]]
            yield [*ids[:place], token, *ids[place:]]
        yield ids[:place] + ids[place + 1 :]


@pytest.mark.parametrize(("schema", "task"), CASES)
def test_every_state_is_reachable_and_can_end(schema: str, task: str) -> None:
    next_state = automaton(schema, task).next_state
    num_states = len(next_state)
    step = np.zeros((num_states, num_states), dtype=bool)
    rows, columns = np.nonzero(next_state >= 0)
    step[rows, next_state[rows, columns]] = True
    reach = step | np.eye(num_states, dtype=bool)
    for _ in range(num_states.bit_length()):
        reach = (reach.astype(np.float32) @ reach.astype(np.float32)) > 0
    assert reach[0].all()
    assert reach[:, -1].all()


def test_only_the_end_follows_the_end() -> None:
    machine = automaton("clevr", "I-3")
    allowed = np.flatnonzero(machine.next_state[-1] >= 0)
    assert [np.flatnonzero(machine.class_of_id == c).tolist() for c in allowed] == [[1]]


def test_scene_part_does_not_grow_with_the_image() -> None:
    """257 states for 256 codes, and a handful of classes for hundreds of ids."""
    machine = output_automaton(TASKS["I+3+T-I+3"], CODECS["clevr"], 256)
    scene = output_automaton(TASKS["I-3"], CODECS["clevr"], 256)
    assert len(machine.next_state) == len(scene.next_state) + 258
    assert len(scene.next_state) < 30
    assert machine.next_state.shape[1] < 40


@given(data=st.data())
def test_classes_equal_the_uncompressed_table(data: st.DataObject) -> None:
    """Random deterministic automata, compared id by id."""
    num_ids, num_states = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 5))
    table = np.full((num_states, num_ids), -1)
    edges = _Edges(num_states)
    for state in range(num_states):
        targets = data.draw(st.lists(st.integers(-1, num_states - 1), min_size=num_ids))
        table[state] = targets[:num_ids]
        for target in sorted(set(targets[:num_ids]) - {-1}):
            edges.add(state, np.flatnonzero(table[state] == target).tolist(), target)
    machine = edges.compile(num_ids)
    assert (machine.next_state[:, machine.class_of_id] == table).all()
    assert machine.next_state.shape[1] <= num_ids
    assert machine.possible_ids.tolist() == np.flatnonzero((table >= 0).any(axis=0)).tolist()
    choices = [np.flatnonzero(row >= 0).tolist() for row in table]
    assert machine.deterministic_ids.tolist() == [c[0] if len(c) == 1 else -1 for c in choices]

"""The grammar of a task's output as a finite automaton over ids.

Each state says which ids may come next and where each leads. Scenes follow their schema (fields
in order, known words, numbers of each axis' grid), images have exactly their codes, texts any
text, and the whole ends with EOS.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from kyvo.scenes import NumberField, SceneCodec
from kyvo.tokens.sequences import Task
from kyvo.tokens.vocabulary import (
    OBJECT_END,
    OBJECT_START,
    Block,
    Vocabulary,
)


@dataclass(frozen=True)
class Automaton:
    """Transitions: ids fall into classes, and ``next_state[state, class]`` is -1 if forbidden.

    Attributes:
        class_of_id: int64 (V,); ids that no state tells apart share a class.
        next_state: int64 (S, C). State 0 is the start.
    """

    class_of_id: np.ndarray
    next_state: np.ndarray

    @cached_property
    def possible_ids(self) -> np.ndarray:
        """The ids that some state allows, ascending."""
        _, possible_classes = np.nonzero(self.next_state >= 0)
        return np.flatnonzero(np.isin(self.class_of_id, possible_classes))

    @cached_property
    def deterministic_ids(self) -> np.ndarray:
        """Of each state (S,) the only id that may come next, -1 where there is a choice."""
        allowed_SC = self.next_state >= 0
        choices_S = allowed_SC @ np.bincount(self.class_of_id)
        _, first_id_C = np.unique(self.class_of_id, return_index=True)
        return np.where(choices_S == 1, first_id_C[allowed_SC.argmax(axis=1)], -1)


def output_automaton(task: Task, codec: SceneCodec, codes_per_image: int) -> Automaton:
    """The automaton of ``task``'s outputs followed by EOS; after that only EOS goes on."""
    vocabulary = codec.vocabulary
    edges = _Edges()
    state = 0
    for segment in task.outputs:
        if segment.modality == "image":
            state = _add_image(edges, state, vocabulary, codes_per_image)
        elif segment.modality == "three_d":
            state = _add_scene(edges, state, codec)
        else:
            state = _add_text(edges, state, vocabulary)
    end = edges.add(state, [vocabulary.eos])
    edges.add(end, [vocabulary.eos], end)
    return edges.compile(vocabulary.size)


@dataclass
class _Edges:
    """An automaton under construction."""

    num_states: int = 1
    edges: list[tuple[int, np.ndarray, int]] = field(default_factory=list)

    def new_state(self) -> int:
        self.num_states += 1
        return self.num_states - 1

    def add(self, state: int, ids: Iterable[int], target: int | None = None) -> int:
        """From ``state`` any of ``ids`` leads to ``target`` (a new state unless given)."""
        target = self.new_state() if target is None else target
        self.edges.append((state, np.array(list(ids), dtype=np.int64), target))
        return target

    def add_words(self, state: int, words: Sequence[Sequence[int]]) -> int:
        """From ``state`` any of the id strings ``words``; all end in one new state."""
        end = self.new_state()
        branches: dict[tuple[int, ...], int] = {(): state}
        known: set[tuple[int, int]] = set()
        for word in words:
            for i, token in enumerate(word):
                here = branches[tuple(word[:i])]
                there = (
                    end
                    if i == len(word) - 1
                    else branches.setdefault(tuple(word[: i + 1]), self.num_states)
                )
                if there == self.num_states:
                    self.new_state()
                if (here, token) not in known:
                    self.add(here, [token], there)
                    known.add((here, token))
        return end

    def compile(self, vocabulary_size: int) -> Automaton:
        """Ids that all edges treat alike become one class."""
        class_of_id = np.zeros(vocabulary_size, dtype=np.int64)
        for ids in {ids.tobytes(): ids for _, ids, _ in self.edges}.values():
            inside = np.zeros(vocabulary_size, dtype=np.int64)
            inside[ids] = 1
            class_of_id = np.unique(class_of_id * 2 + inside, return_inverse=True)[1]
        num_classes = int(class_of_id.max()) + 1
        next_state = np.full((self.num_states, num_classes), -1, dtype=np.int64)
        for state, ids, target in self.edges:
            next_state[state, class_of_id[ids]] = target
        return Automaton(class_of_id, next_state)


def _ids(block: Block) -> range:
    return range(block.start, block.stop)


def _add_image(edges: _Edges, state: int, vocabulary: Vocabulary, num_codes: int) -> int:
    start, end = vocabulary.brackets("image")
    state = edges.add(state, [start])
    for _ in range(num_codes):
        state = edges.add(state, _ids(vocabulary.image))
    return edges.add(state, [end])


def _add_text(edges: _Edges, state: int, vocabulary: Vocabulary) -> int:
    start, end = vocabulary.brackets("text")
    state = edges.add(state, [start])
    special = (vocabulary.bos, vocabulary.eos)
    edges.add(state, (i for i in _ids(vocabulary.text) if i not in special), state)
    return edges.add(state, [end])


def _add_scene(edges: _Edges, state: int, codec: SceneCodec) -> int:
    vocabulary, schema = codec.vocabulary, codec.schema
    start, end = vocabulary.brackets("three_d")
    between = edges.add(state, [start])
    inside = edges.add(between, [vocabulary.marker_id(OBJECT_START)])
    for fld in schema.fields:
        inside = edges.add(inside, [vocabulary.marker_id(fld.marker)])
        if isinstance(fld, NumberField):
            for axis in fld.axes:
                strings = map(schema.number_string, axis.grid)
                inside = edges.add(inside, [vocabulary.number_id(s) for s in strings])
        else:
            inside = edges.add_words(inside, [codec.word_ids[word] for word in fld.words])
    edges.add(inside, [vocabulary.marker_id(OBJECT_END)], between)
    return edges.add(between, [end])

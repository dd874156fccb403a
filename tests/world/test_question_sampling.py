"""Sampled questions: right, needed in every part, well worded, balanced, repeatable."""

import dataclasses
import re
from collections import Counter
from random import Random
from typing import Any

import pytest
from question_reader import Reader
from question_scenes import WORDS, draw_scene, scene_of

from kyvo.common.errors import InputError
from kyvo.world import ClevrScene
from kyvo.world.questions import FAMILIES, Question, ask, execute, read_program, sampling
from kyvo.world.questions.programs import FUNCTIONS, Step, apply, facts_of
from kyvo.world.questions.template import Template
from kyvo.world.questions.templates import TEMPLATES

NUM_QUESTIONS = 2400
SETS = {name for name, function in FUNCTIONS.items() if function.gives == "objects"}
Asked = list[tuple[ClevrScene, Question]]


@pytest.fixture(scope="module")
def asked() -> Asked:
    """Two questions about each of many scenes."""
    scenes = [draw_scene(index) for index in range(NUM_QUESTIONS // 2)]
    return [(scene, ask(scene, Random(f"{i}/{k}"))) for i, scene in enumerate(scenes) for k in "ab"]


def wordings(template: Template) -> dict[str, re.Pattern[str]]:
    """Every wording with what its questions look like."""
    texts = {text for name in WORDS for text in template.wordings_for(name)}
    return {text: re.compile(re.sub(r"\\\{.+?\\\}", ".+", re.escape(text))) for text in texts}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: f"{t.family}-{t.name}")
def test_every_wording_of_every_template_reads_as_its_program_answers(
    template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The naive reader knows the words and the coordinates only."""
    monkeypatch.setattr(sampling, "TEMPLATES", (template,))
    missing = wordings(template)
    for seed in range(1500):
        scene = draw_scene(seed % 50, 5, 10)
        try:
            question = ask(scene, Random(seed), [template.family])
        except InputError:
            continue
        assert Reader(scene).answer(question.text) == question.answer, question.text
        found = [text for text, look in missing.items() if look.fullmatch(question.text)]
        for text in found:
            del missing[text]
        if not missing and seed > 30:
            return
    pytest.fail(f"never asked: {list(missing)}")


@pytest.mark.slow
def test_the_reader_agrees_on_any_question(asked: Asked) -> None:
    for scene, question in asked:
        assert Reader(scene).answer(question.text) == question.answer, question.text


@pytest.mark.slow
def test_the_program_gives_the_answer(asked: Asked) -> None:
    for scene, question in asked:
        assert execute(question.program, scene) == question.answer
        rows = question.to_json()["program"]
        assert read_program(rows) == question.program


@pytest.mark.slow
def test_english(asked: Asked) -> None:
    for _, question in asked:
        text = question.text
        assert re.fullmatch(r"[A-Z][a-z,:]*( [a-z]+[,:]?)*\?", text), text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text


def outputs_of(program: tuple[Step, ...], scene: ClevrScene) -> list[Any]:
    """What every step gives."""
    outputs: list[Any] = []
    for step in program:
        outputs.append(apply(step, outputs, facts_of(scene)))
    return outputs


def consumed(program: tuple[Step, ...], start: int) -> int:
    """The set that the objects of step ``start`` go into before anything is asked of them."""
    users = [i for i, step in enumerate(program) if start in step.inputs]
    assert len(users) == 1
    return consumed(program, users[0]) if program[users[0]].function in SETS else start


def less_said(program: tuple[Step, ...], outputs: list[Any], i: int) -> list[int]:
    """What step ``i`` would give if its relation, or a side of its "or", were not there."""
    step, inputs = program[i], [outputs[place] for place in program[i].inputs]
    if step.function == "relate" or step.function.startswith("same_"):
        return [outputs[0] & ~(1 << inputs[0])]
    return inputs if step.function == "union" and all(inputs) else []


@pytest.mark.slow
def test_every_part_of_a_question_is_needed(asked: Asked) -> None:
    """With less said, what is counted or named would not be the same."""
    for scene, question in asked:
        program, outputs = question.program, outputs_of(question.program, scene)
        for i in range(len(program)):
            for objects in less_said(program, outputs, i):
                changed, end = {i: objects}, consumed(program, i)
                for j in range(i + 1, end + 1):
                    if changed.keys() & set(program[j].inputs):
                        inputs = dict(enumerate(outputs)) | changed
                        changed[j] = apply(program[j], inputs, facts_of(scene))
                assert changed[end] != outputs[end], question.text


def said_of(program: tuple[Step, ...], place: int) -> set[str]:
    """The functions that describe the object or set of a step, up to any relation's."""
    step = program[place]
    inner = step.function in ("unique", "union", "intersect") or step.function[:6] == "filter"
    below = [said_of(program, i) for i in step.inputs] if inner else []
    return {step.function}.union(*below)


@pytest.mark.slow
def test_no_answer_is_in_the_words(asked: Asked) -> None:
    """The attribute that is asked for, compared or shared is never said of its object_index."""
    for _, question in asked:
        program = question.program
        for i, step in enumerate(program):
            kind, _, attribute = step.function.partition("_")
            if kind == "query":
                giving = {f"filter_{attribute}", f"same_{attribute}"}
                assert not giving & said_of(program, step.inputs[0]), question.text
            if kind == "same":
                filters = {f"filter_{attribute}"}
                assert not filters & said_of(program, step.inputs[0]), question.text
                assert not filters & said_of(program, consumed(program, i)), question.text


@pytest.mark.slow
def test_named_objects_differ(asked: Asked) -> None:
    for scene, question in asked:
        pairs = zip(question.program, outputs_of(question.program, scene), strict=True)
        named = [output for step, output in pairs if step.function == "unique"]
        assert len(named) == len(set(named)), question.text


def filters(program: tuple[Step, ...], place: int) -> tuple[str, set[tuple[str, str]]]:
    """The words of the chain of filters that ends in a step, and the function it starts from."""
    step = program[place]
    if step.function == "count":
        return filters(program, step.inputs[0])
    if not step.function.startswith("filter"):
        return step.function, set()
    source, words = filters(program, step.inputs[0])
    return source, words | {(step.function, step.value)}


@pytest.mark.slow
def test_two_groups_are_worth_comparing(asked: Asked) -> None:
    """Neither description implies the other, as "cube" does "red cube", and some group is there."""
    num_seen = 0
    for scene, question in asked:
        program = question.program
        for step in program:
            if step.function in ("union", "equal_integer", "greater_than", "less_than"):
                (one, first), (other, second) = (filters(program, i) for i in step.inputs)
                if "scene" in (one, other):
                    num_seen += 1
                    assert first - second, question.text
                    assert second - first, question.text
                if step.function != "union":
                    outputs = outputs_of(program, scene)
                    assert any(outputs[i] for i in step.inputs), question.text
    assert num_seen > 200


@pytest.mark.slow
def test_families_are_balanced(asked: Asked) -> None:
    counts = Counter(question.family for _, question in asked)
    assert set(counts) == set(FAMILIES)
    assert len(FAMILIES) == 12
    assert max(counts.values()) < 1.7 * min(counts.values())


@pytest.mark.slow
def test_answers_are_balanced(asked: Asked) -> None:
    counts = Counter(question.answer for _, question in asked)
    assert 0.45 < counts["yes"] / (counts["yes"] + counts["no"]) < 0.55
    numbers = [counts[str(number)] for number in range(5)]
    assert max(numbers) < 3 * min(numbers)
    assert sum(numbers) < 0.95 * sum(counts[str(number)] for number in range(11))


def test_words_are_balanced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "TYPE_WEIGHTS", {"truth": 1e-9, "number": 1e-9, "word": 1.0})
    families = ["zero_hop", "one_hop", "same_attribute"]
    counts = Counter(
        ask(draw_scene(seed % 800), Random(seed), families).answer for seed in range(3200)
    )
    for words in WORDS.values():
        mean = sum(counts[word] for word in words) / len(words)
        assert all(0.7 * mean < counts[word] < 1.3 * mean for word in words), counts


@pytest.mark.slow
def test_types_are_balanced(asked: Asked) -> None:
    counts = Counter(FUNCTIONS[question.program[-1].function].gives for _, question in asked)
    shares = {kind: count / len(asked) for kind, count in counts.items()}
    assert 0.35 < shares["truth"] < 0.5
    assert 0.15 < shares["number"] < 0.3
    assert all(0.06 < shares[name] < 0.14 for name in WORDS)


@pytest.mark.slow
def test_the_kind_of_question_says_nothing_about_yes_or_no(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even in small scenes, which have few questions after several steps that say yes."""
    monkeypatch.setattr(sampling, "TYPE_WEIGHTS", {"truth": 1.0, "number": 1e-9, "word": 1e-9})
    hard = ["two_hop", "three_hop", "single_and"]
    asked = [ask(draw_scene(i, 4, 5), Random(i), [*hard, "zero_hop"]) for i in range(600)]
    counts = Counter(q.answer for q in asked if q.family in hard and q.template[:5] == "exist")
    assert counts.total() > 60
    # Three standard deviations of a fair coin.
    assert abs(counts["yes"] - counts["no"]) < 3 * counts.total() ** 0.5


def test_the_arguments_alone_decide() -> None:
    scene = draw_scene(3)
    first = [ask(scene, Random(seed)) for seed in range(20)]
    assert first == [ask(draw_scene(3), Random(seed)) for seed in range(19, -1, -1)][::-1]
    assert len({question.text for question in first}) > 15


def test_only_the_wanted_families_are_asked() -> None:
    families = ["two_hop", "single_or"]
    questions = [ask(draw_scene(seed, 6), Random(seed), families) for seed in range(40)]
    assert {question.family for question in questions} == set(families)


@pytest.mark.parametrize("count", [2, 3])
def test_small_scenes_have_questions(count: int) -> None:
    for seed in range(30):
        scene = draw_scene(seed, count, count)
        question = ask(scene, Random(seed))
        assert Reader(scene).answer(question.text) == question.answer


def test_unknown_families_and_scenes_without_questions_are_reported() -> None:
    with pytest.raises(InputError, match=r"four_hop: expected zero_hop"):
        ask(draw_scene(1), Random(0), ["four_hop"])
    lonely = draw_scene(1).objects[:1]
    with pytest.raises(InputError, match=r"no question of two_hop fits its 1 objects"):
        ask(scene_of(lonely), Random(0), ["two_hop"])


def test_questions_are_frozen() -> None:
    question = ask(draw_scene(1), Random(0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        question.text = ""  # type: ignore[misc]

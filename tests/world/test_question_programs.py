"""The program engine, function by function, on a scene that can be answered by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from question_scenes import TOWARDS, scene_of

from kyvo.common.errors import InputError
from kyvo.world import ClevrObject, ClevrScene, find_relationships
from kyvo.world.questions import Step, execute, read_program
from kyvo.world.questions.programs import FUNCTIONS


def item(words: str, right: float, behind: float) -> ClevrObject:
    """An object so far to the right and so far behind the middle (metres)."""
    size, color, material, shape = words.split()
    axes = zip(TOWARDS["right"], TOWARDS["behind"], strict=True)
    x, y = (right * x + behind * y for x, y in axes)
    z = 0.7 if size == "large" else 0.35
    return ClevrObject(size, color, material, shape, (x, y, z))


# From left to right: 0 1 2 3 4; from the front to behind: 4 0 2 1 3.
SCENE = scene_of(
    [
        item("large red rubber cube", -2, -1),
        item("small red metal sphere", -1, 1),
        item("small blue metal cube", 0, 0),
        item("large blue metal cylinder", 1, 2),
        item("large green rubber sphere", 2, -2),
    ]
)


def program(*steps: str) -> tuple[Step, ...]:
    """Steps written as "function:value 0,1": what follows the blank are the inputs."""
    parsed = []
    for text in steps:
        name, _, places = text.partition(" ")
        function, _, value = name.partition(":")
        inputs = tuple(int(place) for place in places.split(",") if place)
        parsed.append(Step(function, inputs, value))
    return tuple(parsed)


def answer(*steps: str) -> str | None:
    return execute(program("scene", *steps), SCENE)


def the(color: str, shape: str, start: int = 0) -> list[str]:
    """Steps start+1 to start+3, which find one object."""
    return [f"filter_color:{color} 0", f"filter_shape:{shape} {start + 1}", f"unique {start + 2}"]


@pytest.mark.parametrize(
    ("attribute", "word", "number"),
    [
        ("size", "large", "3"),
        ("size", "small", "2"),
        ("color", "red", "2"),
        ("color", "gray", "0"),
        ("material", "metal", "3"),
        ("material", "rubber", "2"),
        ("shape", "cube", "2"),
        ("shape", "cylinder", "1"),
    ],
)
def test_filter_and_count(attribute: str, word: str, number: str) -> None:
    assert answer(f"filter_{attribute}:{word} 0", "count 1") == number
    assert answer(f"filter_{attribute}:{word} 0", "exist 1") == ("no" if number == "0" else "yes")


def test_count_of_everything() -> None:
    assert answer("count 0") == "5"


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [("size", "small"), ("color", "blue"), ("material", "metal"), ("shape", "cube")],
)
def test_query(attribute: str, expected: str) -> None:
    assert answer(*the("blue", "cube"), f"query_{attribute} 3") == expected


@pytest.mark.parametrize("color", ["red", "gray"])
def test_unique_of_several_or_none_has_no_answer(color: str) -> None:
    assert answer(f"filter_color:{color} 0", "unique 1", "query_shape 2") is None


@pytest.mark.parametrize(
    ("relation", "expected"), [("left", "2"), ("right", "2"), ("front", "2"), ("behind", "2")]
)
def test_relate_counts_from_the_middle(relation: str, expected: str) -> None:
    assert answer(*the("blue", "cube"), f"relate:{relation} 3", "count 4") == expected


@pytest.mark.parametrize(
    ("relation", "expected"), [("left", "1"), ("right", "3"), ("front", "3"), ("behind", "1")]
)
def test_relate_counts_from_the_red_sphere(relation: str, expected: str) -> None:
    assert answer(*the("red", "sphere"), f"relate:{relation} 3", "count 4") == expected


@pytest.mark.parametrize(
    ("attribute", "expected"), [("size", "1"), ("color", "1"), ("material", "2"), ("shape", "1")]
)
def test_same_leaves_out_the_object_itself(attribute: str, expected: str) -> None:
    assert answer(*the("blue", "cube"), f"same_{attribute} 3", "count 4") == expected


def test_same_may_be_nothing() -> None:
    assert answer(*the("green", "sphere"), "same_color 3", "exist 4") == "no"


def test_union_and_intersect() -> None:
    two = ["filter_color:red 0", "filter_shape:cube 0"]
    assert answer(*two, "union 1,2", "count 3") == "3"
    assert answer(*two, "intersect 1,2", "count 3") == "1"
    assert answer(*two, "intersect 1,2", "unique 3", "query_size 4") == "large"


@pytest.mark.parametrize(
    ("function", "same", "more", "fewer"),
    [
        ("equal_integer", "yes", "no", "no"),
        ("greater_than", "no", "yes", "no"),
        ("less_than", "no", "no", "yes"),
    ],
)
def test_comparing_numbers(function: str, same: str, more: str, fewer: str) -> None:
    def compare(first: str, second: str) -> str | None:
        counts = (f"filter_{first} 0", f"filter_{second} 0", "count 1", "count 2")
        return answer(*counts, f"{function} 3,4")

    assert compare("color:red", "color:blue") == same
    assert compare("material:metal", "color:red") == more
    assert compare("color:gray", "color:green") == fewer


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [("size", "no"), ("color", "yes"), ("material", "yes"), ("shape", "no")],
)
def test_comparing_attributes(attribute: str, expected: str) -> None:
    steps = [*the("blue", "cube"), *the("blue", "cylinder", 3)]
    queries = [f"query_{attribute} 3", f"query_{attribute} 6"]
    assert answer(*steps, *queries, f"equal_{attribute} 7,8") == expected


def test_every_function_of_clevr_is_there() -> None:
    attributes = ("size", "color", "material", "shape")
    kinds = ("filter", "same", "query", "equal")
    others = {"scene", "unique", "relate", "union", "intersect", "count", "exist"}
    numbers = {"equal_integer", "greater_than", "less_than"}
    assert set(FUNCTIONS) == others | numbers | {f"{k}_{a}" for k in kinds for a in attributes}


coordinate = st.floats(-3, 3).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(coordinate, coordinate), min_size=2, max_size=6), st.data())
def test_relate_is_a_matter_of_coordinates(
    places: list[tuple[float, float]], data: st.DataObject
) -> None:
    """j is left of i if its offset from i along left is more than 0.2 metres."""
    first, *others = places
    objects = (
        replace(item("large red rubber cube", 0, 0), position=(*first, 0.7)),
        *(replace(item("small blue metal sphere", 0, 0), position=(*p, 0.35)) for p in others),
    )
    scene = ClevrScene(objects, relationships=find_relationships(objects))
    direction = data.draw(st.sampled_from(list(TOWARDS)))
    x, y = TOWARDS[direction]
    offsets = [(p[0] - first[0]) * x + (p[1] - first[1]) * y for p in others]
    near = sum(math.isclose(value, 0.2, abs_tol=1e-4) for value in offsets)
    steps = program("scene", *the("red", "cube"), f"relate:{direction} 3", "count 4")
    assert near or execute(steps, scene) == str(sum(value > 0.2 for value in offsets))


def rows(*steps: str) -> list[dict[str, Any]]:
    return [step.to_json() for step in program(*steps)]


def test_programs_are_written_as_clevr_writes_them() -> None:
    steps = ("scene", "filter_color:red 0", "count 1")
    assert rows(*steps) == [
        {"function": "scene", "inputs": [], "value_inputs": []},
        {"function": "filter_color", "inputs": [0], "value_inputs": ["red"]},
        {"function": "count", "inputs": [1], "value_inputs": []},
    ]
    assert read_program(rows(*steps)) == program(*steps)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["scene", "tally 0"], "step 1: 'tally' is no function"),
        (["scene", "count 1"], r"step 1: 'count' takes the steps \[1\]; expected earlier"),
        (["scene", "count"], r"step 1: 'count' takes \[\]; expected \['objects'\]"),
        (["scene", "query_color 0"], r"takes \['objects'\]; expected \['object'\]"),
        (["scene", "filter_color:pink 0", "count 1"], "value 'pink'; expected gray, red"),
        (["scene", "count:red 0"], "value 'red'; expected none"),
        (["scene", "unique 0"], "the last step must give a number"),
        (
            ["scene", "unique 0", "query_color 1", "query_size 1", "equal_color 2,3"],
            r"takes \['color', 'size'\]; expected \['color', 'color'\]",
        ),
        ([], "the last step must give a number"),
    ],
)
def test_bad_programs_are_reported(steps: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_program(rows(*steps))


def test_a_step_without_a_key_is_reported() -> None:
    with pytest.raises(InputError, match="step 0: inputs, value_inputs is missing"):
        read_program([{"function": "scene"}])


def test_scenes_without_relationships_are_reported() -> None:
    with pytest.raises(InputError, match="the key 'relationships' is missing"):
        execute(program("scene", "count 0"), ClevrScene(SCENE.objects))

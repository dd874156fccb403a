"""Worlds of instructions and questions: what make_world.py writes is good, planted faults are not.

Every test breaks one file of a small world and expects that problem alone.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from kyvo_stand_ins import load_script

from kyvo.common.errors import InputError
from kyvo.prepare.validation import Findings, check_world
from kyvo.scenes import SceneCodec, get_schema
from kyvo.tokens.text_tokenizer import load_text_tokenizer
from kyvo.tokens.vocabulary import get_vocabulary
from kyvo.world import SceneOptions
from kyvo.world.instructions import KINDS
from kyvo.world.writer import WorldOptions, write_world

Change = Callable[[dict[str, Any]], object]
SCENES = SceneOptions(min_objects=4, max_objects=6, height=8, width=8)
CODEC = SceneCodec(
    get_schema("clevr"),
    get_vocabulary("mini"),
    load_text_tokenizer(None, get_vocabulary("mini")),
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds")
    for task, count in (("instructions", 10), ("questions", 12)):
        options = WorldOptions(SCENES, samples_per_pixel=1, seed=11, task=task)
        write_world(folder / task, {"test": count}, options)
    return folder


@pytest.fixture
def worlds(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "worlds"))


def problems_of(world: Path) -> list[str]:
    findings = Findings()
    check_world(world, ["test"], CODEC, findings)
    assert findings.count == len(findings.messages)
    return [message.replace(f"{world}/test/", "") for message in findings.messages]


def change(path: Path, edit: Change) -> None:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def edit_of(worlds: Path, kind: str) -> Path:
    """The first instruction of a kind."""
    for path in sorted((worlds / "instructions/test/instructions").iterdir()):
        if json.loads(path.read_text())["kind"] == kind:
            return path
    raise AssertionError(kind)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("keep_record", [True, False])
def test_what_is_written_has_no_problems(worlds: Path, keep_record: bool) -> None:
    for task, sides in (("instructions", ("/source", "/target")), ("questions", ("",))):
        if not keep_record:
            (worlds / task / "world.json").unlink()
        findings = Findings()
        lines = check_world(worlds / task, ["test"], CODEC, findings)
        assert findings.messages == []
        rows = [read(path) for path in (worlds / task / "test" / task).iterdir()]
        groups = Counter(row.get("kind") or row["family"] for row in rows)
        listing = ", ".join(f"{group} x {groups[group]}" for group in sorted(groups))
        assert f"  {task}: {listing}" in lines
        for side in sides:
            assert f"test{side}: {len(rows)} images, {len(rows)} scenes" in lines


def test_items_that_lack_a_file(worlds: Path) -> None:
    split = worlds / "instructions/test"
    names = [f"CLEVR_test_{index:06d}" for index in range(5)]
    (split / f"source/images/{names[0]}.png").unlink()
    (split / f"target/scenes/{names[1]}.json").unlink()
    (split / f"instructions/{names[2]}.json").unlink()
    for side in ("source", "target"):
        (split / f"{side}/images/{names[3]}.png").unlink()
        (split / f"{side}/scenes/{names[3]}.json").unlink()
    remedy = "Add what is missing, or remove the rest."
    assert problems_of(worlds / "instructions") == [
        f"target/images/{names[0]}.png: no source/images/{names[0]}.png. {remedy}",
        f"source/images/{names[1]}.png: no target/scenes/{names[1]}.json. {remedy}",
        f"source/images/{names[2]}.png: no instructions/{names[2]}.json. {remedy}",
        f"instructions/{names[3]}.json: no source/images/{names[3]}.png, "
        f"target/images/{names[3]}.png, source/scenes/{names[3]}.json, "
        f"target/scenes/{names[3]}.json. {remedy}",
    ]


def test_folders_that_are_not_there(worlds: Path) -> None:
    shutil.rmtree(worlds / "instructions/test/target")
    shutil.rmtree(worlds / "questions/test/questions")
    assert problems_of(worlds / "instructions") == [
        "target/images: no such folder. Expected files NAME.png there.",
        "target/scenes: no such folder. Expected files NAME.json there.",
    ]
    assert problems_of(worlds / "questions") == [
        "questions: no such folder. Expected files NAME.json there."
    ]


@pytest.mark.parametrize("text", ["", "[1, 2", "[]", '{"task": "songs"}'])
def test_a_record_of_the_world_that_cannot_be_read(worlds: Path, text: str) -> None:
    (worlds / "questions/world.json").write_text(text)
    (problem,) = problems_of(worlds / "questions")
    assert "world.json" in problem or "no world task 'songs'" in problem


@pytest.mark.parametrize("task", ["instructions", "questions"])
@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", "line 1: not valid JSON"),
        ("{", "line 1: not valid JSON"),
        ("[]", "expected one object {...}"),
    ],
)
def test_records_that_are_no_objects(worlds: Path, task: str, text: str, reported: str) -> None:
    (worlds / task / "test" / task / "CLEVR_test_000001.json").write_text(text)
    (problem,) = problems_of(worlds / task)
    assert problem.startswith(f"{task}: {task}/CLEVR_test_000001.json: {reported}")


def test_every_key_of_a_record_is_needed_and_typed(worlds: Path) -> None:
    for task in ("instructions", "questions"):
        path = worlds / task / "test" / task / "CLEVR_test_000000.json"
        good = read(path)
        for key in good:
            path.write_text(json.dumps({k: v for k, v in good.items() if k != key}))
            (problem,) = problems_of(worlds / task)
            assert problem.startswith(f"{task}/{path.name}: {key}: missing")
            path.write_text(json.dumps(good | {key: {"a": 1}}))
            (problem,) = problems_of(worlds / task)
            assert problem.startswith(f"{task}/{path.name}: {key}: expected ")
        path.write_text("{}")
        assert len(problems_of(worlds / task)) == len(good)


NO_RELATION, RELATED, INSERTION, MOVING, REMOVAL = KINDS
EDITS: list[tuple[str, dict[str, Any], str]] = [
    (MOVING, {"kind": "painting"}, "kind: 'painting', expected one of appearance_no_relation"),
    (NO_RELATION, {"attribute": "weight"}, "attribute: 'weight', expected one of None, size"),
    (NO_RELATION, {"value": "orange"}, "value: 'orange', expected one of None, "),
    (RELATED, {"relation": "above"}, "relation: 'above', expected one of None, left"),
    (MOVING, {"directions": ["up"]}, "directions: 'up', expected one of left"),
    (MOVING, {"directions": []}, "moving_with_relation: has nothing, expected directions"),
    (REMOVAL, {"anchor": None}, "removal_with_relation: has relation, expected anchor, relation"),
    (REMOVAL, {"index": 17}, "index: 17, but there are "),
    (RELATED, {"anchor": -1}, "anchor: -1, but there are "),
    (REMOVAL, {"kind": INSERTION}, "the target has "),
    (MOVING, {"instruction": "Move it somewhere"}, "instruction: does not say the direction "),
    (INSERTION, {"instruction": "Put a thing"}, "instruction: does not say the relation "),
    (NO_RELATION, {"instruction": "Change it"}, "instruction: does not say "),
]


@pytest.mark.parametrize(("kind", "wrong", "reported"), EDITS)
def test_instructions_that_do_not_fit(
    worlds: Path, kind: str, wrong: dict[str, Any], reported: str
) -> None:
    path = edit_of(worlds, kind)
    change(path, lambda row: row.update(wrong))
    found = problems_of(worlds / "instructions")
    assert found[0].startswith(f"instructions/{path.name}: {reported}")
    assert all(problem.startswith(f"instructions/{path.name}: ") for problem in found)


def test_an_instruction_that_names_what_is_not_there(worlds: Path) -> None:
    path = edit_of(worlds, REMOVAL)
    row = read(path)
    objects = read(worlds / f"instructions/test/source/scenes/{path.name}")["objects"]
    named = {objects[row[key]]["color"] for key in ("index", "anchor")}
    other = next(color for color in ("red", "blue", "green") if color not in named)
    change(path, lambda row: row.update(instruction=f"{row['instruction']} and the {other} thing"))
    assert problems_of(worlds / "instructions") == [
        f"instructions/{path.name}: instruction: {other!r} is no word of the objects that it names"
    ]


def target_problems(worlds: Path, kind: str, edit: Change) -> list[str]:
    """Problems after a change of the target of a kind, without their file."""
    path = edit_of(worlds, kind)
    change(worlds / f"instructions/test/target/scenes/{path.name}", edit)
    start = f"instructions/{path.name}: "
    found = problems_of(worlds / "instructions")
    assert all(problem.startswith(start) for problem in found)
    return [problem.removeprefix(start) for problem in found]


def test_targets_that_are_not_what_the_edit_gives(worlds: Path) -> None:
    index = read(edit_of(worlds, MOVING))["index"]

    def mirror(scene: dict[str, Any]) -> None:
        """Move the object back behind where it was."""
        source = read(worlds / f"instructions/test/source/scenes/{edit_of(worlds, MOVING).name}")
        old, new = (s["objects"][index]["3d_coords"] for s in (source, scene))
        new[:2] = [a + (a - b) / 20 for a, b in zip(old[:2], new[:2], strict=True)]

    directions = read(edit_of(worlds, MOVING))["directions"]
    assert target_problems(worlds, MOVING, mirror) == [
        f"objects[{index}] does not move in the direction {name!r}" for name in directions
    ]


def test_targets_that_differ_elsewhere_too(worlds: Path) -> None:
    index = read(edit_of(worlds, NO_RELATION))["index"]
    other = 1 if index == 0 else 0

    def repaint(scene: dict[str, Any]) -> None:
        item = scene["objects"][other]
        item["color"] = "red" if item["color"] != "red" else "blue"

    assert target_problems(worlds, NO_RELATION, repaint) == [
        f"source and target differ in more than objects[{index}]"
    ]


def test_a_target_seen_from_elsewhere(worlds: Path) -> None:
    found = target_problems(worlds, MOVING, lambda scene: scene["world"]["camera"].reverse())
    assert found == ["camera or lights of source and target differ"]


def test_a_pair_whose_object_does_not_change(worlds: Path) -> None:
    path = edit_of(worlds, NO_RELATION)
    split, row = worlds / "instructions/test", read(path)
    shutil.copyfile(split / f"source/scenes/{path.name}", split / f"target/scenes/{path.name}")
    assert problems_of(worlds / "instructions") == [
        f"instructions/{path.name}: objects[{row['index']}] changes in nothing, "
        f"not in {row['attribute']}",
        f"instructions/{path.name}: instruction: {row['value']!r} is no word of the objects "
        "that it names",
    ]


def test_a_relation_that_does_not_hold(worlds: Path) -> None:
    path = edit_of(worlds, REMOVAL)
    row = read(path)
    scene = worlds / f"instructions/test/source/scenes/{path.name}"
    change(scene, lambda s: s["relationships"][row["relation"]][row["anchor"]].clear())
    assert problems_of(worlds / "instructions") == [
        f"instructions/{path.name}: objects[{row['index']}] is not {row['relation']!r} "
        f"as seen from objects[{row['anchor']}]"
    ]


def first_question(worlds: Path) -> Path:
    return min((worlds / "questions/test/questions").iterdir())


def question_problems(worlds: Path, edit: Change) -> list[str]:
    """Problems after a change of the first question, without their file."""
    path = first_question(worlds)
    change(path, edit)
    start = f"questions/{path.name}: "
    found = problems_of(worlds / "questions")
    assert all(problem.startswith(start) for problem in found)
    return [problem.removeprefix(start) for problem in found]


def step(function: str, *inputs: int, value: str = "") -> dict[str, Any]:
    return {"function": function, "inputs": [*inputs], "value_inputs": [value] if value else []}


COUNT_ALL = {
    "question": "How many things are there in total?",
    "family": "zero_hop",
    "template": "count_all",
    "program": [step("scene"), step("count", 0)],
}


def test_an_answer_that_is_not_the_programs(worlds: Path) -> None:
    scene = worlds / "questions/test/scenes" / first_question(worlds).name
    count = len(read(scene)["objects"])
    assert question_problems(worlds, lambda row: row.update(COUNT_ALL, answer=str(count))) == []
    assert question_problems(worlds, lambda row: row.update(answer="11")) == [
        f"answer: '11', but the program gives '{count}'"
    ]


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [
        ({"family": "four_hop"}, "family: 'four_hop', expected one of zero_hop"),
        ({"template": "query_near"}, "template: 'query_near', expected one of query_plain"),
        ({"program": []}, "program: the last step must give"),
        ({"program": [step("sing")]}, "program: step 0: 'sing' is no function"),
        ({"program": [step("count", 0)]}, "program: step 0: 'count' takes the steps [0]"),
        ({"program": [step("scene"), step("exist", "0")]}, "program[1].inputs[0]: expected int"),
        ({"program": [step("scene"), 3]}, "program[1]: expected a mapping"),
        (
            {"program": [step("scene"), step("filter_color", 0, value="pink"), step("count", 1)]},
            "program: step 1: 'filter_color' has the value 'pink'",
        ),
        (
            {"program": [step("scene"), step("unique", 0), step("query_size", 1)]},
            "program: no answer: where it expects one object the scene has none, or several",
        ),
    ],
)
def test_programs_that_do_not_run(worlds: Path, wrong: dict[str, Any], reported: str) -> None:
    (problem,) = question_problems(worlds, lambda row: row.update({**COUNT_ALL, **wrong}))
    assert problem.startswith(reported)


def test_a_question_that_says_something_else(worlds: Path) -> None:
    scene = read(worlds / "questions/test/scenes" / first_question(worlds).name)
    count = sum(item["shape"] == "sphere" for item in scene["objects"])
    program = [step("scene"), step("filter_shape", 0, value="sphere"), step("count", 1)]
    row = COUNT_ALL | {"program": program, "template": "count_plain", "answer": str(count)}
    said = row | {"question": "How many balls are there?"}
    assert question_problems(worlds, lambda found: found.update(said)) == []
    assert question_problems(worlds, lambda found: found.update(row)) == [
        "question: does not say 'sphere', which its program asks for"
    ]


@pytest.mark.parametrize(
    "relationships",
    [None, 3, {}, {"left": [[]], "right": [[]], "front": [[]], "behind": [[]]},
     {name: [[99]] * 6 for name in ("left", "right", "front", "behind")},
     dict.fromkeys(("left", "right", "front", "behind"), 4)],
)  # fmt: skip
def test_scenes_without_good_relationships(worlds: Path, relationships: Any) -> None:
    path = first_question(worlds)
    scene = worlds / "questions/test/scenes" / path.name
    change(scene, lambda value: value.update(relationships=relationships))
    (problem,) = problems_of(worlds / "questions")
    assert problem.startswith(f"questions/{path.name}: scene {path.stem}.png: relationships: left:")


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a JSON value with each of its keys or places."""
    keys = value if isinstance(value, dict) else range(len(value)) if type(value) is list else ()
    for key in keys:
        yield value, key
        yield from places_in(value[key])


def test_nothing_in_a_file_stops_the_check(originals: Path, tmp_path: Path) -> None:
    """Any value anywhere in turn replaced by another: reported or harmless, never an exception."""
    random, reported = Random(5), 0
    for task in ("instructions", "questions"):
        split = tmp_path / task / "test"
        for path in (originals / task / "test").rglob("CLEVR_test_000001.*"):
            copy = split / path.relative_to(originals / task / "test")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        for path in sorted(split.rglob("*.json")):
            good = path.read_text()
            for _ in range(60):
                value = json.loads(good)
                container, key = random.choice([*places_in(value)])
                container[key] = random.choice([None, -1, 99, 1.5, True, "red", [], [3], {}])
                path.write_text(json.dumps(value))
                reported += bool(problems_of(tmp_path / task))
            path.write_text(good)
    assert reported > 150


def test_a_bad_scene_is_reported_once(worlds: Path) -> None:
    """Its question is not held against it."""
    scene = worlds / "questions/test/scenes" / first_question(worlds).name
    change(scene, lambda value: value["objects"][0].update(color="pink"))
    (problem,) = problems_of(worlds / "questions")
    assert problem.startswith(f"scenes/{scene.name}: objects[0]: 'color': 'pink'")


def test_the_command_lists_every_problem(worlds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = load_script("validate_data").main
    arguments = ["--world", str(worlds / "questions"), "--splits", "test", "--vocabulary", "mini"]
    main(arguments)
    assert capsys.readouterr().out.endswith("no problems\n")
    for path in sorted((worlds / "questions/test/questions").iterdir())[:3]:
        change(path, lambda row: row.update(answer="perhaps"))
    with pytest.raises(InputError, match=r"(?s)^3 problems in the data:.*000002\.json: answer"):
        main(arguments)

import json
from random import Random

import pytest
from kyvo_stand_ins import load_script

from kyvo.common.errors import InputError
from kyvo.metrics import score_answers
from kyvo.metrics.answers import answer_type, read_answers
from kyvo.world import SceneOptions, sample_scene
from kyvo.world.questions import ask
from kyvo.world.questions.programs import FUNCTIONS


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def rows(**answers):
    return {"answers": [{"key": key, "answer": text} for key, text in answers.items()]}


def test_both_layouts_give_the_same_answers(tmp_path):
    released = {"k": {"token_ids": [1], "string": "[TEXT-START]yes[TEXT-END]"}}
    ours = rows(k="[TEXT-START] yes [TEXT-END]<|end_of_text|>")
    first = read_answers(write(tmp_path / "a.json", released), "answers")
    assert first == read_answers(write(tmp_path / "b.json", ours), "answers") == {"k": "yes"}


def test_equality_is_exact_after_stripping(tmp_path):
    predicted = write(tmp_path / "p.json", rows(a=" 3 ", b="Yes", c="no no", d=""))
    truth = write(tmp_path / "g.json", rows(a="3", b="yes", c="no", d="[TEXT-START][TEXT-END]"))
    scores = score_answers(predicted, truth)
    assert scores.correct == {"a": True, "b": False, "c": False, "d": True}
    assert scores.accuracy == 0.5


def test_an_unanswered_question_is_wrong_and_reported(tmp_path):
    predicted = write(tmp_path / "p.json", rows(a="1", b="1"))
    truth = write(tmp_path / "g.json", rows(a="1", b="2", c="1", d="1"))
    scores = score_answers(predicted, truth)
    assert (scores.accuracy, scores.answered_accuracy) == (0.25, 0.5)
    assert "2 questions have no answer" in scores.summary()
    scores.write(tmp_path)
    assert json.loads((tmp_path / "accuracy.json").read_text())["num_unanswered"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"answers": [{"key": "a"}]}', r"answers\[0\]: no entry 'answer'"),
        ('{"answers": [{"key": "a", "answer": 3}]}', "expected a string"),
        ('{"answers": []}', "at least one"),
        ('{"k": "yes"}', "k: expected an object"),
        ('{"k": {}}', "k: no entry 'string'"),
        ("[]", "expected an object"),
        ('{"answers": ', "not valid JSON"),
        (
            '{"answers": [{"key": "a", "answer": "1"}, {"key": "a", "answer": "1"}]}',
            "2 answers under 1 keys",
        ),
    ],
)
def test_broken_files_are_refused(tmp_path, content, message):
    path = write(tmp_path / "p.json", content)
    with pytest.raises(InputError, match=message) as caught:
        read_answers(path, "predicted answers")
    assert str(path) in str(caught.value)


def test_an_unknown_key_is_refused(tmp_path):
    predicted = write(tmp_path / "p.json", rows(z="1"))
    truth = write(tmp_path / "g.json", rows(a="1"))
    with pytest.raises(InputError, match="the first is 'z'"):
        score_answers(predicted, truth)


TRUTH = {
    "a.png": "yes",
    "b.png": "no",
    "c.png": "3",
    "d.png": "red",
    "e.png": "10",
    "f.png": "cube",
}
SAID = {"a.png": "yes", "b.png": "yes", "c.png": "3", "d.png": "red", "e.png": "9"}
FAMILIES = {"a.png": "one_hop", "b.png": "one_hop", "c.png": "zero_hop", "d.png": "one_hop",
            "e.png": "zero_hop", "f.png": "single_or"}  # fmt: skip
PLAIN = """\
Accuracy: 50.00% (3 of 6 questions)
1 questions have no answer and count as wrong; of the answered ones 60.00% are right
"""
GROUPS = """\
By family:
  one_hop: 66.67% (2 of 3 questions)
  single_or: 0.00% (0 of 1 questions)
  zero_hop: 50.00% (1 of 2 questions)
By answer type:
  number: 50.00% (1 of 2 questions)
  truth: 50.00% (1 of 2 questions)
  word: 50.00% (1 of 2 questions)
"""


def command(tmp_path, capsys, *more):
    """Run the command; what it prints, and what it writes."""
    predicted = write(tmp_path / "p.json", rows(**SAID))
    strings = {key: {"string": f"[TEXT-START] {text}[TEXT-END]"} for key, text in TRUTH.items()}
    truth = write(tmp_path / "g.json", strings)
    files = ["--predicted_file", str(predicted), "--groundtruth_file", str(truth)]
    load_script("compute_text_answer_accuracy").main([*files, *more])
    return capsys.readouterr().out, json.loads((tmp_path / "accuracy.json").read_text())


def test_without_questions_there_are_no_groups(tmp_path, capsys):
    printed, written = command(tmp_path, capsys)
    assert printed == PLAIN
    assert list(written) == ["accuracy", "answered_accuracy", "num_unanswered", "correct"]


def test_families_and_answer_types_are_scored_with_their_counts(tmp_path, capsys):
    folder = tmp_path / "questions"
    folder.mkdir()
    for key, family in FAMILIES.items():
        row = {"question": "?", "answer": "-", "family": family}
        write(folder / f"{key.removesuffix('.png')}.json", row)
    write(folder / "unasked.json", {"family": "two_hop"})
    printed, written = command(tmp_path, capsys, "--questions", str(folder))
    assert printed == PLAIN + GROUPS
    assert written["by_family"]["one_hop"] == {"accuracy": 2 / 3, "right": 2, "total": 3}
    assert sum(group["total"] for group in written["by_answer_type"].values()) == 6
    assert list(written)[:3] == ["accuracy", "answered_accuracy", "num_unanswered"]
    table = write(tmp_path / "families.json", {k: {"family": f} for k, f in FAMILIES.items()})
    assert command(tmp_path, capsys, "--questions", str(table)) == (printed, written)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a.png": {"family": "one_hop"}}, "5 questions are not there, the first is 'b.png'"),
        ({key: {} for key in TRUTH}, "a.png: no entry 'family'"),
        ({key: {"family": 3} for key in TRUTH}, "a.png: family: expected a string"),
        (dict.fromkeys(TRUTH, "one_hop"), "a.png: expected an object"),
        ([], "expected an object"),
    ],
)
def test_questions_without_a_family_are_reported(tmp_path, capsys, table, message):
    path = write(tmp_path / "families.json", table)
    with pytest.raises(InputError, match=message) as caught:
        command(tmp_path, capsys, "--questions", str(path))
    assert str(path) in str(caught.value)


def test_every_answer_of_the_generator_has_its_templates_type():
    """Types follow from the answers alone; the programs say the same."""
    for index in range(60):
        scene = sample_scene(index, "val", 3, SceneOptions(min_objects=4, max_objects=6))
        question = ask(scene, Random(index))
        gives = FUNCTIONS[question.program[-1].function].gives
        expected = gives if gives in ("truth", "number") else "word"
        assert answer_type(question.answer) == expected

import json

import pytest

from kyvo.errors import InputError
from kyvo.metrics import score_answers
from kyvo.metrics.answers import read_answers


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


def test_an_unanswered_question_is_wrong_and_told(tmp_path):
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

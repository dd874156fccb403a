"""Several input errors told as one."""

import pytest

from kyvo.common.errors import InputError, Problems


def refuse(message: str) -> None:
    raise InputError(message)


def test_all_problems_are_told_each_once() -> None:
    inner = Problems()
    for name in "ab":
        inner.attempt(refuse, name)
    outer = Problems()
    assert outer.attempt(max, 3, 4) == 4
    assert outer.attempt(inner.raise_any, "x") is None
    outer.attempt(refuse, "c")
    with pytest.raises(InputError) as caught:
        outer.raise_any()
    assert str(caught.value) == "3 problems:\n  - x: a\n  - x: b\n  - c"


def test_one_problem_stands_for_itself() -> None:
    problems = Problems()
    problems.raise_any("config x")
    problems.attempt(refuse, "a")
    with pytest.raises(InputError, match=r"^a$"):
        problems.raise_any()
    with pytest.raises(InputError, match=r"^config x: a$"):
        problems.raise_any("config x")


def test_other_faults_are_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        Problems().attempt(lambda: 1 / 0)

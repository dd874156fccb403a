"""What a command does with errors: one line and the right exit status."""

import sys
from collections.abc import Sequence

import pytest

import kyvo.cli
from kyvo.errors import InputError, MissingDependencyError


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("scenes: a.json: no such file"), 1, "error: scenes: a.json: no such file\n"),
        (
            MissingDependencyError("matplotlib", "the report", "report"),
            1,
            "error: the report needs the package 'matplotlib', which is not installed. "
            'Install it with: pip install "kyvo[report]"\n',
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_of_users(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_: Sequence[str]) -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        kyvo.cli.run(main)
    assert caught.value.code == status
    assert capsys.readouterr().err == line


def test_our_own_faults_keep_their_traceback() -> None:
    def main(_: Sequence[str]) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        kyvo.cli.run(main)


def test_arguments_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[str] = []
    monkeypatch.setattr(sys, "argv", ["script.py", "--flag", "value"])
    kyvo.cli.run(received.extend)
    assert received == ["--flag", "value"]


def test_overrides_may_stand_anywhere() -> None:
    argv = ["--config", "x.yaml", "batch_size=4", "runs/lr=1/y.yaml", "--tau=0.05", "model.x=[1]"]
    argv.append("note=" + "x" * 300)
    rest, overrides = kyvo.cli.split_overrides(argv)
    assert rest == ["--config", "x.yaml", "runs/lr=1/y.yaml", "--tau=0.05"]
    assert overrides == ["batch_size=4", "model.x=[1]", "note=" + "x" * 300]

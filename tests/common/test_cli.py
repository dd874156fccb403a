"""What a command does with errors: one line and the right exit status."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import kyvo.common.cli
from kyvo.common.errors import InputError, MissingDependencyError


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
        (
            FileExistsError(17, "File exists", "runs/x"),
            1,
            "error: runs/x: File exists. Check the path, its permissions and the disk.\n",
        ),
        (
            OSError(28, "No space left on device"),
            1,
            "error: No space left on device. Check the path, its permissions and the disk.\n",
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
        kyvo.common.cli.run(main)
    assert caught.value.code == status
    assert capsys.readouterr().err == line


def test_our_own_faults_keep_their_traceback() -> None:
    def main(_: Sequence[str]) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        kyvo.common.cli.run(main)


def test_arguments_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[str] = []
    monkeypatch.setattr(sys, "argv", ["script.py", "--flag", "value"])
    kyvo.common.cli.run(received.extend)
    assert received == ["--flag", "value"]


def test_overrides_may_stand_anywhere() -> None:
    argv = ["--config", "x.yaml", "batch_size=4", "runs/lr=1/y.yaml", "--tau=0.05", "model.x=[1]"]
    argv.append("note=" + "x" * 300)
    rest, overrides = kyvo.common.cli.split_overrides(argv)
    assert rest == ["--config", "x.yaml", "runs/lr=1/y.yaml", "--tau=0.05"]
    assert overrides == ["batch_size=4", "model.x=[1]", "note=" + "x" * 300]


def test_a_reader_that_leaves_early_is_no_fault() -> None:
    code = (
        "import kyvo.common.cli\n"
        "def main(argv):\n"
        "    for i in range(100000): print(i)\n"
        "kyvo.common.cli.run(main)\n"
    )
    command = f"{sys.executable} -c '{code}' | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout == f"0\n{128 + signal.SIGPIPE}\n"
    assert done.stderr == ""


def test_sigterm_ends_a_command_with_its_half_written_files_cleared_away(tmp_path: Path) -> None:
    code = (
        "import os, signal, kyvo.common.cli\n"
        "from kyvo.common.files import atomic_file\n"
        "def main(argv):\n"
        f"    with atomic_file('{tmp_path}/result') as temporary:\n"
        "        temporary.write_text('half')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "kyvo.common.cli.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "terminated\n")
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_steers_a_terminal_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    clear_screen = "\x1b[2J\x07\x9b31m"

    def main(_: Sequence[str]) -> None:
        print(f"key {clear_screen}\tword\n")
        raise InputError(f"key {clear_screen}")

    with pytest.raises(SystemExit):
        kyvo.common.cli.run(main)
    out, err = capsys.readouterr()
    assert out == "key \\x1b[2J\\x07\\x9b31m\tword\n\n"
    assert err == "error: key \\x1b[2J\\x07\\x9b31m\n"


def test_an_argument_that_is_no_utf8_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "caf\udce9"])
    with pytest.raises(SystemExit):
        kyvo.common.cli.run(lambda _: None)
    assert capsys.readouterr().err.startswith("error: argument 'caf\\udce9': not UTF-8")


def test_what_follows_a_flag_is_its_value() -> None:
    argv = ["--output", "lr=3", "batch_size=4", "--config", "a=b/c.yaml", "x.y=1", "--tau=1", "z=2"]
    assert kyvo.common.cli.split_overrides(argv) == (
        ["--output", "lr=3", "--config", "a=b/c.yaml", "--tau=1"],
        ["batch_size=4", "x.y=1", "z=2"],
    )

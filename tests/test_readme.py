"""The README's commands do what they say; the long ones in their tiny form."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kyvo_stand_ins import load_script

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
QUICKSTART = (ROOT / "docs/quickstart.md").read_text()
PLAN = yaml.safe_load((ROOT / "configs/mini/quickstart.yaml").read_text())
COMMANDS = [command for stage in PLAN["stages"] for command in stage["commands"]]


def test_makefile_has_the_two_commands_of_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_step_by_step_commands_are_those_of_the_quick_start() -> None:
    steps = re.findall(r"^python3 scripts/(.+)$", QUICKSTART, flags=re.MULTILINE)
    assert len(steps) >= 9
    assert [step for step in steps if step not in COMMANDS] == []


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "scripts").glob("*.py")))
def test_every_script_is_in_the_readme_and_has_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"scripts/{name}.py" in README or name == "quickstart"
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    with pytest.raises(SystemExit) as end:
        load_script(name).main(["--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {name}.py")


def test_scripts_run_as_commands() -> None:
    command = [sys.executable, str(ROOT / "scripts/compute_jaccard_index.py"), "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.startswith("usage:")


@pytest.mark.slow
def test_tiny_quick_start_ends_with_a_report(tmp_path: Path) -> None:
    for name in ("configs", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = [sys.executable, "scripts/quickstart.py", "--tiny"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    output = tmp_path / "quickstart"
    report = (output / "report.html").read_text()
    assert report.count("data:image/png;base64") >= 6
    assert not re.search(r"(src|href)=\"https?://", report)
    scores = json.loads((output / "results/three_d_json/recognition/jaccard.json").read_text())
    assert set(scores["taus"]) == {"0.05", "0.1", "0.15", "0.2", "0.25"}
    images = list((output / "results/decoded/rendering/GENERATED").glob("generated_*.png"))
    assert len(images) == 4

    make = re.findall(r"`python3 (scripts/make_world.py [^`]+)`", README)
    for argv in map(str.split, make):
        made = subprocess.run([sys.executable, *argv], cwd=tmp_path, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr[-2000:]
    for snippet in re.findall(
        r"^```python\n(.+?)^```", README + QUICKSTART, re.DOTALL | re.MULTILINE
    ):
        run = [sys.executable, "-c", snippet]
        python = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
        assert python.returncode == 0, python.stderr[-2000:]

    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0
    assert again.stdout.count("done before") == len(PLAN["stages"]) - 1

    full = subprocess.run(command[:-1], cwd=tmp_path, capture_output=True, text=True)
    assert full.returncode == 1
    assert "made by other commands" in full.stderr

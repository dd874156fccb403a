"""The conda files: what conda and, in its name, pip would read."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("name", ["kyvo", "taming-kyvo"])
def test_conda_files_install_the_project(name: str) -> None:
    content = yaml.safe_load((ROOT / f"{name}.yml").read_text())
    assert content.keys() == {"name", "channels", "dependencies"}
    assert content["name"] == name
    python, pip, by_pip = content["dependencies"]
    assert python.partition("=")[2] in SpecifierSet(PROJECT["requires-python"])
    assert pip == "pip"
    # conda has pip read these lines in a file beside the yml.
    assert by_pip == {"pip": ["-r requirements.txt"]}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    (line,) = [line for line in lines if line and not line.startswith("#")]
    own = Requirement(f"{PROJECT['name']}{line.removeprefix('-e .')}")
    assert line.startswith("-e .")
    assert own.extras <= PROJECT["optional-dependencies"].keys()


def test_every_dependency_is_pinned_to_a_range() -> None:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for line in [*PROJECT["dependencies"], *extras]:
        requirement = Requirement(line)
        is_stub_or_self = requirement.name.startswith(("types-", PROJECT["name"]))
        assert requirement.specifier or is_stub_or_self, line


def test_submodules_are_recorded_and_needed_by_nothing() -> None:
    modules = (ROOT / ".gitmodules").read_text()
    for name, owner in (("torchtune", "pytorch"), ("taming-transformers", "CompVis")):
        assert f"path = {name}\n\turl = https://github.com/{owner}/{name}.git" in modules

"""The files about the project: conda's and pip's, hooks, hosted CI, the mark of a typed package."""

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


def test_hosted_ci_and_hooks_call_what_is_called_by_hand() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert steps[-1] == {"run": "bash .ci/run"}
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert all(version in SpecifierSet(PROJECT["requires-python"]) for version in versions)
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    entries = [hook["entry"].split()[0] for hook in local["hooks"]]
    assert entries == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy", "make"]


def test_the_package_says_that_it_is_typed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert (ROOT / "kyvo/py.typed").is_file()
    assert "py.typed" in settings["package-data"]["kyvo"]

"""The torchtune that is installed is the pinned one, and the sources of its submodule.

The sources are compared where the submodule ``torchtune`` is checked out (``git submodule update
--init``), or where the environment variable KYVO_TORCHTUNE_SOURCE names a folder that holds its
package ``torchtune``.
"""

import ast
import importlib
import inspect
import os
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import torchtune

ROOT = Path(__file__).parents[2]
SOURCE = Path(os.environ.get("KYVO_TORCHTUNE_SOURCE", ROOT / "torchtune"))
INSTALLED = Path(torchtune.__file__).parents[1]

needs_source = pytest.mark.skipif(
    not (SOURCE / "torchtune").is_dir(), reason=f"torchtune is not checked out in {SOURCE}"
)


def names_in_code() -> Iterator[str]:
    """What kyvo and the scripts import of torchtune, in full."""
    for path in [*(ROOT / "kyvo").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)


def names_in_configs() -> Iterator[str]:
    """What the configs let the recipes build."""
    for path in (ROOT / "configs").rglob("*.yaml"):
        yield from re.findall(r"_component_: *(\S+)", path.read_text())


def files_of(name: str) -> Iterator[Path]:
    """The module that ``name`` is imported from, and the one that defines it."""
    package, _, member = name.rpartition(".")
    module = importlib.import_module(package)
    yield Path(inspect.getfile(module))
    yield Path(inspect.getfile(inspect.getmodule(getattr(module, member)) or module))


NAMES = sorted({*names_in_code(), *names_in_configs()})
FILES = {file for name in NAMES if name.startswith("torchtune.") for file in files_of(name)}
# The package's own __init__ is left out: building the wheel wrote its version into it.
FILE_NAMES = sorted(str(f.relative_to(INSTALLED)) for f in FILES - {Path(torchtune.__file__)})


def test_the_installed_version_is_the_pinned_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"torchtune=={version('torchtune')}" in project["dependencies"]


def test_the_files_are_found() -> None:
    expected = {"torchtune/models/convert_weights.py", "torchtune/training/lr_schedulers.py"}
    assert expected <= set(FILE_NAMES)


@needs_source
@pytest.mark.parametrize("name", FILE_NAMES)
def test_installed_source_is_that_of_the_submodule(name: str) -> None:
    assert (INSTALLED / name).read_bytes() == (SOURCE / name).read_bytes()

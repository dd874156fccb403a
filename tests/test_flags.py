"""Every flag of the commands is spelt in one way, but for those that the released code has."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RELEASED = {
    "--dimension_tau",
    "--folder_path",
    "--generated_folder",
    "--groundtruth_file",
    "--groundtruth_folder",
    "--image_output_path",
    "--output_folder",
    "--predicted_file",
    "--predictions_file",
    "--vqgan_type",
}
COMMANDS = sorted([*(ROOT / "scripts").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_own_flags_have_dashes(path: Path) -> None:
    strings = (
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    flags = {text for text in strings if re.fullmatch(r"--\w[\w-]*", text)}
    assert {flag for flag in flags if "_" in flag} <= RELEASED


def test_the_released_flags_are_those_of_the_released_readme() -> None:
    commands = (ROOT / "tests/released/commands.txt").read_text()
    assert set(re.findall(r"--\w+_\w+", commands)) == RELEASED

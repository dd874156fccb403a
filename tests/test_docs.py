"""The pages are right: commands parse, links lead somewhere, and the README is short."""

import argparse
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
from test_architecture import MAY_IMPORT

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "DATA.md", *sorted((ROOT / "docs").rglob("*.md"))]
RESULTS = ROOT / "benchmarks/RESULTS.md"
# The commands of docs/own-scenes are run by test_own_scenes.py.
FOLDERS = r"(?:scripts|benchmarks|tests)"
# A command is a line of a block of code, or quoted in a sentence, where it may go over lines.
COMMAND = re.compile(rf"(?:^|`)(python3 {FOLDERS}/\w+\.py(?:[^`\n]*$|[^`]*(?=`)))", re.MULTILINE)
TEMPLATES = {"python3 benchmarks/NAME.py"}


class Parsed(Exception):
    """The command line was good; carries what came of it."""


def commands_of(page: Path) -> list[str]:
    """Every command of a page, on one line."""
    return [" ".join(text.split()) for text in COMMAND.findall(page.read_text())]


COMMANDS = sorted(
    {
        (str(page.relative_to(ROOT)), command)
        for page in PAGES
        for command in commands_of(page)
        if not command.startswith(tuple(TEMPLATES))
    }
)


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let parsers parse and then end the command."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(self, *args, **kwargs):
        raise Parsed(parse(self, *args, **kwargs))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", ["command"])


def main_of(script: Path):
    """The ``main`` of a script, which is loaded under a name that no other module has."""
    spec = importlib.util.spec_from_file_location(f"command_{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.parametrize(("page", "command"), COMMANDS)
@pytest.mark.usefixtures("parse_only")
def test_every_command_of_a_page_parses(page: str, command: str) -> None:
    """Flags, their values and the configs exist; values such as FOLDER are the reader's."""
    _, script, *arguments = shlex.split(command, comments=True)
    with pytest.raises(Parsed):
        main_of(ROOT / script)(arguments)
    for name in arguments:
        if name.endswith(".yaml"):
            assert list(ROOT.glob(name)), f"{page}: {name}"


def test_the_pages_commands_are_found() -> None:
    """Every 'python3 ... .py' of a page is one of those that are parsed."""
    assert len(COMMANDS) > 50
    for page in PAGES:
        named = re.findall(rf"python3 {FOLDERS}/\w+\.py", page.read_text())
        templates = [name for name in named if name in TEMPLATES]
        assert len(named) - len(templates) == len(
            [c for c in commands_of(page) if not c.startswith(tuple(TEMPLATES))]
        ), page


@pytest.mark.parametrize("page", [*PAGES, RESULTS], ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?://|mailto:", link):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The anchors that a Markdown viewer gives to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short_and_links_every_page() -> None:
    text = README.read_text()
    assert len(text.splitlines()) < 150
    for page in [*PAGES[1:], RESULTS]:
        assert f"]({page.relative_to(ROOT)})" in text


PATHS = re.compile(r"`((?:kyvo|scripts|tests|configs|benchmarks)/[\w./-]*\w/?)`")


# The log is of its day.
@pytest.mark.parametrize("page", [p for p in PAGES if p.stem != "LOG"], ids=lambda path: path.name)
def test_pages_name_files_that_exist(page: Path) -> None:
    """Quoted paths of the source, such as `kyvo/scenes/codec.py`."""
    missing = [name for name in PATHS.findall(page.read_text()) if not (ROOT / name).exists()]
    assert missing == []


def test_keys_of_configs_that_pages_name_exist() -> None:
    """Quoted as `key: value` or `key=value`; a key may be of a section, as in `loss.weight`."""
    files = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "kyvo").rglob("config.py")]
    known = set(re.findall(r"\w+", " ".join(path.read_text() for path in files))) | {"key"}
    for page in [page for page in PAGES if page.stem != "LOG"]:
        quoted = re.findall(r"`([a-z][\w.]*)(?:: |=)[\w./-]+`", page.read_text())
        assert {key for key in quoted if key.split(".")[-1] not in known} == set(), page.name


def test_the_tours_rooms_are_those_of_the_imports() -> None:
    """Every room is in the table, below all that it may import."""
    text = (ROOT / "docs/architecture.md").read_text().split("\n## The rooms\n")[1]
    rooms = re.findall(r"^\| `(\w+)(?:\.py)?` \|", text.split("\n## ")[0], flags=re.MULTILINE)
    assert set(rooms) == set(MAY_IMPORT)
    for index, room in enumerate(rooms):
        assert MAY_IMPORT[room] <= set(rooms[:index]), room

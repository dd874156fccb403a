"""Count how a checkout is built: its rooms, its long functions, its untyped dicts, its own words.

    python3 tests/house.py [CHECKOUT ...] [--terms]

Prints one table with a column for each checkout (the current folder if none is given), so that two
states of the project can be compared. Every count is read from the source; nothing is imported.

A room is a folder or a module directly under ``kyvo/``. An arrow is a pair of rooms of which the
first imports the second. A floor is a step of the longest chain of such imports, counted in rooms.
A function's docstring is not part of its length. Terms are counted in identifiers, comments,
docstrings and other strings of ``kyvo/`` and ``scripts/``.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MAX_FUNCTION = 60
FIGURES = r"figures?"

TERMS = {
    # Decoding.
    r"forced|jumps?(?![- ]forward)": "deterministic tokens, jump-forward",
    r"steps per look": "steps_per_sync",
    r"fill free rows|live rows": "schedule, active slots",
    r"joined(?! by| for| to)": "fused projection",
    r"products": "matmuls, GEMMs",
    # Models and training.
    r"hidden at|layer at": "gather, forward_selected",
    r"freeze table": "materialize_table",
    r"head start": "lm_head_init",
    r"accelerate": "apply_compile_and_float8",
    r"Gradient Watch": "NonFiniteGradCheck",
    r"Stop Request": "PreemptionHandler",
    r"preflight": "plan",
    # Images, metrics, reports.
    r"pictures?": "image",
    FIGURES: "metric, value",
    # World.
    r"lamps?|lit lamps": "light",
    r"solids?": "primitive",
    r"casting": "intersection",
    r"BRIGHTEST": "radiance_clamp",
    r"sheen|dull|aside": "specular, GGX lobe, u/v",
    # Prose.
    r"manieth|every so": "every n-th",
    r"tells?|told": "report",
    r"stands?(?![- ]in| for)|stood": "is",
    r"lies|lay": "is",
    r"lacks?|lacking|lacked": "missing",
    r"met": "hit, reached",
    r"noted": "recorded",
}
"""A pattern of each home-grown word of the house's table, and the field's term for it."""

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True)
class House:
    """What was counted in one checkout.

    Attributes:
        long_functions: those of more than ``MAX_FUNCTION`` lines.
        terms: uses of every pattern of ``TERMS``.
    """

    files: int
    lines: int
    rooms: int
    floors: int
    arrows: int
    functions: int
    long_functions: int
    untyped_dicts: int
    untyped_files: int
    coordinates_keys: int
    terms: Counter[str]


def count(root: Path) -> House:
    """Count the checkout at ``root``."""
    package, paths = _sources(root / "kyvo"), _counted(root)
    texts = [path.read_text() for path in paths]
    trees = [ast.parse(text) for text in texts]
    arrows = _arrows(root, package)
    lengths = [length for tree in trees for length in _function_lengths(tree)]
    dicts = [text.count("dict[str, Any]") for text in texts]
    return House(
        files=len(paths),
        lines=sum(text.count("\n") for text in texts),
        rooms=len({_room(root, path) for path in package} - {"__init__"}),
        floors=_floors(arrows),
        arrows=sum(map(len, arrows.values())),
        functions=len(lengths),
        long_functions=sum(length > MAX_FUNCTION for length in lengths),
        untyped_dicts=sum(dicts),
        untyped_files=sum(map(bool, dicts)),
        coordinates_keys=sum(text.count('"3d_coords"') for text in texts),
        terms=sum(map(_terms_of, texts), Counter()),
    )


def terms_by_file(root: Path) -> dict[str, Counter[str]]:
    """Uses of ``TERMS`` in every file of the checkout that has some."""
    found = {str(path.relative_to(root)): _terms_of(path.read_text()) for path in _counted(root)}
    return {name: +terms for name, terms in found.items() if terms.total()}


def _counted(root: Path) -> list[Path]:
    return [*_sources(root / "kyvo"), *_sources(root / "scripts")]


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "configs" not in path.parts)


def _room(root: Path, path: Path) -> str:
    return path.relative_to(root / "kyvo").parts[0].removesuffix(".py")


def _arrows(root: Path, package: Sequence[Path]) -> dict[str, set[str]]:
    """The rooms that every room imports; the package's own ``__init__`` is no room."""
    arrows: dict[str, set[str]] = {}
    for path in package:
        room = _room(root, path)
        if room != "__init__":
            rooms = {name.split(".")[1] for name in _imported(path) if name.startswith("kyvo.")}
            arrows.setdefault(room, set()).update(rooms - {room})
    return {room: {other for other in others if other in arrows} for room, others in arrows.items()}


def _imported(path: Path) -> Iterator[str]:
    """Full names of what a file imports, members included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _floors(arrows: dict[str, set[str]]) -> int:
    @cache
    def height(room: str) -> int:
        return 1 + max(map(height, arrows[room]), default=0)

    return max(map(height, arrows), default=0)


def _function_lengths(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            yield length - len(docstring.splitlines())


def _terms_of(text: str) -> Counter[str]:
    words = "\n".join(_words_of(text))
    counts = Counter({term: len(_pattern(term).findall(words)) for term in TERMS})
    if re.search(r"\b(matplotlib|Figure)\b", text):
        # Where something is plotted, a figure is one.
        del counts[FIGURES]
    return counts


@cache
def _pattern(term: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{term})\b", re.IGNORECASE)


def _words_of(text: str) -> Iterator[str]:
    """Identifiers as words, and comments and strings as they are."""
    middles = {getattr(tokenize, "FSTRING_MIDDLE", None), tokenize.STRING, tokenize.COMMENT}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield _CAMEL.sub(" ", token.string).replace("_", " ")
        elif token.type in middles:
            yield token.string.replace("_", " ")


def table(houses: dict[str, House], with_terms: bool = False) -> str:
    """The counts as a Markdown table, one column for each house."""
    rows = {
        "files of kyvo/ and scripts/": [house.files for house in houses.values()],
        "lines": [house.lines for house in houses.values()],
        "rooms (parts of kyvo)": [house.rooms for house in houses.values()],
        "floors (longest chain of imports, in rooms)": [h.floors for h in houses.values()],
        "arrows (rooms that import a room)": [house.arrows for house in houses.values()],
        "functions": [house.functions for house in houses.values()],
        f"functions over {MAX_FUNCTION} lines": [h.long_functions for h in houses.values()],
        "uses of `dict[str, Any]`": [house.untyped_dicts for house in houses.values()],
        "files with `dict[str, Any]`": [house.untyped_files for house in houses.values()],
        'uses of `"3d_coords"`': [house.coordinates_keys for house in houses.values()],
        "home-grown terms": [house.terms.total() for house in houses.values()],
    }
    if with_terms:
        for term, word in TERMS.items():
            name = f"{re.sub(r'[(][?]!.*?[)]', '', term).replace('|', ', ')} -> {word}"
            rows[name] = [house.terms[term] for house in houses.values()]
    lines = [f"| {name} | {' | '.join(f'{n:,}' for n in row)} |" for name, row in rows.items()]
    header = f"| what | {' | '.join(houses)} |\n|---|{'--:|' * len(houses)}"
    return "\n".join([header, *lines])


def main(argv: Sequence[str]) -> None:
    """Parse, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path()], help="folders")
    parser.add_argument("--terms", action="store_true", help="a row for every home-grown term")
    arguments = parser.parse_args(argv)
    houses = {str(path): count(path) for path in arguments.checkouts}
    print(table(houses, arguments.terms))


if __name__ == "__main__":
    main(sys.argv[1:])

"""The rules of the house, read from the source: who imports whom, sizes, literals."""

import ast
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for folder in ("kyvo", "scripts", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if "configs" not in path.parts
)
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
PACKAGE = [p for p in FILES if p.is_relative_to(ROOT / "kyvo") and p != ROOT / "kyvo/__init__.py"]
SCRIPTS = [p for p in FILES if p.parent == ROOT / "scripts"]

# What each part may import of the others; a part at the top of the package is a file.
MODALITIES = {"common", "images", "tokens", "scenes"}
LANGUAGE = {*MODALITIES, "data", "models"}
MAY_IMPORT = {
    "common": set(),
    "images": {"common"},
    "tokens": {"common", "images"},
    "scenes": {"common", "tokens"},
    "metrics": {"common", "tokens", "scenes"},
    "world": {"common"},
    "data": MODALITIES,
    "prepare": MODALITIES | {"data", "world"},
    "models": MODALITIES,
    "training": LANGUAGE,
    "decoding": LANGUAGE,
    "evaluation": LANGUAGE | {"decoding", "metrics"},
    "report": MODALITIES | {"metrics"},
    "api": LANGUAGE | {"decoding"},
    "showcase": {"common", "api", "prepare", "report", "world"},
    "plan": LANGUAGE | {"training", "decoding", "evaluation", "metrics"},
}
OPTIONAL_PACKAGES = {
    "bpy",
    "gradio",
    "huggingface_hub",
    "jinja2",
    "matplotlib",
    "mitsuba",
    "mpl_toolkits",
    "plotly",
    "tensorboard",
    "wandb",
}
DATASETS = {"clevr", "objaworld", "objectron", "arkitscenes"}
PRESETS = {f"kyvo.scenes.presets.{name.upper()}" for name in DATASETS}
# Where a data set may be named, and why; nowhere else in the package.
DATASET_FILES = {
    "kyvo/scenes/presets.py": "the released schemas",
    "kyvo/tokens/vocabulary.py": "the released vocabularies",
    "kyvo/prepare/layout.py": "names of the released codebook files",
    "kyvo/prepare/world_tasks.py": "the name of a world, as its command has it",
    "kyvo/world/tasks.py": "the name of a world, as its command has it",
}
MAX_FILE, MAX_FUNCTION, MAX_TRAINING_LOOP, MAX_COLUMNS = 600, 60, 120, 100


def for_each(files: Sequence[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """Make a rule of one file a test of all ``files``, which lists those that break it.

    As a test of each rule and file they were two thousand, whose overhead was most of their time.
    """

    def as_test(rule: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            faults = []
            for path in files:
                try:
                    rule(path)
                except AssertionError as fault:
                    faults.append(f"{path.relative_to(ROOT)}: {fault}")
            assert not faults, "\n".join(faults)

        return test

    return as_test


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def nodes_by_kind(path: Path) -> dict[type[ast.AST], list[ast.AST]]:
    """All nodes of a file: a walk takes longer than all that the rules ask of it."""
    found: dict[type[ast.AST], list[ast.AST]] = {}
    for node in ast.walk(tree(path)):
        found.setdefault(type(node), []).append(node)
    return found


def nodes(path: Path, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for kind in kinds for node in nodes_by_kind(path).get(kind, ()))


def modules_of(statement: ast.AST) -> list[str]:
    """Full names of what an import statement imports, members included."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        assert statement.level == 0, "imports are absolute"
        return [f"{statement.module}.{alias.name}" for alias in statement.names]
    return []


@cache
def imported(path: Path) -> set[str]:
    return {n for node in nodes(path, ast.Import, ast.ImportFrom) for n in modules_of(node)}


def part_of(path: Path) -> str:
    """The part of the package that a file belongs to, such as ``scenes`` or ``text``."""
    return path.relative_to(ROOT / "kyvo").parts[0].removesuffix(".py")


def parts_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("kyvo.")}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return nodes(path, ast.FunctionDef, ast.AsyncFunctionDef)  # type: ignore[return-value]


def test_the_files_are_found() -> None:
    assert {"kyvo/tokens/vocabulary.py", "kyvo/scenes/codec.py"} <= set(NAMES)
    assert any(name.startswith("scripts/") for name in NAMES)


@for_each(PACKAGE)
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"say in MAY_IMPORT what kyvo.{part} may import"
    wrong = parts_imported(path) - MAY_IMPORT[part] - {part}
    assert not wrong, f"{path.name} may not import {', '.join(sorted(wrong))}"


def test_the_rule_itself_has_no_circle() -> None:
    """Taking away, again and again, every part that imports none of the rest leaves nothing."""
    rest = {part: set(allowed) for part, allowed in MAY_IMPORT.items()}
    while leaves := {part for part, allowed in rest.items() if not allowed & rest.keys()}:
        rest = {part: allowed for part, allowed in rest.items() if part not in leaves}
    assert not rest


def test_no_circles_between_parts() -> None:
    graph: dict[str, set[str]] = {}
    for path in PACKAGE:
        graph.setdefault(part_of(path), set()).update(parts_imported(path) - {part_of(path)})
    while leaves := {part for part, used in graph.items() if not used & graph.keys()}:
        graph = {part: used for part, used in graph.items() if part not in leaves}
    assert not graph, f"a circle among {sorted(graph)}"


@for_each(FILES)
def test_metrics_and_world_stay_light(path: Path) -> None:
    """They import none of models, training, decoding; metrics not even torch."""
    part = part_of(path) if path in PACKAGE else ""
    if part not in ("metrics", "world"):
        return
    assert not parts_imported(path) & {"models", "training", "decoding"}
    roots = {name.split(".")[0] for name in imported(path)}
    assert part != "metrics" or not roots & {"torch", "torchtune", "torchao"}


def test_metrics_need_no_torch_through_others() -> None:
    """Everything that kyvo.metrics reaches inside the package does without torch."""
    todo = [p for p in FILES if p.parts[-2] == "metrics"]
    # The package's own face imports its door when it is asked for, as tests/test_api.py shows.
    seen: set[Path] = {ROOT / "kyvo/__init__.py"}
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        assert not any(name.split(".")[0] in ("torch", "torchtune") for name in imported(path)), (
            f"{path.relative_to(ROOT)} imports torch and kyvo.metrics needs it"
        )
        todo += [f for name in imported(path) if name.startswith("kyvo.") for f in files_of(name)]


def files_of(name: str) -> list[Path]:
    """Files that importing the dotted ``name`` runs: packages' ``__init__`` and the module."""
    parts = name.split(".")
    candidates = []
    for i in range(1, len(parts) + 1):
        base = ROOT.joinpath(*parts[:i])
        candidates += [base.with_suffix(".py"), base / "__init__.py"]
    return [path for path in candidates if path.is_file()]


@for_each(FILES)
def test_imports_inside_functions_are_of_optional_packages(path: Path) -> None:
    for function in functions(path):
        for node in ast.walk(function):
            for name in modules_of(node):
                assert name.split(".")[0] in OPTIONAL_PACKAGES, (
                    f"{path.name}:{node.lineno}: import {name} at the top of the file"  # type: ignore[attr-defined]
                )


@for_each(FILES)
def test_sizes(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE
    for function in functions(path):
        is_loop = function.name == "train" and {"scripts", "training"} & {*path.parts}
        limit = MAX_TRAINING_LOOP if is_loop else MAX_FUNCTION
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length - docstring_lines(function) <= limit, f"{function.name}: {length} lines"


def docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return len((ast.get_docstring(function, clean=False) or "").splitlines())


@for_each(FILES)
def test_plain_narrow_lines(path: Path) -> None:
    text = path.read_text()
    assert text.isascii()
    wide = [i for i, line in enumerate(text.splitlines(), 1) if len(line) > MAX_COLUMNS]
    assert not wide, f"lines over {MAX_COLUMNS} columns: {wide}"


@for_each(PACKAGE)
def test_the_package_names_no_data_set(path: Path) -> None:
    """Not as a word, a default, a key or a subscript, nor by a preset's constant."""
    if str(path.relative_to(ROOT)) in DATASET_FILES:
        return
    for node in nodes(path, ast.Constant):
        assert str(node.value).lower() not in DATASETS, f"line {node.lineno}"  # type: ignore[attr-defined]
    assert not imported(path) & PRESETS


def test_the_list_of_files_that_name_data_sets_is_true() -> None:
    for name in DATASET_FILES:
        words = {str(n.value).lower() for n in nodes(ROOT / name, ast.Constant)}  # type: ignore[attr-defined]
        assert words & DATASETS, f"{name} names none any more"


@for_each(FILES)
def test_no_data_set_is_named_in_a_condition(path: Path) -> None:
    """Scripts and benchmarks may choose one by default, but not treat it otherwise."""
    conditions = [
        *(n.test for n in nodes(path, ast.If, ast.IfExp, ast.While)),  # type: ignore[attr-defined]
        *nodes(path, ast.Compare, ast.match_case),
    ]
    for condition in conditions:
        assert not words_of(condition) & DATASETS, f"line {getattr(condition, 'lineno', '?')}"


def words_of(node: ast.AST) -> set[str]:
    """String literals of an expression."""
    return {str(n.value).lower() for n in ast.walk(node) if isinstance(n, ast.Constant)}


@for_each(FILES)
def test_no_literal_token_ids(path: Path) -> None:
    if path == ROOT / "kyvo/tokens/vocabulary.py":
        return
    for node in nodes(path, ast.Constant):
        value = node.value  # type: ignore[attr-defined]
        is_id = type(value) is int and 128_000 <= value <= 137_700 and value & (value - 1)
        assert not is_id, f"line {node.lineno}: {value}"  # type: ignore[attr-defined]


@for_each(FILES)
def test_only_files_loads_arrays_and_nothing_unpickles(path: Path) -> None:
    allowed = {"kyvo/common/files.py": {"load"}}.get(str(path.relative_to(ROOT)), set())
    for node in nodes(path, ast.Attribute):
        owner = node.value.id if isinstance(node.value, ast.Name) else ""  # type: ignore[attr-defined]
        is_load = owner in ("np", "numpy", "pickle") and node.attr in ("load", "loads")  # type: ignore[attr-defined]
        assert not is_load or node.attr in allowed, f"line {node.lineno}"  # type: ignore[attr-defined]
    for node in nodes(path, ast.Call):
        keywords = {k.arg: k.value for k in node.keywords}  # type: ignore[attr-defined]
        for name, bad in (("allow_pickle", True), ("weights_only", False)):
            value = keywords.get(name)
            assert not (isinstance(value, ast.Constant) and value.value is bad)


@for_each(FILES)
def test_public_things_have_docstrings(path: Path) -> None:
    assert ast.get_docstring(tree(path)), "the module has none"
    bodies = [tree(path), *nodes(path, ast.ClassDef)]
    for body in bodies:
        for node in body.body:  # type: ignore[attr-defined]
            is_definition = isinstance(node, ast.ClassDef | ast.FunctionDef)
            if is_definition and not node.name.startswith("_"):
                is_usual = node.name in ("forward", "main")
                owner = getattr(body, "name", "")
                assert is_usual or owner.startswith("_") or ast.get_docstring(node), (
                    f"{owner} {node.name}"
                )


@for_each(SCRIPTS)
def test_scripts_are_thin_commands(path: Path) -> None:
    """They parse, call and print; every flag has a help text."""
    source = path.read_text()
    is_recipe = any(name.startswith("torch") for name in imported(path))
    assert is_recipe or len(source.splitlines()) <= 110
    assert 'if __name__ == "__main__":\n    kyvo.common.cli.run(main)\n' in source
    for call in nodes(path, ast.Call):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument":  # type: ignore[attr-defined]
            assert any(k.arg == "help" for k in call.keywords), f"line {call.lineno}"  # type: ignore[attr-defined]

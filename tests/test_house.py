"""The counts of tests/house.py, on a package of three rooms whose counts are known."""

from pathlib import Path

from house import count, main, table, terms_by_file

LONG = "\n".join(["def long():", '    """One.', "", '    """', *["    x = 1"] * 60])
FILES = {
    "kyvo/__init__.py": "from kyvo.api import load\n",
    "kyvo/common/files.py": "from typing import Any\n\nA: dict[str, Any] = {}\n",
    "kyvo/scenes/codec.py": f"from kyvo.common import files\n\n{LONG}\n",
    "kyvo/api.py": "from kyvo.scenes.codec import long\nimport kyvo.common.files\n",
    "kyvo/configs/any.py": "import kyvo.nothing\n",
    "scripts/draw.py": "# The picture is drawn.\nlit_lamps = 'joined pictures'\nunpictured = 3\n",
}


ROOT = Path(__file__).parents[1]
LAMPS, PRODUCTS = r"lamps?|lit lamps", "products"
LEFT = {
    "kyvo/prepare/download.py": {r"tells?|told"},
    "kyvo/report/top_down.py": {r"solids?"},
    "kyvo/world/clevr/batch_sampler.py": {LAMPS},
    "kyvo/world/clevr/sampler.py": {LAMPS},
    "kyvo/world/constants.py": {LAMPS},
    "kyvo/world/instructions/wordings.py": {r"stands?(?![- ]in| for)|stood"},
    "kyvo/world/objaworld/sampler.py": {LAMPS},
    "kyvo/world/render/geometry.py": {PRODUCTS},
    "kyvo/world/render/shading.py": {PRODUCTS},
    "kyvo/world/render/triton_geometry.py": {PRODUCTS},
    "kyvo/world/viewpoints.py": {LAMPS},
    "scripts/make_world.py": {LAMPS},
}
"""Words that stay: keys of files, products of vectors, other libraries' names, an instruction."""


def write(root: Path) -> Path:
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_rooms_floors_and_arrows_are_those_of_the_imports(tmp_path: Path) -> None:
    house = count(write(tmp_path))
    assert (house.rooms, house.floors, house.arrows) == (3, 3, 3)
    assert (house.untyped_dicts, house.untyped_files) == (1, 1)


def test_a_docstring_is_no_part_of_a_functions_length(tmp_path: Path) -> None:
    house = count(write(tmp_path))
    assert (house.functions, house.long_functions) == (1, 1)
    path = tmp_path / "kyvo/scenes/codec.py"
    path.write_text(path.read_text().replace("    x = 1\n", "", 1))
    assert count(tmp_path).long_functions == 0


def test_terms_are_whole_words_of_names_comments_and_strings(tmp_path: Path) -> None:
    terms = count(write(tmp_path)).terms
    found = {term: number for term, number in terms.items() if number}
    assert found == {r"pictures?": 2, r"lamps?|lit lamps": 1, r"joined(?! by| for| to)": 1}


def test_no_home_grown_term_comes_back() -> None:
    found = {name: {*terms} for name, terms in terms_by_file(ROOT).items()}
    assert {name: terms - LEFT.get(name, set()) for name, terms in found.items()} == {
        name: set() for name in LEFT
    }


def test_a_plots_figure_is_one(tmp_path: Path) -> None:
    path = write(tmp_path) / "scripts/draw.py"
    path.write_text("figure = 1\n")
    assert count(tmp_path).terms[r"figures?"] == 1
    path.write_text("from matplotlib.figure import Figure\n")
    assert count(tmp_path).terms[r"figures?"] == 0


def test_the_table_has_a_column_for_every_checkout(tmp_path: Path, capsys) -> None:
    house = count(write(tmp_path))
    assert "| rooms (parts of kyvo) | 3 | 3 |" in table({"before": house, "after": house})
    main([str(tmp_path), "--terms"])
    assert f"| what | {tmp_path} |" in capsys.readouterr().out

"""RESULTS.md: digits, ratios, shares, sources are those of the files; the page is current."""

import datetime
import importlib
import json
import math
import shlex
import sys
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kyvo.common.errors import InputError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
bench, make_results = map(importlib.import_module, ("bench", "make_results"))
Row = bench.Row
FILES = sorted((ROOT / "benchmarks/results").glob("*.json"))

FULL = Row("decoding", 250.0, "images/s", 100.0, "one at a time", 1000.0, "the matmuls", "warm")
QUICKER = Row("opening", 0.5, "s", 2.0, "one at a time")
ALONE = Row("a | b", 0.000602, "share")


def write(path, *rows, title="Speed: how fast it is", **changed):
    record = {
        "title": title,
        "script": "benchmarks/vqgan.py",
        "command": "python3 benchmarks/vqgan.py",
        "date": "2026-01-02",
        "machine": {"device": "Abacus", "cores": "2"},
        "ceilings": {"matmul_flops_per_s": 7.5e14, "copy_bytes_per_s": 4e12},
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps({**record, **changed}))
    return path


def cells_of(text):
    """The cells of the rows under a page's headings, headers and rulers left out."""
    lines = [line for line in text.partition("\n## ")[2].splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in rows if row[0] != "what"]


def page_of(*paths):
    return make_results.page([make_results.read_table(path) for path in paths])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000602, "0.000602"),
        (0.22, "0.220"),
        (1.005, "1.00"),
        (33.66, "33.7"),
        (99.96, "100"),
        (123.4, "123"),
        (12961540.5, "12,961,540"),
        (1024, "1,024"),
        (0, "0"),
        (-2.5, "-2.50"),
    ],
)
def test_numbers_have_three_digits_or_a_whole_part(value, text):
    assert make_results.number(value) == text


def test_ratios_and_shares_have_sensible_digits():
    assert [make_results.times(x) for x in (None, 0.25, 2.5, 31.44, 314.4)] == [
        "",
        "0.25",
        "2.50",
        "31.4",
        "314",
    ]
    assert [make_results.share(x) for x in (None, 0.312, 0.0312, 1.5e-5)] == [
        "",
        "31 %",
        "3.1 %",
        "0.0015 %",
    ]


def test_a_row_shows_value_reference_ratio_ceiling_and_share(tmp_path):
    text = page_of(write(tmp_path / "a.json", FULL))
    (cells,) = cells_of(text)
    assert cells == ["decoding (a)", "250 images/s", "100 (b)", "2.50", "1,000 (c)", "25 %"]
    assert "(a) warm; (b) one at a time; (c) the matmuls" in text
    assert "## Speed (Abacus)" in text
    assert "How fast it is" in text
    assert "`python3 benchmarks/vqgan.py`" in text
    assert "- 2026-01-02; device Abacus, cores 2; measured: large matmuls at 750 TFLOP/s" in text
    assert "4,000 GB/s" in text


def test_less_time_is_better_and_missing_references_stay_empty(tmp_path):
    path = write(tmp_path / "a.json", QUICKER, ALONE, Row("x", 1.0, "Jaccard", 0.0, "untrained"))
    quicker, alone, beside_nothing = cells_of(page_of(path))
    assert quicker == ["opening", "0.500 s", "2 (a)", "4.00"]
    assert alone == ["a \\| b", "0.000602 share", "", ""]
    assert beside_nothing[2:] == ["0 (b)", ""]


def test_columns_that_nothing_fills_are_left_out(tmp_path):
    text = page_of(write(tmp_path / "a.json", ALONE))
    assert "| what | value |\n|---|--:|\n" in text


def test_runs_of_one_title_share_a_table(tmp_path):
    paths = [
        write(tmp_path / "a.json", FULL, date="2026-01-01"),
        write(tmp_path / "b.json", ALONE, title="Other"),
        write(tmp_path / "c.json", QUICKER, date="2026-01-03"),
        write(tmp_path / "d.json", FULL, machine={"device": "Loom"}),
    ]
    text = page_of(*paths)
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Speed", "## Other (Abacus)"]
    shared = text.split("## ")[1]
    named = [(cells[0], cells[-1]) for cells in cells_of(f"\n## {shared}")]
    expected = [("decoding (a)", "Abacus"), ("opening", "Abacus"), ("decoding (a)", "Loom")]
    assert named == expected
    assert shared.index("- 2026-01-01;") < shared.index("- 2026-01-03;")


def summary_of(text):
    """The lines of the summary, header and ruler left out."""
    lines = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def test_the_summary_has_the_best_of_every_device(tmp_path):
    """The lowest time and the highest rate; what is of another script or unit does not count."""
    rates = [
        Row("encode, slow", 5.0, "images/s"),
        Row("encode, fast", 9.0, "images/s", 3.0, "slow"),
        Row("encode, large", 99.0, "GFLOP"),
    ]
    times = [Row("open from the cache", value, "s") for value in (0.5, 0.25)]
    paths = [
        write(tmp_path / "a.json", *rates, command="python3 benchmarks/vqgan.py --config mini"),
        write(tmp_path / "b.json", *times, script="benchmarks/data_store.py"),
        write(tmp_path / "c.json", rates[0], machine={"device": "Loom"}),
        write(tmp_path / "d.json", ALONE, machine={"device": "Sundial"}),
    ]
    assert summary_of(page_of(*paths)) == [
        ["encoding images", "9 images/s (mini, 3.00 x the reference)", "5 images/s"],
        ["opening pretokenised data", "0.250 s", ""],
    ]


def test_the_committed_page_has_ten_lines_at_its_top():
    assert len(summary_of(make_results.PAGE.read_text())) == len(make_results.HEADLINES) == 10


def test_titles_come_from_the_scripts_themselves(tmp_path):
    table = make_results.read_table(write(tmp_path / "a.json", FULL, title=None))
    assert table.title == "Images to codes and back"


def test_the_legend_gives_one_letter_to_one_text_and_does_not_run_out():
    legend = make_results.Legend()
    marks = [legend.mark(f"text {index}") for index in range(60)]
    assert marks[:2] == [" (a)", " (b)"]
    assert marks[25:28] == [" (z)", " (aa)", " (ab)"]
    assert marks[52] == " (ba)"
    assert legend.mark("text 1") == " (b)"
    assert legend.mark("") == ""


def test_the_plot_has_a_bar_for_every_ratio_and_share(tmp_path):
    """Bars are the only blue things; without a reference and a ceiling there is none."""
    counts = []
    for name, rows in (("none", [ALONE]), ("one", [QUICKER]), ("two", [QUICKER, FULL])):
        table = make_results.read_table(write(tmp_path / f"{name}.json", *rows))
        make_results.plot([table], tmp_path / "plot.png")
        pixels = np.array(Image.open(tmp_path / "plot.png").convert("RGB")).astype(int)
        blue = np.array([int(make_results.PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)])
        counts.append(int((np.abs(pixels - blue).sum(-1) < 8).sum()))
    assert counts[0] == 0
    assert 0 < counts[1] < counts[2]


def test_check_accepts_the_page_that_was_written_and_no_other(tmp_path):
    write(tmp_path / "b.json", QUICKER)
    write(tmp_path / "earlier-a.json", ALONE, title="Earlier")
    page = tmp_path / "RESULTS.md"
    places = ["--results", str(tmp_path), "--page", str(page), "--plot", str(tmp_path / "p.png")]
    with pytest.raises(InputError, match=r"make_results\.py"):
        make_results.main([*places, "--check"])
    make_results.main(places)
    make_results.main([*places, "--check"])
    assert page.read_text().index("## Speed") < page.read_text().index("## Earlier")
    page.write_text(page.read_text().replace("4.00", "5.00"))
    with pytest.raises(InputError, match="is not what"):
        make_results.main([*places, "--check"])


@pytest.mark.parametrize(
    "changed",
    [{"rows": {}}, {"date": None}, {"rows": [{"what": "x"}]}, {"rows": [3]}],
    ids=["rows", "date", "fields", "row"],
)
def test_a_file_that_is_not_of_results_is_refused(tmp_path, changed):
    path = write(tmp_path / "a.json", **changed)
    with pytest.raises(InputError, match=r"a\.json"):
        make_results.read_table(path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no \.json"):
        make_results.main(["--results", str(tmp_path)])


def test_the_committed_page_is_what_the_files_give():
    make_results.main(["--check"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_results_have_the_schema(path):
    record = json.loads(path.read_text())
    assert record.keys() >= {"script", "command", "date", "machine", "ceilings", "rows"}
    datetime.date.fromisoformat(record["date"])
    assert record["machine"].keys() >= {"device", "cores", "torch", "cuda", "python"}
    if record["script"]:
        assert (ROOT / record["script"]).is_file()
        assert shlex.split(record["command"])[:2] == ["python3", record["script"]]
    assert "/work" not in path.read_text()
    assert record["rows"]
    for row in record["rows"]:
        assert row.keys() == {field.name for field in fields(Row)}
        assert row["what"]
        assert math.isfinite(row["value"])
        for key in ("reference", "ceiling"):
            assert row[key] is None or row[f"{key}_source"], f"{row['what']}: {key}"

import base64
import importlib.util
import io
import re
import sys
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from kyvo.common.errors import InputError, MissingDependencyError
from kyvo.report import ReportInputs, write_report

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page(demo, flat_renderer, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(demo, path, flat_renderer)
    return path.read_text()


def images_in(page):
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_the_page_loads_nothing_from_elsewhere(page):
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "http" not in without_names
    assert "<script" not in page
    links = re.findall(r'(?:src|href)="([^"]*)"', without_names)
    assert all(link.startswith(("data:", "#")) for link in links)


def test_titles_are_escaped(page):
    assert "<title>A &lt;demo&gt; &amp; more</title>" in page
    assert "<demo>" not in page


def test_the_table_holds_the_values(page):
    row = re.search(r"Jaccard, tau 0.05</th>(.*?)</tr>", page).group(1)
    assert re.findall(r"<td>(.*?)</td>", row) == ["-", "0.359"]
    readable = re.search(r"Objects readable</th>(.*?)</tr>", page).group(1)
    assert re.findall(r"<td>(.*?)</td>", readable) == ["0.0%", "96.4%"]
    assert "[COLOR] missing: 3" in page


def test_predicted_scenes_are_rendered_without_unreadable_objects(page):
    sizes = [image.shape[0] for image in images_in(page)]
    rendered = [image for image in images_in(page) if image.shape[0] != 32]
    named = [int(n) for n in re.findall(r"objects found, (\d+) named", page)]
    articles = re.findall(r"<article.*?</article>", page, flags=re.DOTALL)
    unreadable = [text.count("position") for text in articles if "objects found" in text]
    drawn = [image[0, 0, 0] // 20 for image in rendered]
    assert sizes.count(32) == 3 + 3 * 3
    assert drawn == [n - bad for n, bad in zip(named, unreadable, strict=True)]


def test_plots_are_well_formed_and_take_the_page_color(page):
    plots = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(plots) == 7 + 3 + 2 + 5 + 1
    for plot in plots:
        ElementTree.fromstring(plot)
        assert "#010203" not in plot
    assert any("currentColor" in plot for plot in plots)


def test_timings_and_codes_are_reported(page):
    assert "1 min 01 s" in page
    assert "2 min 44 s" in page
    assert "3 of 8 occur, perplexity 3" in page


def test_without_inputs_the_page_says_what_is_missing(tmp_path, flat_renderer):
    write_report(ReportInputs(), tmp_path / "report.html", flat_renderer)
    page = (tmp_path / "report.html").read_text()
    assert page.count('class="note"') == 7
    for flag in ("--jaccard", "--predictions", "--generated-folder", "--vqgan-log", "--timings"):
        assert flag in page


def test_a_broken_input_leaves_an_older_report_alone(tmp_path, flat_renderer):
    report = tmp_path / "report.html"
    report.write_text("older")
    (tmp_path / "timings.json").write_text('{"world": "long"}')
    with pytest.raises(InputError, match="world: expected a number"):
        write_report(ReportInputs(timings=tmp_path / "timings.json"), report, flat_renderer)
    assert report.read_text() == "older"


@pytest.mark.parametrize(
    ("module", "package"), [("jinja2", "jinja2"), ("matplotlib.figure", "matplotlib")]
)
def test_missing_packages_are_named(monkeypatch, tmp_path, demo, flat_renderer, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    inputs = ReportInputs(vqgan_log=demo.vqgan_log)
    with pytest.raises(MissingDependencyError, match=rf"'{package}'.*kyvo\[report\]"):
        write_report(inputs, tmp_path / "report.html", flat_renderer)


def test_the_script_has_a_flag_per_input(demo, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("make_report", ROOT / "scripts/make_report.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with pytest.raises(SystemExit):
        script.main(["--help"])
    text = capsys.readouterr().out
    flags = {f"--{item.name.replace('_', '-')}" for item in fields(ReportInputs)}
    assert all(flag in text for flag in flags)
    output = tmp_path / "out/report.html"
    script.main(
        [
            *("--output", str(output), "--title", "Mine"),
            *("--training-logs", *demo.training_logs),
            *("--timings", str(demo.timings)),
        ]
    )
    assert "recognition: accuracy" in output.read_text()
    assert str(output) in capsys.readouterr().out

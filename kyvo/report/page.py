"""Puts a report together and writes it as one HTML file."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kyvo.common.errors import MissingDependencyError
from kyvo.common.files import atomic_file
from kyvo.report.content import Headline, Section
from kyvo.report.examples import recognition_section, rendering_section
from kyvo.report.images import Renderer
from kyvo.report.inputs import ReportInputs
from kyvo.report.learning import (
    timings_section,
    tokenizer_section,
    total_time,
    training_section,
)
from kyvo.report.metrics_table import headlines, metrics_section

TEMPLATE = "report.html.jinja"


def write_report(inputs: ReportInputs, output: Path | str, renderer: Renderer) -> None:
    """Write the report to ``output``: one HTML file that loads nothing from elsewhere.

    Args:
        inputs: what to report; every part is optional.
        output: path of the HTML file.
        renderer: draws predicted scenes, such as ``kyvo.world.clevr.rendering.render_json``.

    Raises:
        InputError: a given file is missing or malformed.
        MissingDependencyError: jinja2 or matplotlib is not installed.
    """
    builders = (
        lambda: metrics_section(inputs),
        lambda: recognition_section(inputs, renderer),
        lambda: rendering_section(inputs),
        lambda: training_section(inputs),
        lambda: tokenizer_section(inputs),
        lambda: timings_section(inputs),
    )
    sections = [build() for build in tqdm(builders, desc="report", unit="section")]
    heads = (*headlines(inputs), *total_time(inputs))
    write_page(output, inputs.title, inputs.explanation, heads, sections)


def write_page(
    output: Path | str,
    title: str,
    explanation: str,
    heads: Sequence[Headline],
    sections: Sequence[Section],
) -> None:
    """Write sections to ``output``: one HTML file that loads nothing from elsewhere.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    source = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    template = _environment().from_string(source)
    page: str = template.render(
        title=title, explanation=explanation, headlines=heads, sections=sections
    )
    with atomic_file(output) as path:
        path.write_text(page, encoding="utf-8")


def _environment() -> Any:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise MissingDependencyError("jinja2", "the report", "report") from None
    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )

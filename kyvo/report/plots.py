"""Plots as SVG markup that takes the page's text colour and font."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kyvo.common.errors import MissingDependencyError

INK = "#010203"
"""Drawn with this, a line becomes the page's text colour: dark on light, light on dark."""
PALETTE = ("#3b82d6", "#e0793a", "#2fa56a", "#a463cf", "#d64f63", "#8a8f98")
_MAX_POINTS = 600


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        label: its name in the legend.
        steps, values: its points.
        marked: it has few points and shows each of them.
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    marked: bool = False


def curves(lines: Sequence[Line], y_label: str, log_scale: bool = False) -> str:
    """Plot values over training steps; long noisy curves are smoothed over the raw values.

    A log scale is left linear where a value is not positive.
    """
    figure, axes = new_axes(5.2, 2.9)
    for line, color in zip(lines, PALETTE * len(lines), strict=False):
        _draw_line(axes, line, color)
    axes.set_xlabel("training step")
    axes.set_ylabel(y_label)
    if log_scale and min(min(line.values) for line in lines) > 0:
        axes.set_yscale("log")
    if len(lines) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return to_svg(figure)


def rank_histogram(counts: Sequence[int]) -> str:
    """Plot how often each code is used, most used first, as shares of all uses."""
    shares = np.sort(np.asarray(counts, dtype=float))[::-1] / max(1, sum(counts))
    figure, axes = new_axes(5.2, 2.9)
    axes.fill_between(np.arange(len(shares)), 100 * shares, step="post", color=PALETTE[0], lw=0)
    axes.axhline(100 / len(shares), color=INK, lw=0.8, ls=(0, (4, 3)))
    axes.set_yscale("log")
    axes.set_xlabel("code, by rank of use (dashed: even use)")
    axes.set_ylabel("share of all codes, %")
    return to_svg(figure)


def new_axes(width: float, height: float) -> tuple[Any, Any]:
    """A transparent figure (inches) with one set of plain axes.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("matplotlib", "the report", "report") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot(facecolor="none")
    figure.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9, width=0.8, which="both")
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(color=INK, alpha=0.12, lw=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def to_svg(figure: Any) -> str:
    """The figure as an ``<svg>`` element with real text, drawn in the page's ink."""
    import matplotlib

    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kyvo"}):
        figure.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    markup = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return markup.replace(INK, "currentColor")


def _draw_line(axes: Any, line: Line, color: str) -> None:
    steps, values = np.asarray(line.steps, float), np.asarray(line.values, float)
    stride = -(-len(steps) // _MAX_POINTS) or 1
    if line.marked or len(steps) < 100:
        marker = "o" if line.marked else None
        axes.plot(steps, values, color=color, lw=1.6, marker=marker, ms=3.5, label=line.label)
        return
    window = len(steps) // 50
    smooth = np.convolve(values, np.ones(window) / window, mode="valid")
    axes.plot(steps[::stride], values[::stride], color=color, lw=0.8, alpha=0.3)
    ends = steps[window - 1 :]
    axes.plot(ends[::stride], smooth[::stride], color=color, lw=1.6, label=line.label)

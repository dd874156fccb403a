"""The renderers by name. A new one is a module with a ``RenderFunction`` and an entry here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kyvo.world.render.description import RenderFunction
from kyvo.world.render.mitsuba import render_with_mitsuba
from kyvo.world.render.tracer import prepare, render, render_prepared


@dataclass(frozen=True)
class Renderer:
    """Something that draws scenes.

    Attributes:
        render: draws them.
        prepare: what a process without the device can do beforehand; None: nothing.
        render_prepared: draws what ``prepare`` gave; its other arguments are those of ``render``.
        draws_environments: whether it shows grounds of other colours than CLEVR's, and skies.
    """

    render: RenderFunction
    prepare: Callable[[Sequence[Any]], Any] | None = None
    render_prepared: Callable[..., np.ndarray] | None = None
    draws_environments: bool = False


RENDERERS: Mapping[str, Renderer] = {
    "tracer": Renderer(render, prepare, render_prepared, draws_environments=True),
    "mitsuba": Renderer(render_with_mitsuba),
}

"""The renderers by name. A new one is a module with a ``RenderFunction`` and an entry here."""

from collections.abc import Mapping
from dataclasses import dataclass

from kyvo.world.render.description import RenderFunction
from kyvo.world.render.mitsuba import render_with_mitsuba
from kyvo.world.render.tracer import render


@dataclass(frozen=True)
class Renderer:
    """Something that draws scenes.

    Attributes:
        render: draws them.
        draws_environments: whether it shows grounds of other colours than CLEVR's, and skies.
    """

    render: RenderFunction
    draws_environments: bool = False


RENDERERS: Mapping[str, Renderer] = {
    "tracer": Renderer(render, draws_environments=True),
    "mitsuba": Renderer(render_with_mitsuba),
}

"""How a plot draws the objects of a schema, as data; every hint has a neutral default."""

from dataclasses import dataclass, field
from typing import Literal

Outline = Literal["circle", "square", "ring"]
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Drawing:
    """Hints for drawing objects from above.

    Attributes:
        colors: sRGB in 0..255 by word; an object without such a word is drawn in a neutral blue.
        radii: by word, in the unit of the position; else a fortieth of the plot's width.
        outlines: by word: a circle (the default), a square, or a circle with a ring inside.
        glints: words of objects that shine.
        margin: how far the plot reaches beyond the position's grid, in its unit; None: by a tenth.
        viewpoint: from where (x, y) the images are seen; None: not marked.
        is_traced: the ray tracer knows such objects: reports render predicted ones again.
    """

    colors: dict[str, Color] = field(default_factory=dict)
    radii: dict[str, float] = field(default_factory=dict)
    outlines: dict[str, Outline] = field(default_factory=dict)
    glints: tuple[str, ...] = ()
    margin: float | None = None
    viewpoint: tuple[float, float] | None = None
    is_traced: bool = False

"""Scenes as the package holds them: typed objects in an order.

JSON comes in through ``Schema.parse`` and ``Schema.read``, and goes out through
``Schema.to_json``; tokens through ``SceneCodec``. Between these doors a scene is a ``Scene``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class SceneObject:
    """One object: words and numbers by the keys of its schema's fields.

    A predicted object that could be read in part only has the fields that could be read; metrics
    count it as wrong. An object may hold numbers beyond its schema's, such as a rotation that
    only a renderer needs: they are neither tokenized nor scored.

    Attributes:
        words: such as ``{"shape": "cube"}``.
        numbers: such as ``{"3d_coords": (1.0, -0.5, 0.7)}``, in the units of the schema's axes.
        position_key: the key under which ``numbers`` holds the position; None if there is none.
    """

    words: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    position_key: str | None = None

    @property
    def position(self) -> tuple[float, ...]:
        """The numbers of the position field; empty if the object has none."""
        return self.numbers.get(self.position_key, ()) if self.position_key else ()

    def updated(
        self,
        words: Mapping[str, str] | None = None,
        numbers: Mapping[str, tuple[float, ...]] | None = None,
    ) -> "SceneObject":
        """The object with some of its words and numbers replaced or added."""
        return replace(
            self,
            words={**self.words, **(words or {})},
            numbers={**self.numbers, **(numbers or {})},
        )

    def moved(self, *position: float) -> "SceneObject":
        """The object at another position."""
        assert self.position_key is not None, "an object without a position cannot be moved"
        return self.updated(numbers={self.position_key: position})


@dataclass(frozen=True)
class Scene:
    """The objects of a scene, in the order in which they are written."""

    objects: tuple[SceneObject, ...] = ()

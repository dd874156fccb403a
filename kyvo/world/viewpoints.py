"""Where the camera and the lights of a scene are; all of them look at the origin without roll."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from kyvo.common.errors import InputError
from kyvo.world.constants import CAMERA, LIGHTS
from kyvo.world.json_values import Vector, read_mapping, read_vector


@dataclass(frozen=True)
class Viewpoints:
    """Positions in metres.

    Attributes:
        camera: CLEVR's, if none is given.
        lights: in the order of ``LIGHTS``; the sun is not among them, it never moves.
    """

    camera: Vector = CAMERA
    lights: tuple[Vector, ...] = tuple(light.position for light in LIGHTS)

    @classmethod
    def from_json(
        cls, scene: Mapping[str, Any], where: str, camera: Vector = CAMERA
    ) -> "Viewpoints":
        """Read what a scene's JSON has under "world"; what is missing there is not moved.

        Raises:
            InputError: a position that is not three finite numbers or is the origin, or an
                unknown light; ``where`` names the scene.
        """
        world = read_mapping(scene, "world", where)
        lights = read_mapping(world, "lamps", where)
        if unknown := lights.keys() - {light.name for light in LIGHTS}:
            expected = ", ".join(light.name for light in LIGHTS)
            raise InputError(
                f"{where}: unknown lights {sorted(unknown)}. Expected some of: {expected}."
            )
        return cls(
            _read_position(world.get("camera", camera), f"{where}, camera"),
            tuple(
                _read_position(lights.get(light.name, light.position), f"{where}, {light.name}")
                for light in LIGHTS
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what is written under "world"."""
        names = (light.name for light in LIGHTS)
        return {"camera": self.camera, "lamps": dict(zip(names, self.lights, strict=True))}


def draw_viewpoints(
    random: Random, camera: Vector, camera_jitter: float, light_jitter: float
) -> Viewpoints:
    """Draw viewpoints: each is moved by up to its jitter (metres) along each axis."""
    return Viewpoints(
        _jittered(random, camera, camera_jitter),
        tuple(_jittered(random, light.position, light_jitter) for light in LIGHTS),
    )


def _jittered(random: Random, position: Sequence[float], jitter: float) -> Vector:
    x, y, z = (coordinate + random.uniform(-jitter, jitter) for coordinate in position)
    return x, y, z


def _read_position(value: Any, where: str) -> Vector:
    position = read_vector(value, where)
    if not any(position):
        raise InputError(f"{where}: it looks at the origin and cannot be there. Move it.")
    return position

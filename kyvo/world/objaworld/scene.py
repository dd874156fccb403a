"""An ObjaWorld scene as Python holds it; its JSON is read and written here and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kyvo.common.errors import InputError
from kyvo.world.json_values import (
    Vector,
    read_index,
    read_numbers,
    read_objects,
    read_pixel,
    read_text,
    read_word,
)
from kyvo.world.objaworld.environments import ENVIRONMENTS
from kyvo.world.objaworld.models import ASSETS, MODELS, find_asset
from kyvo.world.objaworld.parts import assemble
from kyvo.world.render.description import Primitive, SceneDescription
from kyvo.world.viewpoints import Viewpoints

CAMERA: Vector = (6.6, -5.75, 3.5)
"""Where the camera is before any jitter. It looks at the origin without roll."""


@dataclass(frozen=True)
class ObjaWorldObject:
    """One object.

    Attributes:
        shape: an asset, such as "bench-05", or a kind, as a model writes it: then the variant
            whose height fits ``position`` is meant.
        position: x, y and z of the centre (metres); z is half the height, more or less.
        rotation: yaw (radians); 0 looks along +x.
        pixel: column, row (pixels) and depth (metres) in the image; None: not known.
    """

    shape: str
    position: Vector
    rotation: float
    pixel: tuple[int, int, float] | None = None

    @classmethod
    def from_json(cls, item: Mapping[str, Any], where: str) -> "ObjaWorldObject":
        """Read an object; its yaw may be the fourth number of its position, as models write it.

        Raises:
            InputError: an unknown shape, or numbers that are missing or not finite; ``where`` names
                the object.
        """
        numbers = item.get("3d_coords")
        if "rotation" in item and isinstance(numbers, list | tuple) and len(numbers) == 3:
            numbers = [*numbers, item["rotation"]]
        place = f"{where}, '3d_coords' and 'rotation'"
        x, y, z, yaw = map(float, read_numbers(numbers, 4, place))
        shape = item.get("shape")
        if not isinstance(shape, str) or find_asset(shape, z) is None:
            raise InputError(
                f"{where}: 'shape' is {shape!r:.60}. Expected one of: {', '.join(MODELS)}, "
                f"or a variant such as {next(iter(ASSETS))}."
            )
        return cls(shape, (x, y, z), yaw, read_pixel(item, where))

    def to_json(self) -> dict[str, Any]:
        """Return what is written; what is not known is left out."""
        item = {"shape": self.shape, "3d_coords": self.position, "rotation": self.rotation}
        return item if self.pixel is None else item | {"pixel_coords": self.pixel}

    def primitives(self, index: int) -> list[Primitive]:
        """Return the shapes that are drawn: on the ground, whatever z says."""
        x, y, z = self.position
        asset = find_asset(self.shape, z)
        assert asset is not None, self.shape
        kind, number = ASSETS[asset]
        return MODELS[kind].primitives(number, x, y, self.rotation, index)


@dataclass(frozen=True)
class ObjaWorldScene:
    """Objects in an environment, seen from somewhere.

    Attributes:
        objects: in the order of the file.
        environment: "park" or "livingroom".
        viewpoints: of camera and lights.
        split, image_index, image_filename: which scene it is; empty and 0 where nothing says.
    """

    objects: tuple[ObjaWorldObject, ...]
    environment: str
    viewpoints: Viewpoints = field(default_factory=lambda: Viewpoints(CAMERA))
    split: str = ""
    image_index: int = 0
    image_filename: str = ""

    @classmethod
    def from_json(cls, scene: Mapping[str, Any], where: str) -> "ObjaWorldScene":
        """Read a scene; "objects" and "environment" are all that it must have.

        Raises:
            InputError: it is no scene of ObjaWorld's; ``where`` names it.
        """
        environment = read_word(scene, "environment", ENVIRONMENTS, where)
        return cls(
            tuple(
                ObjaWorldObject.from_json(item, place) for item, place in read_objects(scene, where)
            ),
            environment,
            Viewpoints.from_json(scene, where, CAMERA),
            read_text(scene, "split", where),
            read_index(scene, "image_index", where),
            read_text(scene, "image_filename", where),
        )

    def to_json(self) -> dict[str, Any]:
        """Return ObjaWorld's JSON, and under "world" what it has no key for: camera and lights."""
        return {
            "split": self.split,
            "image_index": self.image_index,
            "image_filename": self.image_filename,
            "environment": self.environment,
            "world": self.viewpoints.to_json(),
            "objects": [item.to_json() for item in self.objects],
        }

    @property
    def key(self) -> str:
        """The scene's key in ObjaWorld's files: NAME.png_ENVIRONMENT."""
        return f"{self.image_filename}_{self.environment}"

    def describe(self) -> SceneDescription:
        """Return what is to be drawn: scenery and objects."""
        place = ENVIRONMENTS[self.environment]
        primitives = assemble(place.scenery, place.paints)
        for index, item in enumerate(self.objects):
            primitives += item.primitives(index)
        return SceneDescription(self.viewpoints, primitives, place.environment)

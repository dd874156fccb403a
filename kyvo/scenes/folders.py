"""Where the true scenes of a data set are: one JSON file per scene."""

import re
from dataclasses import dataclass
from pathlib import Path

from kyvo.common.errors import InputError

ENVIRONMENT_FOLDER = "output-{environment}-large-10K-6"
"""The released folder of the true scenes and images of an environment."""


@dataclass(frozen=True)
class SceneFolder:
    """Ground truth as one JSON file per scene.

    Attributes:
        key: pattern of a scene's key; its named groups fill ``path``.
        key_form: what such a key looks like, for messages.
        path: where the scene's file is inside the folder.
    """

    key: str = r"(?P<name>[^/\\]+?)(\.png)?"
    key_form: str = "NAME.png"
    path: str = "{name}.json"

    def path_of(self, key: str, place: str = "predictions") -> Path:
        """Path of a scene's file inside the folder.

        Raises:
            InputError: the key has another form; ``place`` says where it is.
        """
        match = re.fullmatch(self.key, key)
        if match is None:
            raise InputError(
                f"{place}: scene key {key[:120]!r} is not of the form {self.key_form}. "
                "Check --dataset, or the 'key' entries of the predictions."
            )
        return Path(self.path.format(**match.groupdict()))

    def paths(self, root: Path) -> set[Path]:
        """Every scene file in the folder, whatever its key."""
        names = re.compile(self.key).groupindex
        return set(root.glob(self.path.format(**dict.fromkeys(names, "*"))))


ENVIRONMENTS = SceneFolder(
    key=r"(?P<name>[^/\\]+)\.png_(?P<environment>[^/\\]+)",
    key_form="NAME.png_ENVIRONMENT",
    path=ENVIRONMENT_FOLDER + "/scenes/{name}.json",
)
"""One folder per environment, each with its scenes."""

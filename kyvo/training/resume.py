"""Whether a folder holds a run to go on with, and whether it is the same run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from kyvo.common.errors import InputError
from kyvo.models import latest_checkpoint
from kyvo.models.checkpoints import Checkpoint


def find_interrupted(
    folder: Path, resume: Literal["auto", "never"], fingerprint: Mapping[str, str]
) -> Checkpoint | None:
    """The newest whole checkpoint in ``folder``, or None where a run starts; prints what it skips.

    Raises:
        InputError: there are checkpoints and ``resume`` is ``never``, or they are of another run.
    """
    found, skipped = latest_checkpoint(folder)
    for line in skipped:
        print(f"skipped a damaged checkpoint: {line}")
    if found is None:
        return None
    if resume == "never":
        raise InputError(
            f"output folder: {folder} holds checkpoints and resume is 'never'. "
            "Choose another folder or set resume=auto."
        )
    check_fingerprint(found.state()["run"], fingerprint, folder)
    return found


def check_fingerprint(saved: Mapping[str, str], current: Mapping[str, str], folder: Path) -> None:
    """Refuse to go on with a run that was set up differently, naming both values.

    Raises:
        InputError: listing every difference.
    """
    changed = [
        f"{key}: then {saved.get(key)!r}, now {value!r}"
        for key, value in current.items()
        if saved.get(key) != value
    ]
    if changed:
        raise InputError(
            f"resume: {folder} was made by a run with another setup:\n  - "
            + "\n  - ".join(changed)
            + "\nChange the config back, or choose another output folder."
        )

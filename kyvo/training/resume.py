"""Whether a folder holds a run to go on with, and whether it is the same run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from kyvo.common.errors import InputError
from kyvo.models import latest_checkpoint, report_skipped, with_whole_weights
from kyvo.models.checkpoints import Checkpoint


def find_interrupted(
    folder: Path, resume: Literal["auto", "never"], fingerprint: Mapping[str, str], salvage: str
) -> Checkpoint | None:
    """The newest whole checkpoint in ``folder``, or None where a run starts; prints what it skips.

    ``salvage`` says what can be done with a checkpoint of which only the weights are whole.

    Raises:
        InputError: there are checkpoints and ``resume`` is ``never``, none of them can be read, or
            they are of another run.
    """
    found, skipped = latest_checkpoint(folder)
    if resume == "never" and (found is not None or skipped):
        raise InputError(
            f"output folder: {folder} holds checkpoints and resume is 'never'. "
            "Choose another folder or set resume=auto."
        )
    if found is not None:
        report_skipped(skipped, found)
        check_fingerprint(found.state()["run"], fingerprint, folder)
    elif skipped:
        raise InputError(_all_damaged(folder, skipped, salvage))
    return found


def _all_damaged(folder: Path, skipped: Sequence[str], salvage: str) -> str:
    """Why the run stops, and what of it can be saved."""
    lines = [f"resume: no checkpoint in {folder} can be read:", *(f"  - {s}" for s in skipped)]
    whole = with_whole_weights(folder)
    if whole:
        lines.append(f"The weights in {whole[0]} are whole: {salvage}")
    lines.append(
        "Nothing was changed. Check the disk and the permissions, put back a copy, or choose "
        "another output folder to start anew."
    )
    return "\n".join(lines)


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

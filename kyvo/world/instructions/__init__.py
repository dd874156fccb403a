"""Instruction following: pairs of scenes, and the words that lead from one to the other."""

from kyvo.world.instructions.edits import (
    KINDS,
    Edit,
    edit_scene,
    kind_of,
    sample_edit,
    sample_edits,
)

__all__ = ["KINDS", "Edit", "edit_scene", "kind_of", "sample_edit", "sample_edits"]

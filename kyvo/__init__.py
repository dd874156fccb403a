"""Kyvo: one decoder-only model that reads and writes text, images and structured 3D scenes.

``kyvo.load(PATH)`` opens a trained model (``kyvo.api``). It is imported when it is first asked for,
since data and metrics need no torch.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kyvo.api import Edited, Kyvo, load

__all__ = ["Edited", "Kyvo", "load"]
__version__ = "0.1.0"

# At import torchao warns that its optional C++ kernels are for another torch; none is used here.
logging.getLogger("torchao").setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("kyvo.api"), name)
    raise AttributeError(f"module 'kyvo' has no attribute {name!r}")

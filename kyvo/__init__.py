"""Kyvo: one decoder-only model that reads and writes text, images and structured 3D scenes."""

import logging

__version__ = "0.1.0"

# At import torchao warns that its optional C++ kernels are for another torch; none is used here.
logging.getLogger("torchao").setLevel(logging.ERROR)

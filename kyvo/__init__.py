"""Kyvo: one decoder-only model that reads and writes text, images and structured 3D scenes."""

__version__ = "0.1.0"

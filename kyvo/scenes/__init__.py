"""The 3D modality: schemas, scenes as ids, and back."""

from kyvo.scenes.codec import ParseReport, SceneCodec, SceneObject
from kyvo.scenes.schema import SCHEMAS, Axis, NumberField, Schema, WordField, get_schema

__all__ = [
    "SCHEMAS",
    "Axis",
    "NumberField",
    "ParseReport",
    "SceneCodec",
    "SceneObject",
    "Schema",
    "WordField",
    "get_schema",
]

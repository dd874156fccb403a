"""The 3D modality: schemas, scenes as ids, and back."""

from kyvo.scenes.codec import ParseReport, SceneCodec, SceneObject
from kyvo.scenes.schema import SCHEMAS, Axis, NumberField, Schema, WordField, get_schema
from kyvo.scenes.types import Scene

__all__ = [
    "SCHEMAS",
    "Axis",
    "NumberField",
    "ParseReport",
    "Scene",
    "SceneCodec",
    "SceneObject",
    "Schema",
    "WordField",
    "get_schema",
]

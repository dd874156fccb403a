"""The 3D modality: schemas, scenes as ids, and back."""

from kyvo.scenes.codec import ParseReport, SceneCodec
from kyvo.scenes.drawing import Drawing
from kyvo.scenes.folders import SceneFolder
from kyvo.scenes.matching_rule import PAPER_TAUS, MatchingRule, Tolerance
from kyvo.scenes.presets import DEFAULT_SCHEMA, SCHEMAS
from kyvo.scenes.schema import Axis, NumberField, Schema, WordField
from kyvo.scenes.schema_files import get_schema
from kyvo.scenes.types import Scene, SceneObject

__all__ = [
    "DEFAULT_SCHEMA",
    "PAPER_TAUS",
    "SCHEMAS",
    "Axis",
    "Drawing",
    "MatchingRule",
    "NumberField",
    "ParseReport",
    "Scene",
    "SceneCodec",
    "SceneFolder",
    "SceneObject",
    "Schema",
    "Tolerance",
    "WordField",
    "get_schema",
]

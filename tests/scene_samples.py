"""Scenes for tests: a codec per schema on the small tokenizer, and scenes that it can write."""

import dataclasses
from typing import Any

from hypothesis import strategies as st

from kyvo.scenes import SCHEMAS, Axis, Scene, SceneCodec, SceneObject, Schema, WordField
from kyvo.tokens.text_tokenizer import load_text_tokenizer
from kyvo.tokens.vocabulary import get_vocabulary

MINI = get_vocabulary("mini")
# The released numbers and markers above the small tokenizer's text block.
MINI_OBJECTRON = dataclasses.replace(
    MINI,
    name="mini_objectron",
    numbers=get_vocabulary("objectron").numbers,
    markers=get_vocabulary("objectron").markers,
)
CODECS = {
    name: SceneCodec(
        schema,
        MINI_OBJECTRON if name == "objectron" else MINI,
        load_text_tokenizer(None, MINI),
    )
    for name, schema in SCHEMAS.items()
}


def encode(codec: SceneCodec, objects: list[Any], where: str = "scene") -> list[int]:
    """Ids of JSON objects."""
    return codec.encode(codec.schema.parse_scene(objects, where), where)


def decode(codec: SceneCodec, ids: list[int]) -> list[Any]:
    """The JSON objects of ids."""
    return list(codec.schema.scene_to_json(codec.read(ids)[0]))


def numbers_on_grid(axes: tuple[Axis, ...]) -> st.SearchStrategy[tuple[float, ...]]:
    return st.tuples(*(st.sampled_from(axis.grid) for axis in axes))


def scenes(schema: Schema, max_objects: int = 6) -> st.SearchStrategy[Scene]:
    """Scenes whose numbers are on the schema's grid."""
    words = {f.key: st.sampled_from(f.words) for f in schema.word_fields}
    numbers = {f.key: numbers_on_grid(f.axes) for f in schema.number_fields}
    objects: st.SearchStrategy[SceneObject] = st.builds(
        schema.make, st.fixed_dictionaries(words), st.fixed_dictionaries(numbers)
    )
    return st.lists(objects, max_size=max_objects).map(tuple).map(Scene)


def first_object(name: str) -> dict[str, Any]:
    """An object of the schema ``name``: the first word of each field, the middle of each grid."""
    return {
        field.key: (
            field.words[0]
            if isinstance(field, WordField)
            else [axis.grid[len(axis.grid) // 2] for axis in field.axes]
        )
        for field in SCHEMAS[name].fields
    }

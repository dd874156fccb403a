"""Scenes for tests: a codec per schema on the small tokenizer, and scenes that it can write."""

import dataclasses
from typing import Any

from hypothesis import strategies as st

from kyvo.scenes import SCHEMAS, Axis, SceneCodec, Schema, WordField
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


def numbers_on_grid(axes: tuple[Axis, ...]) -> st.SearchStrategy[list[float]]:
    return st.tuples(*(st.sampled_from(axis.grid) for axis in axes)).map(list)


def scenes(schema: Schema, max_objects: int = 6) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Scenes whose numbers lie on the schema's grid."""
    fields: dict[str, st.SearchStrategy[Any]] = {
        field.key: (
            st.sampled_from(field.words)
            if isinstance(field, WordField)
            else numbers_on_grid(field.axes)
        )
        for field in schema.fields
    }
    return st.lists(st.fixed_dictionaries(fields), max_size=max_objects)


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

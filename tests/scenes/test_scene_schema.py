"""Schemas against the vocabularies that write them."""

import re

import pytest
from scene_samples import CODECS

from kyvo.common.errors import InputError
from kyvo.scenes import SCHEMAS, NumberField, Schema, WordField, get_schema
from kyvo.tokens.vocabulary import get_vocabulary


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_released_vocabulary_has_every_marker_and_number(schema: Schema) -> None:
    vocabulary = get_vocabulary(schema.name)
    for field in schema.fields:
        assert vocabulary.marker_id(field.marker) in vocabulary.marker
        if isinstance(field, NumberField):
            strings = {schema.number_string(v) for axis in field.axes for v in axis.grid}
            assert all(vocabulary.number_id(s) in vocabulary.number for s in strings)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_grids_ascend_and_survive_writing(schema: Schema) -> None:
    axes = [a for f in schema.fields if isinstance(f, NumberField) for a in f.axes]
    for axis in axes:
        assert list(axis.grid) == sorted(set(axis.grid))
        assert [float(schema.number_string(value)) for value in axis.grid] == list(axis.grid)


def test_objectron_numbers_are_exactly_its_axes() -> None:
    axes = [a for f in SCHEMAS["objectron"].fields if isinstance(f, NumberField) for a in f.axes]
    strings = {f"{value:.2f}" for axis in axes for value in axis.grid} - {"-0.00"}
    assert strings == set(get_vocabulary("objectron").numbers)


@pytest.mark.parametrize("name", sorted(CODECS))
def test_no_word_begins_another(name: str) -> None:
    """The grammar needs it: after the shorter one it could not tell which was meant."""
    codec = CODECS[name]
    for field in codec.schema.fields:
        if isinstance(field, WordField):
            spelt = [tuple(codec.word_ids[word]) for word in field.words]
            assert not any(a != b and b[: len(a)] == a for a in spelt for b in spelt)
            assert len(set(spelt)) == len(field.words)


def test_unknown_schema() -> None:
    with pytest.raises(InputError, match=re.escape("known: clevr, objaworld, objectron")):
        get_schema("cleaver")

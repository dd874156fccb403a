"""Scenes to ids and back: round trips, the published example, strict writing, total reading."""

import math
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scene_samples import CODECS, decode, encode, first_object, scenes

from kyvo.common.errors import InputError
from kyvo.scenes import ParseReport, Scene, SceneCodec, WordField

CLEVR = CODECS["clevr"]
NAMES = sorted(CODECS)
EXAMPLE = {
    "size": "large",
    "color": "cyan",
    "material": "metal",
    "shape": "cube",
    "3d_coords": [-0.55, 0.05, 0.7],
}
EXAMPLE_STRING = (
    "[SCENE-START][OBJECT-START][SIZE] large[COLOR] cyan[MATERIAL] metal[SHAPE] cube"
    "[LOCATION]-0.550 0.050 0.700[OBJECT-END][SCENE-END]"
)


def named(codec: SceneCodec, ids: list[int]) -> str:
    """``ids`` as a string: markers by name, numbers as <-0.550>, text as the tokenizer reads it."""
    parts = []
    for token in ids:
        name = codec.vocabulary.token_string(token)
        if name is not None:
            parts.append(name if name.startswith("[") else f"<{name}>")
        elif token in codec.vocabulary.text:
            parts.append(codec.tokenizer.decode([token]))
        else:
            parts.append("?")
    return "".join(parts)


def scene_pattern(codec: SceneCodec) -> re.Pattern[str]:
    """Whole scenes as ``named`` writes them, as one regular expression."""
    fields = ""
    for field in codec.schema.fields:
        if isinstance(field, WordField):
            fields += rf"{re.escape(field.marker)}\s*(?:{'|'.join(field.words)})\s*"
        else:
            fields += re.escape(field.marker) + r"(?:<-?\d+\.\d+>)" * len(field.axes)
    return re.compile(rf"\[SCENE-START\](?:\[OBJECT-START\]{fields}\[OBJECT-END\])*\[SCENE-END\]")


def ids_of_string(codec: SceneCodec, string: str) -> list[int]:
    """A second tokeniser: markers, numbers and words found by pattern."""
    ids = []
    for marker, number, text in re.findall(r"(\[[^\]]+\])|(-?\d+\.\d+)|( [a-z ]+)", string):
        if marker:
            ids.append(codec.vocabulary.marker_id(marker))
        elif number:
            ids.append(codec.vocabulary.number_id(number))
        elif text:
            ids += codec.tokenizer.encode(text)
    return ids


def test_published_example() -> None:
    assert CLEVR.string(CLEVR.schema.parse_scene([EXAMPLE], "scene")) == EXAMPLE_STRING
    assert CLEVR.string(Scene()) == "[SCENE-START][SCENE-END]"


def test_clevr_object_is_fourteen_tokens() -> None:
    assert [len(encode(CLEVR, [EXAMPLE] * n)) for n in (0, 1, 3, 10)] == [2, 16, 44, 142]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_round_trip_on_the_grid(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    scene = data.draw(scenes(codec.schema))
    found, report = codec.read(codec.encode(scene))
    assert found == scene
    count = len(scene.objects)
    assert report == ParseReport(1, count, count, Counter())


@pytest.mark.parametrize("name", ["clevr", "objectron"])
@given(data=st.data())
def test_values_off_the_grid_take_the_place_of_numbers(name: str, data: st.DataObject) -> None:
    """And snap back to the ids beside which they are."""
    codec = CODECS[name]
    ids = codec.encode(data.draw(scenes(codec.schema, max_objects=2)))
    strings = [
        codec.vocabulary.token_string(i) if i in codec.vocabulary.number else None for i in ids
    ]
    offsets = data.draw(st.lists(st.floats(-0.0049, 0.0049), min_size=len(ids), max_size=len(ids)))
    values = [float(s or "nan") + offset for s, offset in zip(strings, offsets, strict=True)]
    scene, report = codec.read(ids, values)
    assert not report.reasons
    fields = codec.schema.number_fields
    found = [x for item in scene.objects for fld in fields for x in item.numbers[fld.key]]
    decimals = codec.schema.decimals + 2
    assert found == [round(x, decimals) for x in values if not math.isnan(x)]
    assert "-0.0" not in map(str, found)
    assert codec.encode(scene) == ids


def test_without_a_value_a_number_is_that_of_its_id() -> None:
    ids = encode(CLEVR, [EXAMPLE])
    x, _, z = EXAMPLE["3d_coords"]
    values = [math.nan] * len(ids)
    values[ids.index(CLEVR.vocabulary.number_id("0.050"))] = 0.0612345678
    assert CLEVR.read(ids, values)[0].objects[0].position == (x, 0.06123, z)
    # Values beside ids that are no number of a field are not read.
    scene, report = CLEVR.read(ids, [1.25 if value != value else value for value in values])
    assert scene.objects[0].position == (1.25, 0.06123, 1.25)
    assert not report.reasons


def test_an_angle_is_that_of_its_id() -> None:
    """The mean of 3.0 and -3.0 is no angle between the two."""
    codec = CODECS["objaworld"]
    item = {**first_object("objaworld"), "3d_coords": [1.0, 2.0, 0.5, 3.0]}
    ids = encode(codec, [item])
    scene, _ = codec.read(ids, [0.25] * len(ids))
    assert scene.objects[0].position == (0.25, 0.25, 0.25, 3.0)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_ids_equal_the_tokenised_string(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    scene = data.draw(scenes(codec.schema))
    assert codec.encode(scene) == ids_of_string(codec, codec.string(scene))


def test_words_of_two_parts_are_read() -> None:
    codec = CODECS["objectron"]
    item = {"category": "cereal box", "center_cam": [0.01, -0.2, 7.5], "dimensions": [0.1, 0.2, 1]}
    assert decode(codec, encode(codec, [item])) == [item]
    string = codec.string(codec.schema.parse_scene([item], "scene"))
    assert "[CATEGORY] cereal box[CENTER_CAM]0.01 -0.20 7.50[DIMENSIONS]0.10" in string


@given(st.lists(st.floats(-3.025, 3.025), min_size=3, max_size=3))
def test_numbers_snap_to_the_nearest_twentieth(values: list[float]) -> None:
    scene, _ = CLEVR.read(encode(CLEVR, [{**EXAMPLE, "3d_coords": values}]))
    for value, snapped in zip(values, scene.objects[0].position, strict=True):
        assert abs(snapped * 20 - round(snapped * 20)) < 1e-9
        assert abs(snapped - value) <= 0.025 + 1e-9


@given(st.floats(0, 19))
def test_uneven_grid_snaps_to_the_nearest(depth: float) -> None:
    codec = CODECS["objectron"]
    item = {**first_object("objectron"), "center_cam": [0, 0, depth]}
    if depth > 17.525:
        with pytest.raises(InputError, match=r"expected 0\.0 to 17\.5 metres"):
            encode(codec, [item])
        return
    (found,) = decode(codec, encode(codec, [item]))
    points = [h / 20 for h in range(61)] + [5, 7.5, 10, 12.5, 15, 17.5]
    assert abs(found["center_cam"][2] - depth) <= min(abs(p - depth) for p in points) + 1e-9


class TestObjaWorldFiles:
    """The ground truth names a variant and keeps the yaw apart."""

    codec = CODECS["objaworld"]

    def read_back(self, item: dict[str, Any]) -> dict[str, Any]:
        (found,) = decode(self.codec, encode(self.codec, [item]))
        return found

    @pytest.mark.parametrize("coords", [[0.1, -0.2, 0.3], (0.1, -0.2, 0.3)])
    def test_variant_and_rotation(self, coords: Any) -> None:
        item = {"shape": "bench-05", "3d_coords": coords, "rotation": 0.52, "pixel_coords": [1]}
        expected = {"shape": "bench", "3d_coords": [0.1, -0.2, 0.3, 0.5]}
        assert self.read_back(item) == expected
        assert item["shape"] == "bench-05"

    def test_yaw_in_the_coordinates_wins(self) -> None:
        item = {"shape": "sofa", "3d_coords": [0, 0, 0, 1.0], "rotation": 2.0}
        assert self.read_back(item)["3d_coords"] == [0, 0, 0, 1.0]

    @given(st.floats(-20, 20))
    def test_any_yaw_is_written_within_a_turn(self, yaw: float) -> None:
        item = {"shape": "sofa", "3d_coords": [0, 0, 0], "rotation": yaw}
        written = self.read_back(item)["3d_coords"][3]
        error = math.remainder(written - yaw, 2 * math.pi)
        # The grid ends at 3.000, 0.142 before pi.
        assert abs(error) <= (0.025 if abs(math.remainder(yaw, 2 * math.pi)) < 3.025 else 0.142)

    def test_rotation_without_coordinates(self) -> None:
        with pytest.raises(InputError, match=r"object 0: '3d_coords' is missing"):
            encode(self.codec, [{"shape": "sofa", "rotation": 1.0}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color": "pink"}, r"'color': 'pink', expected one of gray, red"),
        ({"color": None}, r"'color': None"),
        ({"color": ["red"]}, r"'color': \['red'\]"),
        ({"3d_coords": [0, 0]}, r"'3d_coords': \[0, 0\], expected 3 numbers"),
        ({"3d_coords": [0, 0, 0, 0]}, r".*expected 3 numbers"),
        ({"3d_coords": [0, 0, "0"]}, r".*expected 3 numbers"),
        ({"3d_coords": [0, 0, True]}, r".*expected 3 numbers"),
        ({"3d_coords": 1.0}, r".*expected 3 numbers"),
        ({"3d_coords": [0, math.nan, 0]}, r"'3d_coords': y = nan, expected -3\.0 to 3\.0"),
        ({"3d_coords": [math.inf, 0, 0]}, r"'3d_coords': x = inf, expected"),
        ({"3d_coords": [0, 0, 3.03]}, r"'3d_coords': z = 3\.03, expected"),
        ({"3d_coords": [0, 0, 10**400]}, r"'3d_coords': z = 1000"),
    ],
)
def test_writing_names_place_object_and_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"scene\.json: object 1: {message}"):
        encode(CLEVR, [EXAMPLE, {**EXAMPLE, **change}], "scene.json")


def test_writing_checks_typed_objects_too() -> None:
    scene = CLEVR.schema.parse_scene([EXAMPLE], "scene")
    (item,) = scene.objects
    for wrong, message in (
        (item.updated(words={"color": "pink"}), "'color': 'pink', expected one of gray"),
        (item.moved(0, 0, 9), r"'3d_coords': z = 9, expected -3\.0 to 3\.0"),
        (CLEVR.schema.make(item.words, {}), "'3d_coords' is missing"),
        (CLEVR.schema.make({}, item.numbers), "'size' is missing"),
    ):
        with pytest.raises(InputError, match=f"here: object 1: {message}"):
            CLEVR.encode(Scene((item, wrong)), "here")


@pytest.mark.parametrize("key", list(EXAMPLE))
def test_missing_field(key: str) -> None:
    item = {k: v for k, v in EXAMPLE.items() if k != key}
    with pytest.raises(InputError, match=rf"scene: object 0: '{key}' is missing"):
        encode(CLEVR, [item])


def test_object_of_another_type() -> None:
    with pytest.raises(InputError, match="object 0: expected an object with fields, found 7"):
        encode(CLEVR, [7])
    with pytest.raises(InputError, match="scene: expected a list of objects, found 7"):
        CLEVR.schema.parse_scene(7, "scene")


class TestReading:
    """Whatever the ids, reading gives objects and counts every fault."""

    def ids(self, string: str) -> list[int]:
        return ids_of_string(CLEVR, string)

    def reasons(self, string: str) -> dict[str, int]:
        return dict(CLEVR.read(self.ids(string))[1].reasons)

    def test_unreadable_field_leaves_the_rest(self) -> None:
        scene, report = CLEVR.read(self.ids(EXAMPLE_STRING.replace(" cyan", " the")))
        assert CLEVR.schema.scene_to_json(scene) == [
            {k: v for k, v in EXAMPLE.items() if k != "color"}
        ]
        assert (report.num_objects, report.num_complete) == (1, 0)
        assert report.reasons == {"[COLOR] has an unknown word": 1}

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ("[SHAPE] cube", "", "[SHAPE] missing"),
            ("[SHAPE] cube", "[SHAPE] cube[SHAPE] cube", "[SHAPE] repeated"),
            ("[SIZE]", " the[SIZE]", "token before the first field"),
            ("0.700", "", "[LOCATION] has not 3 numbers"),
            ("0.700", "0.700 0.700", "[LOCATION] has not 3 numbers"),
            (" 0.700", " cube", "[LOCATION] has a token that is no number"),
            (" metal", "0.700", "[MATERIAL] has a token that is no text"),
            (" metal", "", "[MATERIAL] has an unknown word"),
            ("[OBJECT-END]", "", "object without [OBJECT-END]"),
            ("[SCENE-START]", "", "no [SCENE-START]"),
            ("[SCENE-END]", "", "no [SCENE-END]"),
            ("[OBJECT-END]", "[OBJECT-END][OBJECT-END]", "[OBJECT-END] without [OBJECT-START]"),
            ("[OBJECT-START]", " the[OBJECT-START]", "token outside objects"),
            ("[SCENE-END]", "[SCENE-END] the", "token after [SCENE-END]"),
            ("[SCENE-END]", "[SCENE-START][SCENE-END]", "[SCENE-START] not at the beginning"),
        ],
    )
    def test_each_fault_has_its_reason(self, old: str, new: str, reason: str) -> None:
        assert self.reasons(EXAMPLE_STRING.replace(old, new)) == {reason: 1}

    def test_text_ids_that_the_tokenizer_lacks_are_no_word(self) -> None:
        ids = self.ids(EXAMPLE_STRING)
        ids.insert(4, CLEVR.vocabulary.num_text - 1)
        assert CLEVR.read(ids)[1].reasons == {"[SIZE] has an unknown word": 1}

    def test_object_after_the_end_is_counted(self) -> None:
        scene, report = CLEVR.read(self.ids(EXAMPLE_STRING) * 2)
        assert CLEVR.schema.scene_to_json(scene) == [EXAMPLE]
        assert report.reasons == {"token after [SCENE-END]": 16}

    def test_empty(self) -> None:
        assert CLEVR.read([]) == (
            Scene(),
            ParseReport(1, 0, 0, Counter({"no [SCENE-START]": 1, "no [SCENE-END]": 1})),
        )

    @given(
        st.lists(
            st.one_of(
                st.integers(),
                st.integers(0, CLEVR.vocabulary.size),
                st.sampled_from(range(CLEVR.vocabulary.marker.start, CLEVR.vocabulary.marker.stop)),
            ),
            max_size=40,
        )
    )
    def test_any_ids(self, ids: list[int]) -> None:
        found, report = CLEVR.read(ids)
        objects = CLEVR.schema.scene_to_json(found)
        end = CLEVR.vocabulary.marker_id("[SCENE-END]")
        start = CLEVR.vocabulary.marker_id("[OBJECT-START]")
        scene = ids[: ids.index(end)] if end in ids else ids
        assert report.num_objects == len(objects) == scene.count(start)
        assert report.num_complete <= sum(set(item) == set(EXAMPLE) for item in objects)
        assert report.num_objects - report.num_complete <= report.reasons.total()
        fits = scene_pattern(CLEVR).fullmatch(named(CLEVR, ids)) is not None
        assert fits == (not report.reasons)

    @pytest.mark.parametrize("name", NAMES)
    @given(data=st.data())
    def test_one_changed_token_is_a_fault_or_another_scene(
        self, name: str, data: st.DataObject
    ) -> None:
        codec = CODECS[name]
        ids = codec.encode(data.draw(scenes(codec.schema, max_objects=2)))
        place = data.draw(st.integers(0, len(ids) - 1))
        token = st.one_of(st.sampled_from(ids), st.integers(0, codec.vocabulary.size - 1))
        new = data.draw(st.lists(token, max_size=2))
        ids[place : place + 1] = new
        fits = scene_pattern(codec).fullmatch(named(codec, ids)) is not None
        assert fits == (not codec.read(ids)[1].reasons)


def test_reports_add_up() -> None:
    total = ParseReport()
    for string in (EXAMPLE_STRING, EXAMPLE_STRING.replace(" cube", ""), "[SCENE-START]"):
        total.add(CLEVR.read(ids_of_string(CLEVR, string))[1])
    assert total.as_dict() == {
        "scenes": 3,
        "objects": 2,
        "complete_objects": 1,
        "reasons": {"[SHAPE] has an unknown word": 1, "no [SCENE-END]": 1},
    }

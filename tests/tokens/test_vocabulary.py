"""The id space against the numbers that the released data sets and models fix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyvo.common.errors import InputError
from kyvo.tokens.vocabulary import (
    VOCABULARIES,
    Vocabulary,
    format_number,
    get_vocabulary,
    number_strings,
)

CLEVR_MARKERS = [
    "[SCENE-START]",
    "[SCENE-END]",
    "[OBJECT-START]",
    "[OBJECT-END]",
    "[SIZE]",
    "[COLOR]",
    "[MATERIAL]",
    "[SHAPE]",
    "[LOCATION]",
    "[IMAGE-START]",
    "[IMAGE-END]",
    "[TEXT-START]",
    "[TEXT-END]",
    "[OUTPUT-START]",
]
OBJECTRON_MARKERS = [
    "[SCENE-START]",
    "[SCENE-END]",
    "[OBJECT-START]",
    "[OBJECT-END]",
    "[CATEGORY]",
    "[CENTER_CAM]",
    "[DIMENSIONS]",
    "[IMAGE-START]",
    "[IMAGE-END]",
    "[TEXT-START]",
    "[TEXT-END]",
    "[OUTPUT-START]",
]


@pytest.mark.parametrize(
    ("name", "numbers", "markers", "image", "size"),
    [
        ("clevr", (128256, 1201), (129457, 14), (129471, 1024), 130495),
        ("objaworld", (128256, 1201), (129457, 14), (129471, 1024), 130495),
        ("objectron", (128256, 103), (128359, 12), (128372, 1024), 129396),
        ("clevr_005", (128256, 121), (128377, 14), (128391, 1024), 129415),
        ("paper", (128256, 121), (128377, 14), (128391, 1024), 137607),
    ],
)
def test_blocks_of_llama_presets(
    name: str, numbers: tuple[int, int], markers: tuple[int, int], image: tuple[int, int], size: int
) -> None:
    vocabulary = get_vocabulary(name)
    assert (vocabulary.bos, vocabulary.eos, vocabulary.text.stop) == (128000, 128001, 128256)
    assert (vocabulary.number.start, vocabulary.number.size) == numbers
    assert (vocabulary.marker.start, vocabulary.marker.size) == markers
    assert (vocabulary.image.start, vocabulary.image.size) == image
    assert vocabulary.size == size


def test_shape_codes_are_the_papers_alone() -> None:
    shapes = {name: preset.num_shape_codes for name, preset in VOCABULARIES.items()}
    assert shapes.pop("paper") == 8192
    assert set(shapes.values()) == {0}


@pytest.mark.parametrize("name", ["clevr", "objaworld"])
def test_clevr_marker_and_number_ids(name: str) -> None:
    vocabulary = get_vocabulary(name)
    assert [vocabulary.marker_id(m) for m in CLEVR_MARKERS] == list(range(129457, 129471))
    ids = {s: vocabulary.number_id(s) for s in ("-3.000", "-0.005", "0.000", "0.005", "3.000")}
    assert list(ids.values()) == [128256, 128855, 128856, 128857, 129456]


def test_objectron_marker_ids() -> None:
    vocabulary = get_vocabulary("objectron")
    assert [vocabulary.marker_id(m) for m in OBJECTRON_MARKERS] == list(range(128359, 128371))


def test_fine_and_paper_grid_in_whole_thousandths() -> None:
    """The released grid steps by 5 thousandths, the paper's by 50."""
    for name, step in (("clevr", 5), ("paper", 50), ("mini", 50)):
        strings = get_vocabulary(name).numbers
        expected = [f"{'-' * (t < 0)}{abs(t) // 1000}.{abs(t) % 1000:03d}" for t in _grid(step)]
        assert list(strings) == expected


def _grid(step: int) -> range:
    return range(-3000, 3001, step)


def test_objectron_numbers_in_whole_hundredths() -> None:
    hundredths = {*range(-20, 21), *range(-20, 11), *range(0, 301, 5)}
    hundredths |= {500, 750, 1000, 1250, 1500, 1750}
    hundredths |= {*range(0, 101, 5), *range(0, 121, 5)}
    expected = [f"{'-' * (h < 0)}{abs(h) // 100}.{abs(h) % 100:02d}" for h in sorted(hundredths)]
    assert len(expected) == 103
    assert list(get_vocabulary("objectron").numbers) == expected


def test_objectron_quirk() -> None:
    """104 number rows for 103 strings: [SCENE-START] is embedded as a number, one id is unused."""
    vocabulary = get_vocabulary("objectron")
    assert vocabulary.number_rows.size == 104
    assert vocabulary.marker_id("[SCENE-START]") == vocabulary.number_rows.stop - 1
    assert vocabulary.added_rows.size == 12
    blocks = (vocabulary.text, vocabulary.number, vocabulary.marker, vocabulary.image)
    assert not any(128371 in block for block in blocks)
    assert 128371 in vocabulary.added_rows


@pytest.mark.parametrize("name", sorted(set(VOCABULARIES) - {"objectron"}))
def test_rows_follow_blocks_elsewhere(name: str) -> None:
    vocabulary = get_vocabulary(name)
    numbers, added = vocabulary.number_rows, vocabulary.added_rows
    assert (numbers.start, numbers.stop) == (vocabulary.number.start, vocabulary.number.stop)
    assert (added.start, added.stop) == (vocabulary.marker.start, vocabulary.marker.stop)


@pytest.mark.parametrize("preset", VOCABULARIES.values(), ids=VOCABULARIES)
def test_number_strings_ascend_and_zero_has_no_minus(preset: Vocabulary) -> None:
    values = [float(string) for string in preset.numbers]
    assert values == sorted(set(values))
    assert not {"-0.000", "-0.00"} & set(preset.numbers)


@given(st.floats(-3, 3), st.integers(0, 4))
def test_format_number_is_near_and_never_minus_zero(value: float, decimals: int) -> None:
    string = format_number(value, decimals)
    assert abs(float(string) - value) <= 0.5 * 10**-decimals + 1e-9
    assert not (string.startswith("-") and float(string) == 0)


@given(
    st.integers(-500, 500), st.integers(1, 60), st.sampled_from((1, 5, 10, 20)), st.integers(2, 3)
)
def test_number_strings_in_integers(low: int, count: int, step: int, decimals: int) -> None:
    scale = 10**decimals
    high = low + (count - 1) * step
    strings = number_strings(low / scale, high / scale, step / scale, decimals)
    assert [round(float(s) * scale) for s in strings] == list(range(low, high + 1, step))


@given(*([st.integers(1, 40)] * 3), st.integers(0, 40), st.integers(0, 1))
def test_blocks_partition_the_ids(
    num_text: int, num_numbers: int, num_codes: int, num_shapes: int, spare: int
) -> None:
    vocabulary = Vocabulary(
        "any",
        num_text=num_text,
        bos=0,
        eos=0,
        numbers=number_strings(0, num_numbers - 1, 1, 0),
        markers=tuple(CLEVR_MARKERS),
        num_image_codes=num_codes,
        num_shape_codes=num_shapes,
        spare_number_rows=spare,
    )
    blocks = [getattr(vocabulary, b) for b in ("text", "number", "marker", "image", "shape")]
    homes = [sum(i in block for block in blocks) for i in range(-1, vocabulary.size + 1)]
    unused = {-1, vocabulary.size} | {vocabulary.marker.stop + i for i in range(spare)}
    assert homes == [int(i not in unused) for i in range(-1, vocabulary.size + 1)]
    named = [vocabulary.token_string(i) for i in range(vocabulary.size)]
    assert [s for s in named if s is not None] == [*vocabulary.numbers, *vocabulary.markers]
    assert [vocabulary.number_id(s) for s in vocabulary.numbers] == list(
        range(vocabulary.number.start, vocabulary.number.stop)
    )


def test_unknown_names_are_told() -> None:
    clevr = get_vocabulary("clevr")
    with pytest.raises(InputError, match="no vocabulary 'clever'; known: clevr, objaworld"):
        get_vocabulary("clever")
    with pytest.raises(InputError, match=r"marker '\[CATEGORY\]' .* vocabulary 'clevr'"):
        clevr.marker_id("[CATEGORY]")
    with pytest.raises(InputError, match=r"number '0\.001' .* vocabulary 'clevr'"):
        clevr.number_id("0.001")

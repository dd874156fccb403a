"""Reading generated ids back: exact on whole outputs, total on any others, nothing uncounted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kyvo_stand_ins import CODES_PER_IMAGE, generate, mini_codec, tiny_model
from scene_samples import encode

from kyvo.decoding import OutputReader, Sampling
from kyvo.decoding.grammar import output_automaton
from kyvo.decoding.numbers import Generated
from kyvo.tokens.sequences import SequenceBuilder, get_task
from kyvo.tokens.vocabulary import get_vocabulary

CODEC = mini_codec()
VOCABULARY = get_vocabulary("mini")
TASKS = ("I-3", "3-I", "I+3+T-I+3", "3+I+T-3+I", "I+3+Q-A")
# 16 codes, centre 6: outwards to both sides, then what is left on the right.
ORDER_OF_16 = [6, 5, 7, 4, 8, 3, 9, 2, 10, 1, 11, 0, 12, 13, 14, 15]
SCENE = [
    {
        "size": "large",
        "color": "red",
        "material": "metal",
        "shape": "cube",
        "3d_coords": [-0.55, 0.05, 0.7],
    },
    {
        "size": "small",
        "color": "cyan",
        "material": "rubber",
        "shape": "sphere",
        "3d_coords": [3.0, -3.0, 0.0],
    },
]
CODES = np.arange(CODES_PER_IMAGE) * 31
TEXT = [*CODEC.tokenizer.encode(" yes")]
ANSWER = [VOCABULARY.marker_id("[TEXT-START]"), *TEXT, VOCABULARY.marker_id("[TEXT-END]")]


def reader(task, centre_first="generated"):
    return OutputReader(get_task(task), CODEC, CODES_PER_IMAGE, centre_first)


def whole_output(task, centre_first="generated"):
    """The ids after OUTPUT-START of a sample with SCENE, CODES and ANSWER."""
    contents = {"three_d": np.array(encode(CODEC, SCENE)), "image": CODES, "text": np.array(ANSWER)}
    builder = SequenceBuilder(VOCABULARY, get_task(task), centre_first)
    sample = builder.build({s: contents[s.modality] for s in get_task(task).segments})
    return sample.tokens[sample.prompt_length :]


def is_legal(task, ids):
    """Whether the grammar's automaton takes ``ids`` to its end."""
    automaton = AUTOMATA[task]
    state = 0
    for token in ids:
        if not 0 <= token < VOCABULARY.size or state < 0:
            return False
        state = automaton.next_state[state, automaton.class_of_id[token]]
    return bool(state >= 0) and list(ids).count(VOCABULARY.eos) == 1


AUTOMATA = {task: output_automaton(get_task(task), CODEC, CODES_PER_IMAGE) for task in TASKS}


@pytest.mark.parametrize("centre_first", ["generated", "all", "none"])
@pytest.mark.parametrize("task", TASKS)
def test_a_whole_output_is_read_back(task, centre_first):
    output = reader(task, centre_first).read(Generated(whole_output(task, centre_first)))
    modalities = {segment.modality for segment in get_task(task).outputs}
    assert (output.scene is not None) == ("three_d" in modalities)
    if output.scene is not None:
        assert CODEC.schema.scene_to_json(output.scene) == SCENE
    assert (output.codes is not None) == ("image" in modalities)
    if "image" in modalities:
        assert output.codes.tolist() == CODES.tolist()
    answer = "[TEXT-START] yes[TEXT-END]<|end_of_text|>" if "text" in modalities else None
    assert output.answer == answer
    assert not output.report.reasons
    assert (
        output.report.num_complete
        == output.report.num_objects
        == (len(output.scene.objects) if output.scene else 0)
    )


def test_codes_come_back_in_raster_order():
    image = VOCABULARY.image.start + CODES[ORDER_OF_16]
    brackets = [VOCABULARY.marker_id(m) for m in ("[IMAGE-START]", "[IMAGE-END]")]
    ids = np.array([brackets[0], *image, brackets[1], VOCABULARY.eos])
    assert reader("3-I").read(Generated(ids)).codes.tolist() == CODES.tolist()
    assert reader("3-I", "none").read(Generated(ids)).codes.tolist() == CODES[ORDER_OF_16].tolist()


@pytest.mark.parametrize(
    ("task", "change", "reason"),
    [
        ("3-I", lambda ids: ids[:-1], "no end of sequence"),
        ("3-I", lambda ids: ids[1:], "image without its markers"),
        ("3-I", lambda ids: np.concatenate([[5], ids[1:]]), "image without its markers"),
        ("3-I", lambda ids: np.delete(ids, -2), "image without its markers"),
        ("3-I", lambda ids: np.delete(ids, 4), "image with a wrong number of codes"),
        ("3-I", lambda ids: np.insert(ids, 4, ids[5]), "image with a wrong number of codes"),
        ("3-I", lambda ids: np.where(ids == ids[3], 5, ids), "a token that is no image code"),
        ("3-I", lambda ids: np.insert(ids, 0, 7), "token outside the outputs"),
        ("3-I", lambda ids: np.concatenate([ids[:-1], ids]), "token outside the outputs"),
        ("3-I", lambda ids: np.append(ids, 7), "token after the end of sequence"),
        ("I-3", lambda ids: np.delete(ids, 0), "no [SCENE-START]"),
        ("I-3", lambda ids: np.delete(ids, -2), "no [SCENE-END]"),
        ("I-3", lambda ids: np.delete(ids, 1), "token outside objects"),
        ("I+3+Q-A", lambda ids: ids[1:], "text without its markers"),
        ("I+3+Q-A", lambda ids: ids[:0], "text without its markers"),
    ],
)
def test_faults_are_counted_by_reason(task, change, reason):
    output = reader(task).read(Generated(change(whole_output(task))))
    assert any(reason in known and count > 0 for known, count in output.report.reasons.items())
    if "image" in reason:
        assert output.codes is None


MARKERS = st.sampled_from(range(VOCABULARY.marker.start, VOCABULARY.marker.stop))
ANY_ID = st.integers(-3, VOCABULARY.size + 3) | MARKERS | st.just(VOCABULARY.eos)


@settings(max_examples=200)
@given(task=st.sampled_from(TASKS), ids=st.lists(ANY_ID, max_size=80))
def test_reading_is_total(task, ids):
    output = reader(task).read(Generated(np.array(ids, dtype=np.int64)))
    modalities = {segment.modality for segment in get_task(task).outputs}
    assert (output.scene is not None) == ("three_d" in modalities)
    assert (output.answer is not None) == ("text" in modalities)
    assert output.report.num_objects == (len(output.scene.objects) if output.scene else 0)
    assert all(count > 0 for count in output.report.reasons.values())
    assert output.report.reasons or is_legal(task, ids)


EDITS = st.tuples(st.sampled_from(["delete", "insert", "replace"]), st.integers(0, 200), ANY_ID)


@settings(max_examples=200)
@given(task=st.sampled_from(TASKS[:4]), edits=st.lists(EDITS, max_size=3))
def test_no_fault_is_reported_exactly_where_the_grammar_accepts(task, edits):
    ids = whole_output(task).tolist()
    for kind, place, token in edits:
        place %= len(ids)
        if kind != "insert":
            del ids[place]
        if kind != "delete":
            ids.insert(place, token)
    output = reader(task).read(Generated(np.array(ids, dtype=np.int64)))
    assert (not output.report.reasons) == is_legal(task, ids)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_constrained_decoding_yields_whole_outputs(task, seed):
    model = tiny_model(seed=seed, max_seq_len=700)
    random = np.random.default_rng(seed)
    prompts = [random.integers(2, VOCABULARY.size, 20) for _ in range(8)]
    sampling = Sampling(temperature=4.0, seed=seed)
    settings = {"sampling": sampling, "automaton": AUTOMATA[task]}
    found = generate(model, prompts, VOCABULARY.eos, 650, 8, **settings)
    num_ended = 0
    for ids in map(np.array, found.values()):
        output = reader(task).read(Generated(ids))
        if VOCABULARY.eos in ids:
            num_ended += 1
            assert is_legal(task, ids)
            assert not output.report.reasons
            assert output.report.num_complete == output.report.num_objects
        else:
            assert len(ids) == 650
            assert output.report.reasons["no end of sequence"] == 1
    assert num_ended >= 3


def test_without_constraints_a_random_model_writes_no_whole_output():
    prompts = [np.array([2, 3, 4])] * 4
    found = generate(tiny_model(), prompts, VOCABULARY.eos, 40, 4, sampling=Sampling(1.0))
    for ids in found.values():
        assert reader("3-I").read(Generated(np.array(ids))).report.reasons

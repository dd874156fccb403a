"""The log of generated ids: what is in it survives, what is not comparable is refused."""

import numpy as np
import pytest

from kyvo.common.errors import InputError
from kyvo.decoding import Generated, ResultsLog

RUN = {"weights": "model.pt", "sampling": "greedy"}
KEYS = np.array([f"key {i}".encode() for i in range(9)])
SAMPLES = {0: [5, 6, 1], 7: [1], 3: [9, 9]}


@pytest.fixture
def path(tmp_path):
    log = ResultsLog(tmp_path / "new" / "results.jsonl", RUN, KEYS)
    for index, ids in SAMPLES.items():
        log.add(index, f"key {index}", Generated(np.array(ids)))
    log.close()
    return tmp_path / "new" / "results.jsonl"


def contents(log):
    return {index: generated.ids.tolist() for index, generated in log.done.items()}


def test_samples_are_there_when_it_is_opened_again(path):
    log = ResultsLog(path, RUN, KEYS)
    assert contents(log) == SAMPLES
    log.add(8, "key 8", Generated(np.array([4])))
    log.close()
    assert contents(ResultsLog(path, RUN, KEYS)) == SAMPLES | {8: [4]}


@pytest.mark.parametrize("cut", range(2, 40, 5))
def test_a_cut_off_last_line_is_made_again(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    log = ResultsLog(path, RUN, KEYS)
    assert contents(log) == {0: SAMPLES[0], 7: SAMPLES[7]}
    log.add(3, "key 3", Generated(np.array(SAMPLES[3])))
    log.close()
    assert contents(ResultsLog(path, RUN, KEYS)) == SAMPLES


def test_a_log_cut_off_in_its_first_line_starts_over(path):
    path.write_bytes(path.read_bytes()[:10])
    assert contents(ResultsLog(path, RUN, KEYS)) == {}
    assert contents(ResultsLog(path, RUN, KEYS)) == {}


def test_samples_survive_without_closing(path):
    log = ResultsLog(path, RUN, KEYS)
    log.add(8, "key 8", Generated(np.array([4])))
    assert contents(ResultsLog(path, RUN, KEYS))[8] == [4]


def test_values_are_the_same_when_read_again(path):
    """To the last bit, beside samples that have none."""
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    values[::3] = np.nan
    log = ResultsLog(path, RUN, KEYS)
    log.add(8, "key 8", Generated(np.arange(1000), values))
    log.close()
    found = ResultsLog(path, RUN, KEYS).done
    assert found[8].values.dtype == np.float32
    np.testing.assert_array_equal(found[8].values, values)
    assert [found[index].values for index in SAMPLES] == [None, None, None]


def test_other_settings_are_refused_by_name(path):
    before = path.read_bytes()
    with pytest.raises(InputError, match="sampling: then 'greedy', now 'top_k'"):
        ResultsLog(path, RUN | {"sampling": "top_k"}, KEYS)
    with pytest.raises(InputError, match="sampling: then 'greedy', now None"):
        ResultsLog(path, {"weights": "model.pt"}, KEYS)
    assert path.read_bytes() == before


def test_damage_in_the_middle_is_refused(path):
    path.write_bytes(path.read_bytes().replace(b'"index":7', b'"index:7'))
    with pytest.raises(InputError, match="line 3: not valid JSON"):
        ResultsLog(path, RUN, KEYS)


@pytest.mark.parametrize(
    "line",
    [
        "[1]",
        "1",
        "null",
        '{"index": 0}',
        '{"index": 0, "key": "key 0", "ids": ["a"]}',
        '{"index": 0, "key": "key 0", "ids": [[1]]}',
        '{"index": 0, "key": "key 0", "ids": [1.5]}',
        '{"index": 99, "key": "key 99", "ids": [1]}',
        '{"index": "0", "key": "key 0", "ids": [1]}',
        '{"index": 1, "key": "key 0", "ids": [1]}',
        '{"index": 0, "key": "key 0", "ids": [1], "values": [null, 0.5]}',
        '{"index": 0, "key": "key 0", "ids": [1], "values": ["a"]}',
        '{"index": 0, "key": "key 0", "ids": [1], "values": null}',
    ],
)
def test_lines_of_other_data_are_refused(path, line):
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"none of this data set|expected an object"):
        ResultsLog(path, RUN, KEYS)


@pytest.mark.parametrize("line", ["[1]", "{}", "7"])
def test_a_log_of_something_else_is_refused(path, line):
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=r"made with another setup|expected an object"):
        ResultsLog(path, RUN, KEYS)

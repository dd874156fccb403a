"""Reading JSON entry by entry: equal to the standard library, and clear about every fault."""

import json
import time
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyvo.common.errors import InputError
from kyvo.data.json_stream import iterate_entries
from kyvo.data.store import open_store

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
BRACKETED = VALUES.filter(lambda value: isinstance(value, list | dict))


def entries_of(content: bytes | str, folder: Path) -> list[tuple[str, Any]]:
    path = folder / "entries.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(iterate_entries(path, "scenes"))


@given(
    entries=st.dictionaries(st.text(max_size=8), BRACKETED, max_size=5),
    indent=st.sampled_from((None, 0, 2)),
    ascii_only=st.booleans(),
)
def test_equals_the_standard_library(
    tmp_path_factory: pytest.TempPathFactory,
    entries: dict[str, Any],
    indent: int | None,
    ascii_only: bool,
) -> None:
    content = json.dumps(entries, indent=indent, ensure_ascii=ascii_only)
    found = entries_of(content, tmp_path_factory.mktemp("json"))
    assert found == list(json.loads(content).items())


@given(data=st.data())
def test_any_damage_is_an_input_error_or_still_json(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes cut off, changed or put in: never another exception, never a wrong value."""
    content = bytearray(b'{"a\\"b": [1, 22], "c": {"token_ids": [3], "string": "]}"}}')
    place = data.draw(st.integers(0, len(content) - 1))
    stop = data.draw(st.integers(place, len(content)))
    content[place:stop] = data.draw(st.sampled_from([b"", b'"', b"[", b"}", b",", b"\\", b"\xff"]))
    try:
        found = entries_of(bytes(content), tmp_path_factory.mktemp("json"))
    except InputError:
        return
    assert dict(found) == json.loads(bytes(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf{}", "line 1, byte 0: a byte order mark. Save it as UTF-8 without"),
        (b"[1, 2]", r"line 1, byte 0: unexpected b'\[1"),
        (b"null", "line 1, byte 0"),
        (b'{"a": [1]', "the file ends in the middle of a value"),
        (b'{"a": [1],\n"b": [2, 3', "line 2, byte 21: the file ends in the middle"),
        (b'{"a": [1], "b', "the file ends in the middle of a value"),
        (b'{"a": [1],}', "unexpected b',}'"),
        (b'{"a": [1]} {"b": [2]}', r"byte 9: unexpected b'\} \{"),
        (b'{"a": [1] "b": [2]}', r"byte 9: unexpected b' \"b"),
        (b'{"a" [1]}', r"unexpected b' \[1\]\}'"),
        (b'{"a": 5}', r"byte 1: unexpected b'\"a\": 5\}'"),
        (b'{"a": 5, "b": [1]}', "expected a list or an object"),
        (b'{"a": "x", "b": [1]}', "expected a list or an object"),
        (b"{[1]}", r"unexpected b'\[1\]\}'"),
        (b'{"a": [1}', "invalid value"),
        (b'{"a":\n\n [NaN]}', "line 3, byte 8: invalid value"),
        (b'{"a": [1e999]}', "invalid value: number is infinity"),
        (b'{"a": [-Infinity]}', "invalid value"),
        (b"{\"a\": ['x']}", "invalid value"),
        (b'{"a": [01]}', "invalid value"),
        (b'{"a": [1],\n "a": [2]}', "line 2, byte 12: duplicate key 'a'"),
        (b'{"a": [1], "\\u0061": [2]}', "duplicate key 'a'"),
        (b'{"a": {"b": 1,\n"b": 2}}', "line 1, byte 6: invalid value: duplicate key 'b'"),
        (b'{"\xff": [1]}', "invalid value: str is not valid UTF-8"),
        (b'{"a": ["\xff"]}', "invalid value: str is not valid UTF-8"),
        (b'{"\\ud800": [1]}', "invalid value"),
        (b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "line 1, byte 69: nested too deep"),
        (b'{"a": ' * 10_000, "nested too deep"),
    ],
)
def test_faults_name_file_and_place(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        entries_of(content, tmp_path)
    assert str(caught.value).startswith(f"scenes: {tmp_path / 'entries.json'}: ")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "none.json", "no such file"), (tmp_path, "it is a folder")):
        with pytest.raises(InputError, match=f"scenes: {path}: {found}"):
            list(iterate_entries(path, "scenes"))


def test_cut_off_string_full_of_quotes_is_found_at_once(tmp_path: Path) -> None:
    """Trying every quote as the start of a string would take minutes."""
    start = time.perf_counter()
    with pytest.raises(InputError, match="the file ends in the middle"):
        entries_of(b'{"a": ["' + b'\\"' * 500_000, tmp_path)
    assert time.perf_counter() - start < 5


def test_one_huge_value_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kyvo.data.json_stream._MAX_VALUE_BYTES", 1000)
    assert len(entries_of('{"a": [' + "1," * 490 + "1]}", tmp_path)) == 1
    with pytest.raises(InputError, match="byte 6: this value is too large for a sample"):
        entries_of('{"a": [' + "1," * 510 + "1]}", tmp_path)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that ``work`` held at once, what it returns included."""
    tracemalloc.start()
    kept = work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del kept
    return peak


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """A file of 1.2 MB: streaming holds one entry, a store little more than its arrays."""
    path = tmp_path / "images.json"
    codes = [(i * 7919) % 1024 for i in range(256)]
    path.write_text(json.dumps({f"CLEVR_{i:06d}.png": codes for i in range(1_000)}))
    assert path.stat().st_size > 1.2e6
    naive = peak_bytes(lambda: json.loads(path.read_bytes()))
    stream = peak_bytes(lambda: deque(iterate_entries(path, "images"), maxlen=0))
    store = peak_bytes(lambda: open_store(path, "images"))
    assert stream < naive / 20
    assert store < naive / 2.5
    assert store < 3 * 1_000 * 256 * 4

"""Token stores: equal to the JSON, cached once, safe to build twice, strict about ids."""

import json
import multiprocessing
import os
import shutil
import stat
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyvo.common.errors import InputError
from kyvo.data import store as store_module
from kyvo.data.store import TokenStore, common_keys, open_store

IDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6)
STRINGS = st.none() | st.text(max_size=5) | st.fixed_dictionaries({"file_path": st.text()})
ENTRIES = IDS | st.fixed_dictionaries({"token_ids": IDS}, optional={"string": STRINGS})
KEYS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20)


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def as_dict(store: TokenStore) -> dict[str, tuple[list[int], Any]]:
    return {key.decode(): (store[i].tolist(), store.string(i)) for i, key in enumerate(store.keys)}


@given(content=st.dictionaries(KEYS, ENTRIES, min_size=1, max_size=8))
def test_equals_the_json(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    path = write(tmp_path_factory.mktemp("store") / "data.json", content)
    expected = {
        key: (entry, None) if isinstance(entry, list) else (entry["token_ids"], entry.get("string"))
        for key, entry in json.loads(path.read_text()).items()
    }
    for _ in ("built", "from the cache"):
        store = open_store(path, "text_source")
        assert as_dict(store) == expected
        assert [key.decode() for key in store.keys] == sorted(content)
        assert store.lengths.tolist() == [len(expected[key][0]) for key in sorted(content)]
        assert store[0].dtype == np.int64


def test_images_have_no_strings(tmp_path: Path) -> None:
    """The array of strings is empty and still maps."""
    store = open_store(write(tmp_path / "images.json", {"a": [1, 2], "b": [3]}), "image_source")
    assert store.strings.shape == (0,)
    assert [store.string(0), store.string(1)] == [None, None]


def test_second_open_does_not_read_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "images.json", {"a": [1, 2]})
    open_store(path, "image_source")
    assert (tmp_path / ".kyvo-cache").is_dir()
    monkeypatch.setattr(store_module, "iterate_entries", lambda *_: pytest.fail("read again"))
    assert as_dict(open_store(path, "image_source")) == {"a": ([1, 2], None)}


def test_relative_and_linked_paths_share_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "images.json", {"a": [1, 2]})
    (tmp_path / "link.json").symlink_to(path)
    open_store(path, "image_source")
    monkeypatch.setattr(store_module, "iterate_entries", lambda *_: pytest.fail("read again"))
    monkeypatch.chdir(tmp_path)
    assert len(open_store("images.json", "image_source")) == 1
    assert len(open_store(tmp_path / "link.json", "image_source")) == 1


def test_changed_source_is_read_again_and_the_stale_cache_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "images.json", {"a": [1, 2]})
    before = open_store(path, "image_source")
    time_ns = path.stat().st_mtime_ns
    write(path, {"a": [3, 4]})
    os.utime(path, ns=(time_ns + 1, time_ns + 1))
    assert as_dict(open_store(path, "image_source")) == {"a": ([3, 4], None)}
    assert len(list((tmp_path / ".kyvo-cache").iterdir())) == 1
    assert as_dict(before) == {"a": ([1, 2], None)}


def test_other_files_keep_their_cache(tmp_path: Path) -> None:
    first = write(tmp_path / "images.json", {"a": [1]})
    second = write(tmp_path / "more_images.json", {"b": [2]})
    open_store(first, "image_source")
    open_store(second, "image_source")
    assert len(list((tmp_path / ".kyvo-cache").iterdir())) == 2


def test_failed_reading_leaves_no_cache(tmp_path: Path) -> None:
    path = write(tmp_path / "images.json", '{"a": [1], "b": [2')
    with pytest.raises(InputError, match="in the middle"):
        open_store(path, "image_source")
    assert list((tmp_path / ".kyvo-cache").iterdir()) == []
    write(path, {"a": [1]})
    assert as_dict(open_store(path, "image_source")) == {"a": ([1], None)}


def open_and_sum(path: Path, barrier: Barrier, results: "Queue[tuple[int, int]]") -> None:
    barrier.wait()
    store = open_store(path, "image_source")
    results.put((len(store), sum(int(store[i].sum()) for i in range(len(store)))))


def test_two_processes_may_build_the_cache_at_once(tmp_path: Path) -> None:
    content = {f"key_{i}": [i, i + 1, i + 2] for i in range(5_000)}
    path = write(tmp_path / "images.json", content)
    fork = multiprocessing.get_context("fork")
    barrier, results = fork.Barrier(2), fork.Queue()
    workers = [fork.Process(target=open_and_sum, args=(path, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert found == [(5_000, sum(map(sum, content.values())))] * 2
    assert len(list((tmp_path / ".kyvo-cache").iterdir())) == 1


class TestUnwritableDataFolder:
    """The cache goes to the user's cache folder; nothing is written beside the data."""

    @pytest.fixture
    def source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A data folder where no cache folder can be made, even by root: a file has its name."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / ".kyvo-cache").touch()
        return write(tmp_path / "data" / "images.json", {"a": [1, 2]})

    def test_falls_back(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert as_dict(open_store(source, "image_source")) == {"a": ([1, 2], None)}
        assert list((tmp_path / "home" / "kyvo").rglob("ids.npy"))
        monkeypatch.setattr(store_module, "iterate_entries", lambda *_: pytest.fail("read again"))
        assert len(open_store(source, "image_source")) == 1

    def test_namesakes_of_two_folders_stay_apart(self, source: Path, tmp_path: Path) -> None:
        shutil.copytree(source.parent, tmp_path / "other")
        other = write(tmp_path / "other" / "images.json", {"a": [8, 9]})
        time_ns = source.stat().st_mtime_ns
        os.utime(other, ns=(time_ns, time_ns))
        found = [as_dict(open_store(path, "image_source")) for path in (source, other)]
        assert found == [{"a": ([1, 2], None)}, {"a": ([8, 9], None)}]

    def test_no_home_is_missed_only_where_it_is_needed(
        self, source: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", no_home)
        assert len(open_store(source, "image_source")) == 1
        monkeypatch.delenv("XDG_CACHE_HOME")
        with pytest.raises(InputError, match="no folder for the cache can be written: tried"):
            open_store(source, "image_source")

    def test_no_folder_at_all(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "home").touch()
        with pytest.raises(InputError, match="no folder for the cache can be written: tried"):
            open_store(source, "image_source")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
    def test_read_only_folder(self, source: Path) -> None:
        (source.parent / ".kyvo-cache").unlink()
        source.parent.chmod(0o555)
        try:
            assert len(open_store(source, "image_source")) == 1
            assert not (source.parent / ".kyvo-cache").exists()
        finally:
            source.parent.chmod(0o755)


def test_damaged_cache_says_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path / "images.json", {"a": [1, 2]})
    open_store(path, "image_source")
    (array,) = tmp_path.glob(".kyvo-cache/*/ids.npy")
    array.write_bytes(array.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"delete its folder to build it again.*ids\.npy"):
        open_store(path, "image_source")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("[1, true]", "True is not a token id. Expected whole numbers"),
        ("[1, 2.0]", "2.0 is not a token id. Expected whole numbers"),
        ('[1, "2"]', "'2' is not a token id. Expected whole numbers"),
        ("[1, null]", "None is not a token id"),
        ("[1, [2]]", r"\[2\] is not a token id"),
        ("[1, -2]", "-2 is not a token id. Expected 0 or more"),
        ("[1, 2147483648]", "2147483648 is not a token id"),
        ("[1, 18446744073709551616]", "is not a token id. Expected whole numbers"),
        ("[]", "expected a non-empty list of ids"),
        ('{"token_ids": 5}', "expected a non-empty list of ids, found 5"),
        ('{"token_ids": {}}', "expected a non-empty list of ids"),
        ('{"tokens": [1]}', "no 'token_ids'"),
    ],
)
def test_bad_entries_name_file_and_key(entry: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "scenes.json", f'{{"good": [1], "bad": {entry}}}')
    with pytest.raises(InputError, match=message) as caught:
        open_store(path, "three_d_source")
    assert str(caught.value).startswith(f"three_d_source: {path}: key 'bad': ")


@pytest.mark.parametrize("key", ["", "a\\u0000", "a" * 201, "\\u00e9" * 101])
def test_bad_keys(key: str, tmp_path: Path) -> None:
    path = write(tmp_path / "scenes.json", f'{{"{key}": [1]}}')
    with pytest.raises(InputError, match="expected 1 to 200 bytes without NUL"):
        open_store(path, "three_d_source")


@pytest.mark.parametrize("content", ["{}", "[]", '{"a": {"b": {"token_ids": [1]}}}'])
def test_other_layouts(content: str, tmp_path: Path) -> None:
    path = write(tmp_path / "scenes.json", content)
    with pytest.raises(InputError, match=f"three_d_source: {path}"):
        open_store(path, "three_d_source")


@given(
    rows=st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), min_size=1, max_size=6),
    low=st.integers(0, 50),
    high=st.integers(50, 99),
)
def test_first_id_outside_or_inside(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], low: int, high: int
) -> None:
    content = {f"key{i}": row for i, row in enumerate(rows)}
    path = write(tmp_path_factory.mktemp("store") / "ids.json", content)
    found: dict[bool, list[tuple[str, int]]] = {True: [], False: []}
    for key, row in content.items():
        for value in row:
            found[low <= value < high].append((key, value))
    store = open_store(path, "text_source")
    assert store.first_outside(low, high) == next(iter(found[False]), None)
    assert store.first_inside(low, high) == next(iter(found[True]), None)


def test_distinct_ids(tmp_path: Path) -> None:
    """Of more ids than one block holds."""
    random = np.random.default_rng(0)
    rows = random.integers(0, 2**31, size=(30, 5_000))
    rows[1:, :4_000] = rows[0, 0]
    path = write(tmp_path / "ids.json", {f"key{i}": row.tolist() for i, row in enumerate(rows)})
    assert open_store(path, "text_source").distinct.tolist() == sorted(set(rows.flatten().tolist()))


@given(st.lists(st.sets(st.sampled_from("abcdefg"), min_size=1), min_size=1, max_size=4))
def test_common_keys(tmp_path_factory: pytest.TempPathFactory, key_sets: list[set[str]]) -> None:
    folder = tmp_path_factory.mktemp("keys")
    stores = [
        open_store(write(folder / f"{i}.json", {key: [1] for key in keys}), "text_source")
        for i, keys in enumerate(key_sets)
    ]
    expected = sorted(set.intersection(*key_sets))
    assert [key.decode() for key in common_keys(stores)] == expected


def test_the_cache_is_for_everyone_who_may_read_the_data(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        open_store(write(tmp_path / "images.json", {"a": [1, 2]}), "image_source")
    finally:
        os.umask(before)
    (cache,) = (tmp_path / ".kyvo-cache").iterdir()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o755


def test_the_cache_of_another_user_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    source = write(tmp_path / "images.json", {"a": [1, 2]})
    open_store(source, "image_source")
    (cache,) = (tmp_path / ".kyvo-cache").iterdir()
    before = os.access
    # Root may read everything.
    monkeypatch.setattr(os, "access", lambda path, mode: path != cache and before(path, mode))
    assert as_dict(open_store(source, "image_source")) == {"a": ([1, 2], None)}
    assert list((tmp_path / "home" / "kyvo").rglob("ids.npy"))

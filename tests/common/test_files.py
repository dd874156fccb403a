"""Files: one clear error on the way in, all or nothing on the way out."""

import errno
import json
import os
import pickle
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyvo.common.errors import InputError
from kyvo.common.files import (
    MAX_JSON_BYTES,
    JSONLines,
    atomic_file,
    check_free_space,
    check_output_name,
    copy_file,
    folder_lock,
    format_bytes,
    map_array,
    read_array,
    read_json,
    read_json_lines,
    require_file,
    write_array,
    write_json,
)
from kyvo.common.json_text import parse_json

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize("durable", [True, False])
def test_atomic_file_replaces_on_success(durable: bool, tmp_path: Path) -> None:
    target = tmp_path / "folder" / "a.txt"
    for text in ("first", "second"):
        with atomic_file(target, durable) as temporary:
            temporary.write_text(text)
            assert temporary.parent == target.parent
            assert not target.exists() or target.read_text() == "first"
        assert target.read_text() == text
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_atomic_file_leaves_nothing_on_failure(
    failure: type[BaseException], tmp_path: Path
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half() -> None:
        with atomic_file(target) as temporary:
            temporary.write_text("half of")
            raise failure

    with pytest.raises(failure):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_failed_rename_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="taken"), atomic_file(tmp_path / "taken") as temporary:
        temporary.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_new_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_json(tmp_path / "made", {})
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "made")]
    assert modes[0] == modes[1]


def test_names_up_to_the_limit_of_the_file_system(tmp_path: Path) -> None:
    write_json(tmp_path / ("a" * 250), 1)
    assert read_json(tmp_path / ("a" * 250), "x") == 1


FULL_DISK = """
import resource, sys
import numpy as np
from kyvo.common.files import write_array
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
write_array(sys.argv[1], np.zeros(100_000))
"""


def test_no_room_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.npy"
    write_array(target, np.arange(3))
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(target)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"{target}: " in done.stderr
    assert "after 4.0 KiB; " in done.stderr
    assert read_array(target, "x").tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


KILLED = """
import os, signal, sys
from kyvo.common.files import atomic_file
with atomic_file(sys.argv[1]) as temporary:
    temporary.write_text("half of")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert target.read_text() == "old"


@given(JSON_VALUES)
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value, durable=False)
    assert read_json(path, "value") == value
    assert json.loads(path.read_text()) == value


@pytest.mark.parametrize(
    ("content", "problem", "remedy"),
    [
        (b"", "line 1: not valid JSON", "It is empty"),
        (b" \n", "not valid JSON", "It is empty"),
        (b'{"a":\n {', "line 2: not valid JSON", "It may be truncated"),
        (b"[1] 2", "column 5", "Correct that place"),
        (b"\xef\xbb\xbf{}", "line 1", "Save it as UTF-8 without the byte order mark"),
        ("{}".encode("utf-16"), "line 1", "Save it as UTF-8"),
        (b'["caf\xe9"]', "line 1", "Save it as UTF-8"),
        (b"[1,\nNaN]", "line 2", "JSON has finite numbers only"),
        (b"[-Infinity]", "line 1", "JSON has finite numbers only"),
        (b"[1e999]", "number is infinity", "Correct that place"),
        (b"[" * 10_000, "line 1", "It is nested too deep"),
        (b'{"a": 1,\n "b": {"c": 1, "c": 2}}', "line 2: .*duplicate key 'c'", "Keep one"),
        (b'[{"a": "\\": "},\n{"a": 1, "\\u0061": 2}]', "line 2: .*duplicate key 'a'", "Keep one"),
    ],
)
def test_broken_json(content: bytes, problem: str, remedy: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^scenes: {path}: .*{problem}.*\. {remedy}"):
        read_json(path, "scenes")


def test_more_json_than_memory_may_hold_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as stream:
        stream.truncate(MAX_JSON_BYTES + 1)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"a\.json: 512\.0 MiB, more than 512\.0 MiB"):
        read_json(tmp_path / "a.json", "scenes")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("key", ["a", "b"])
@given(JSON_VALUES)
def test_a_key_twice_is_found_wherever_it_is(key: str, value: object) -> None:
    text = orjson.dumps(value).decode()
    whole = f'[{text}, {{"a": {text}, "KEY": {text}}}, {text}]'
    assert parse_json(whole.replace("KEY", "c").encode(), "x") == json.loads(
        whole.replace("KEY", "c")
    )
    twice = whole.replace("KEY", key).encode()
    if key == "b":
        assert parse_json(twice, "x")
    else:
        with pytest.raises(InputError, match="duplicate key 'a'"):
            parse_json(twice, "x")


def test_json_lines_go_on_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "log.jsonl"
    log = JSONLines(path, [{"step": 1}])
    log.add({"step": 2, "loss": float("nan")})
    assert list(read_json_lines(path, "log")) == [{"step": 1}, {"step": 2, "loss": None}]
    log.close()
    with path.open("ab") as stream:
        stream.write(b'{"step": 3')
    rows = list(read_json_lines(path, "log"))
    assert [row["step"] for row in rows] == [1, 2]
    JSONLines(path, rows).close()
    assert list(read_json_lines(path, "log")) == rows


@pytest.mark.parametrize(
    ("line", "message"),
    [(b"3", "line 2: expected an object"), (b"{", "line 2: not valid JSON")],
)
def test_a_damaged_line_is_named(line: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"{}\n" + line + b"\n{}\n")
    with pytest.raises(InputError, match=rf"log: {tmp_path / 'log'}: {message}"):
        list(read_json_lines(tmp_path / "log", "log"))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"codebook: {tmp_path / 'a'}: no such file"):
        require_file(tmp_path / "a", "codebook")
    with pytest.raises(InputError, match=f"codebook: {tmp_path}: it is a folder"):
        read_array(tmp_path, "codebook")
    assert require_file(__file__, "x") == Path(__file__)


POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 1073741824\n"
)


@pytest.mark.parametrize("read", [read_json, read_array, map_array, require_file])
def test_pointers_of_git_lfs_are_told_by_every_reader(
    read: Callable[[Path, str], object], tmp_path: Path
) -> None:
    path = tmp_path / "codes.json"
    path.write_text(POINTER)
    with pytest.raises(InputError, match=rf"^codes: {path}: a git-lfs pointer.*git lfs pull"):
        read(path, "codes")


@pytest.mark.parametrize(
    "content", [POINTER * 2, POINTER[:41], " " + POINTER, POINTER.replace("v1", "v2"), ""]
)
def test_files_that_only_resemble_a_pointer_pass(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(content)
    assert require_file(tmp_path / "a.txt", "text") == tmp_path / "a.txt"


@pytest.mark.parametrize("shape", [(0,), (3,), (2, 0, 4), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["int32", "float32", "uint8", "S5"])
def test_arrays_round_trip(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    write_array(tmp_path / "a.npy", array)
    for load in (read_array, map_array):
        found = load(tmp_path / "a.npy", "array")
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)
    assert not map_array(tmp_path / "a.npy", "array").flags.writeable


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_pickles_are_refused_and_do_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    objects = np.array([Bomb(made)], dtype=object)
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(Bomb(made)))
    for name in ("objects.npy", "plain.npy"):
        for load in (read_array, map_array):
            with pytest.raises(InputError, match=rf"codebook: .*{name}: not a plain \.npy array"):
                load(tmp_path / name, "codebook")
    assert not made.exists()


def test_truncated_arrays(tmp_path: Path) -> None:
    write_array(tmp_path / "a.npy", np.arange(10))
    content = (tmp_path / "a.npy").read_bytes()
    for size in range(0, len(content), 7):
        (tmp_path / "a.npy").write_bytes(content[:size])
        for load in (read_array, map_array):
            with pytest.raises(InputError, match=r"not a plain \.npy array"):
                load(tmp_path / "a.npy", "codebook")


def npy(header: str, values: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + values


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1 << 70,)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", bytes(8)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", bytes(8)),
        npy("{'descr': '<f4', 'fortran_order': False}", bytes(4)),
        npy("((" * 2000),
        npy("'" * 3),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps([1])),
        b"PK\x03\x04" + bytes(40),
        b"",
    ],
)
def test_headers_that_lie_are_refused_before_memory_is_taken(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    for load in (read_array, map_array):
        with pytest.raises(InputError, match=r"codebook: .*a\.npy: not a plain \.npy array"):
            load(tmp_path / "a.npy", "codebook")


@pytest.mark.parametrize("name", ["a", "CLEVR_000000.png", ".hidden", "...", "a b", "x" * 200])
def test_output_names(name: str) -> None:
    assert check_output_name(name, "image key") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/etc/x", "a/b", "a\\b", "a\0", "x" * 201, "\u00e9" * 101]
)
def test_bad_output_names(name: str) -> None:
    with pytest.raises(InputError, match=r"image key: .* cannot be a file name"):
        check_output_name(name, "image key")


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_accepted_names_stay_in_their_folder(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp("names")
    try:
        check_output_name(name, "key")
    except InputError:
        return
    (folder / name).write_text("x")
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (2048, "2.0 KiB"),
        (3 << 20, "3.0 MiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_byte_counts_in_a_readable_unit(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_a_disk_without_room_is_told_with_both_figures(tmp_path: Path) -> None:
    check_free_space(tmp_path / "not/yet/there", 1, "checkpoints")
    assert not (tmp_path / "not").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is no folder that can be written"):
        check_free_space(tmp_path / "file/x", 1, "checkpoints")
    with pytest.raises(InputError, match=r"checkpoints: .*needs 1073741824.0 GiB, but .* are free"):
        check_free_space(tmp_path, 1 << 60, "checkpoints")


def test_an_error_while_writing_names_the_file_and_its_bytes(tmp_path: Path) -> None:
    def fail(number: int, text: str) -> None:
        with atomic_file(tmp_path / "a.txt") as temporary:
            temporary.write_bytes(bytes(2048))
            raise OSError(number, text)

    with pytest.raises(
        InputError, match=r"a\.txt: No space left on .* after 2\.0 KiB; .* are free"
    ):
        fail(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match=r"a\.txt"):
        fail(errno.EIO, "Input/output error")


FULL_LOG = """
import resource, signal, sys
from pathlib import Path
from kyvo.common.errors import InputError
from kyvo.common.files import JSONLines
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
log = JSONLines(Path(sys.argv[1]), [{"step": 0}])
try:
    for step in range(1, 100):
        log.add({"step": step})
except InputError as error:
    print(error)
"""


def test_a_log_on_a_full_disk_is_told_and_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", FULL_LOG, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{path}: ")
    assert "after 50 B" in done.stdout
    assert [row["step"] for row in read_json_lines(path, "log")] == [0, 1, 2, 3]


def test_permissions_are_those_that_the_user_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "made", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o640


HOLD = """
import sys
from pathlib import Path
from kyvo.common.files import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "held\n"
        with (
            pytest.raises(InputError, match="in use by another run"),
            folder_lock(tmp_path / "out"),
        ):
            pass
        one.kill()
    with folder_lock(tmp_path / "out"):
        pass


@pytest.mark.parametrize("output", ["world", "world/train/out", "link/out", "world/../world/x"])
def test_nothing_is_written_into_what_is_read(output: str, tmp_path: Path) -> None:
    world = tmp_path / "world"
    (world / "train").mkdir(parents=True)
    (tmp_path / "link").symlink_to(world)
    message = f"output folder: {tmp_path / output} is in {world}, which is read"
    with pytest.raises(InputError, match=message), folder_lock(tmp_path / output, None, world):
        pass
    assert [path.name for path in world.rglob("*")] == ["train"]
    with folder_lock(tmp_path / "world-2", world, tmp_path / "none"):
        pass


def test_the_next_writer_clears_away_what_a_killed_one_left(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.txt")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with folder_lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_copy_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    copy_file(tmp_path / "a", tmp_path / "folder" / "b")
    copy_file(tmp_path / "a", tmp_path / "a")
    assert (tmp_path / "folder" / "b").read_bytes() == (tmp_path / "a").read_bytes() == b"one"
    with pytest.raises(OSError, match="none"):
        copy_file(tmp_path / "none", tmp_path / "folder" / "b")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["b"]

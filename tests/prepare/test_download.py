"""The data set's download, against a hub on this machine that breaks, lies and refuses."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_hub import FakeHub, serve
from kyvo_stand_ins import load_script

from kyvo.common.errors import InputError
from kyvo.common.files import folder_lock
from kyvo.prepare.download import (
    HALF_FILES,
    RELEASED_REPOSITORY,
    RemoteFile,
    choose,
    download,
    list_files,
    verify,
)

SCRIPT = Path(__file__).parents[2] / "scripts/download_data.py"
REPOSITORY = f"datasets/{RELEASED_REPOSITORY}"
CHECKPOINT = "vqgan-models-and-codebooks/clevr/2024 run/checkpoints/last.ckpt"
CODES = "pretokenized-data/clevr/images/train_vqgan_indices.json"
SMALL = "images-and-scenes-for-evaluation/objaworld/original_images/scenes/a.json"
STEP = 1000
NOISE = np.random.default_rng(0).bytes(5_000_000)
FILES = {
    "README.md": b"# Data\n",
    SMALL: b"{}",
    "images-and-scenes-for-evaluation/clevr/empty.txt": b"",
    CODES: NOISE[:5000],
    "pretokenized-data/clevr/text/same.json": NOISE[:5000],
    "pretokenized-data/objectron/3d-scenes/test_tokenized_scenes.json": b"{}",
    CHECKPOINT: NOISE,
    "vqgan-models-and-codebooks/domain-agnostic/quantize_weight_8192.npy": NOISE[:2000],
}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5000\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    # What has arrived is written in such steps; they are 10 MiB in use.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", STEP)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")  # the store of large files breaks off if it sees it
    with serve({REPOSITORY: dict(FILES)}) as served:
        yield served


@pytest.fixture
def listing(hub: FakeHub) -> list[RemoteFile]:
    return list_files(RELEASED_REPOSITORY, endpoint=hub.endpoint)


def tree(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def test_everything_arrives_once_and_nothing_else_is_left(
    hub: FakeHub, listing: list[RemoteFile], tmp_path: Path
) -> None:
    download(listing, tmp_path / "new" / "data")
    assert tree(tmp_path) == {f"new/data/{path}": content for path, content in FILES.items()}
    verify(listing, tmp_path / "new" / "data")
    asked = list(hub.asked)
    assert sorted(path for path, _ in asked) == sorted(p for p, content in FILES.items() if content)
    download(listing, tmp_path / "new" / "data")
    assert hub.asked == asked


@pytest.mark.parametrize(
    ("parts", "datasets", "starts"),
    [
        ([], [], [""]),
        (["evaluation"], [], ["images-and-scenes-for-evaluation/"]),
        (["pretokenized", "vqgan"], ["clevr"], ["pretokenized-data/clevr/", "vqgan-models-and"]),
        ([], ["objectron"], ["pretokenized-data/objectron/"]),
    ],
)
def test_parts_and_data_sets(
    parts: list[str], datasets: list[str], starts: list[str], listing: list[RemoteFile]
) -> None:
    found = {file.path for file in choose(listing, parts, datasets)}
    expected = {path for path in FILES if path.startswith(tuple(starts))}
    assert found == {path for path in expected if "clevr" not in datasets or "clevr" in path}


@pytest.mark.parametrize(
    ("parts", "datasets", "message"),
    [
        ([], ["clevr", "clver"], "from clver. There are: clevr, domain-agnostic, objaworld, obj"),
        (["evaluation"], ["objectron"], "from objectron. There are: clevr, objaworld"),
    ],
)
def test_what_matches_nothing_is_reported(
    parts: list[str], datasets: list[str], message: str, listing: list[RemoteFile]
) -> None:
    with pytest.raises(InputError, match=message):
        choose(listing, parts, datasets)
    without_vqgan = [file for file in listing if "vqgan-models" not in file.path]
    with pytest.raises(InputError, match="from vqgan-models-and-codebooks"):
        choose(without_vqgan, ["vqgan"])


def test_a_broken_line_is_taken_up_where_it_broke(
    hub: FakeHub, listing: list[RemoteFile], tmp_path: Path
) -> None:
    hub.cut_after[CHECKPOINT] = 1_234_567
    download(listing, tmp_path)
    assert [asked for path, asked in hub.asked if path == CHECKPOINT] == ["", "bytes=1234000-"]
    assert tree(tmp_path) == FILES


def test_a_later_run_asks_for_the_rest_only(
    hub: FakeHub, listing: list[RemoteFile], tmp_path: Path
) -> None:
    hub.cut_after, hub.dies_when_cut = {CHECKPOINT: 2_000_001}, True
    with pytest.raises(InputError, match=r"the hub does not serve.*the same command goes on"):
        download(listing, tmp_path, workers=1)
    first = [path for path, _ in hub.asked]
    assert first[-1] == CHECKPOINT
    assert CODES in first
    assert not (tmp_path / CHECKPOINT).exists()
    hub.refusal, hub.asked = None, []
    download(listing, tmp_path)
    assert tree(tmp_path) == FILES
    assert (CHECKPOINT, "bytes=2000000-") in hub.asked
    assert set(first) & {path for path, _ in hub.asked} == {CHECKPOINT}


def test_half_a_file_of_another_version_is_not_continued(hub: FakeHub, tmp_path: Path) -> None:
    versions = [{CODES: NOISE[::-1]}, {CODES: NOISE}]
    hub.cut_after, hub.dies_when_cut = {CODES: 100_000}, True
    hub.repositories[REPOSITORY] = versions[0]
    with pytest.raises(InputError):
        download(list_files(RELEASED_REPOSITORY, endpoint=hub.endpoint), tmp_path)
    hub.refusal, hub.repositories[REPOSITORY] = None, versions[1]
    download(list_files(RELEASED_REPOSITORY, endpoint=hub.endpoint), tmp_path)
    assert tree(tmp_path) == versions[1]
    assert hub.asked == [(CODES, ""), (CODES, "")]


@pytest.mark.parametrize("path", [SMALL, CODES])
@pytest.mark.parametrize("served", [b"[]", b"x" * 5000, b"<html>" * 2000], ids=len)
def test_wrong_bytes_on_the_way_are_refused_and_fetched_anew(
    path: str, served: bytes, hub: FakeHub, listing: list[RemoteFile], tmp_path: Path
) -> None:
    hub.replaced[path] = served
    with pytest.raises(InputError, match=r"expected|should be of size"):
        download(listing, tmp_path)
    assert not (tmp_path / path).exists()
    hub.replaced.clear()
    with suppress(InputError):  # what a short answer left is found out only when it is complete
        download(listing, tmp_path)
    download(listing, tmp_path)
    assert tree(tmp_path) == FILES


def flip(path: Path) -> None:
    """Change one bit and leave size and time as they were."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("path", [SMALL, CODES])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "missing"),
        (flip, "expected sha[0-9]+ [0-9a-f]{40,64}, found [0-9a-f]{40,64}"),
        (lambda path: os.truncate(path, 1), "expected [25]0*0? bytes, found 1$"),
        (
            lambda path: path.write_text(POINTER),
            "expected .* found 66 .a git-lfs pointer: 'git lfs",
        ),
    ],
    ids=["missing", "flipped", "truncated", "pointer"],
)
def test_damage_is_named_and_mended(
    path: str,
    damage: Callable[[Path], None],
    message: str,
    hub: FakeHub,
    listing: list[RemoteFile],
    tmp_path: Path,
) -> None:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    verify(listing, tmp_path)
    damage(tmp_path / path)
    with pytest.raises(InputError) as caught:
        verify(listing, tmp_path)
    first, problem, remedy = str(caught.value).splitlines()
    assert first == f"{tmp_path}: 1 files missing or damaged:"
    assert re.search(f"^  {path}: {message}", problem)
    assert remedy.startswith("Run the command without --verify-only")
    download(listing, tmp_path)
    assert hub.asked == [(path, "")]
    assert tree(tmp_path) == FILES


def test_many_problems_are_counted(listing: list[RemoteFile], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="8 files missing") as few:
        verify(listing, tmp_path)
    assert "more" not in str(few.value)
    many = [dataclasses.replace(listing[0], path=f"{i}.md") for i in range(25)]
    with pytest.raises(InputError, match=r"25 files missing[\s\S]*19.md: missing\n  and 5 more\n"):
        verify(many, tmp_path)


def test_git_names_content_as_we_do(hub: FakeHub, tmp_path: Path) -> None:
    """The name is what ``git hash-object`` prints for this text."""
    hub.repositories[REPOSITORY] = {"hello.txt": b"hello world\n"}
    (file,) = list_files(RELEASED_REPOSITORY, endpoint=hub.endpoint)
    assert file.digest == "3b18e512dba79e4c8300dd08aeb37f8e728b8dad"
    download([file], tmp_path)


def test_a_full_disk_is_reported_before_the_first_byte(
    hub: FakeHub, listing: list[RemoteFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    with pytest.raises(InputError, match=r"download: .*needs .* free"):
        download(listing, tmp_path)
    assert hub.asked == []
    download([file for file in listing if file.path != CHECKPOINT], tmp_path)


def test_two_runs_do_not_fetch_into_one_folder(
    hub: FakeHub, listing: list[RemoteFile], tmp_path: Path
) -> None:
    with folder_lock(tmp_path / HALF_FILES), pytest.raises(InputError, match="in use by another"):
        download(listing, tmp_path)
    assert hub.asked == []


def test_a_folder_that_cannot_be_written(listing: list[RemoteFile], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written: .*Not a directory"):
        download(listing, tmp_path / "file" / "data")
    (tmp_path / CODES).mkdir(parents=True)
    with pytest.raises(InputError, match=f"cannot be read or written: .*{CODES}"):
        download(listing, tmp_path)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a\x1b[2J"])
def test_paths_that_leave_the_folder_are_refused(path: str, hub: FakeHub) -> None:
    hub.repositories[REPOSITORY] = {path: b"x"}
    with pytest.raises(InputError, match="would leave the output folder"):
        list_files(RELEASED_REPOSITORY, endpoint=hub.endpoint)


@pytest.mark.parametrize(
    ("repository", "revision", "refusal", "message"),
    [
        ("nobody/nothing", None, None, "nobody/nothing, revision main: not found: .*HF_TOKEN"),
        (RELEASED_REPOSITORY, "v9", None, "revision v9: no such revision: check --revision"),
        (RELEASED_REPOSITORY, None, (403, "GatedRepo"), "gated: accept its terms.*hf auth login"),
        (RELEASED_REPOSITORY, None, (401, "RepoNotFound"), "not found: .*if private, log in"),
        (RELEASED_REPOSITORY, None, (500, ""), "the hub does not serve: .*500"),
        ("a/b/c", None, None, "not a repository: expected --repository OWNER/NAME"),
    ],
)
def test_refusals_of_the_hub(
    repository: str,
    revision: str | None,
    refusal: tuple[int, str] | None,
    message: str,
    hub: FakeHub,
) -> None:
    hub.refusal = refusal
    with pytest.raises(InputError, match=message) as caught:
        list_files(repository, revision, hub.endpoint)
    assert len(str(caught.value).splitlines()) == 1


def test_an_empty_repository_is_reported(hub: FakeHub) -> None:
    hub.repositories[REPOSITORY] = {}
    with pytest.raises(InputError, match="holds no files"):
        list_files(RELEASED_REPOSITORY, endpoint=hub.endpoint)


def test_the_command(
    hub: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = load_script("download_data")
    monkeypatch.setattr(script, "list_files", partial(list_files, endpoint=hub.endpoint))
    monkeypatch.chdir(tmp_path)
    chosen = ["--datasets", "objaworld", "clevr", "--parts", "evaluation", "pretokenized"]
    sizes = {path: len(FILES[path]) for path in FILES if "objaworld" in path or "/clevr/" in path}
    sizes.pop(CHECKPOINT)
    summary = "4 files, 10,002 bytes, "

    script.main([*chosen, "--dry-run"])
    *lines, last = capsys.readouterr().out.splitlines()
    assert {path: int(size.replace(",", "")) for size, path in map(str.split, lines)} == sizes
    assert last == f"{summary}in this choice"
    assert list(tmp_path.iterdir()) == []

    script.main(chosen)
    assert capsys.readouterr().out == f"{summary}verified in kyvo-datasets-and-codebooks\n"
    assert tree(Path("kyvo-datasets-and-codebooks")) == {path: FILES[path] for path in sizes}

    script.main([*chosen, "--verify-only"])
    with pytest.raises(InputError, match="4 files missing or damaged"):
        script.main([*chosen, "--verify-only", "--output", "elsewhere"])
    assert not Path("elsewhere").exists()


def test_the_command_asks_the_hub_of_the_environment(hub: FakeHub, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--verify-only", "--output", str(tmp_path)]
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: {tmp_path}: 8 files missing or damaged:\n  README.md: missing\n" in done.stderr


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"the hub does not serve: check network, .*refused"):
        list_files(RELEASED_REPOSITORY, endpoint="http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"revision main: offline: unset HF_HUB_OFFLINE \("):
        list_files(RELEASED_REPOSITORY)

"""The released data set from a Hugging Face hub: list, choose, fetch, verify.

A file counts as there when its size and its hash are the hub's, however it came. What is not there
is fetched into a half file, which a later run continues, and moved into place when it is whole.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any

from tqdm import tqdm

from kyvo.common.errors import InputError
from kyvo.common.files import check_free_space, folder_lock, is_lfs_pointer
from kyvo.prepare.layout import PARTS

RELEASED_REPOSITORY = "aadarsh99/kyvo-datasets-and-codebooks"
HALF_FILES = ".kyvo-download"
"""The folder under the root that holds files until they are whole."""
MAX_PROBLEMS_REPORTED = 20


@dataclass(frozen=True)
class RemoteFile:
    """A file of a hub's repository: where it is and what identifies its content.

    Attributes:
        path: relative to the root, with slashes.
        url: where its content is.
        size: bytes.
        algorithm: sha256 for files of git-lfs, sha1 for git's own.
        prefix: hashed before the content: git's object header, nothing for git-lfs.
        digest: hexadecimal.
    """

    path: str
    url: str
    size: int
    algorithm: str
    prefix: bytes
    digest: str

    def folder(self, level: int) -> str:
        """Name of the folder ``level`` folders under the root; '' if the file is higher."""
        folders = PurePosixPath(self.path).parts[:-1]
        return folders[level] if level < len(folders) else ""


def list_files(
    repository: str, revision: str | None = None, endpoint: str | None = None
) -> list[RemoteFile]:
    """All files of a data set's repository, as they are at one commit.

    Args:
        repository: ``OWNER/NAME``.
        revision: branch, tag or commit; the main branch if not given.
        endpoint: address of the hub; if not given, the environment's HF_ENDPOINT or the public one.

    Raises:
        InputError: the hub cannot be reached, or refuses, or has no such repository or revision,
            or an empty one.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=endpoint)
    with _failures_reported(f"data set {repository}, revision {revision or 'main'}"):
        commit = api.dataset_info(repository, revision=revision).sha
        tree = api.list_repo_tree(repository, recursive=True, revision=commit, repo_type="dataset")
        entries = [entry for entry in tree if isinstance(entry, RepoFile)]
    if not entries:
        raise InputError(f"data set {repository}: holds no files. Check --repository.")
    return [_remote_file(entry, repository, commit, api.endpoint) for entry in entries]


def choose(
    files: Sequence[RemoteFile], parts: Sequence[str] = (), datasets: Sequence[str] = ()
) -> list[RemoteFile]:
    """Files of some parts of the tree (keys of ``PARTS``) and of some data sets' folders.

    An empty choice takes everything.

    Raises:
        InputError: a part or a data set that is asked for has no file.
    """
    in_parts = _in_folders(files, 0, [PARTS[part] for part in parts])
    return _in_folders(in_parts, 1, datasets)


def verify(files: Sequence[RemoteFile], root: Path, workers: int = 8) -> None:
    """Compare the files under ``root`` with the hub's sizes and hashes.

    Raises:
        InputError: some are missing or damaged; it names them with what was expected and found.
    """
    _refuse(_check(files, root, workers), root, "Run the command without --verify-only")


def download(files: Sequence[RemoteFile], root: Path, workers: int = 8) -> None:
    """Fetch what is missing or damaged under ``root``; afterwards every file is verified.

    Raises:
        InputError: no room on the disk, the hub fails, another run fetches into the same folder,
            or what arrived is damaged. The same call goes on where this one stopped.
    """
    problems = _check(files, root, workers)
    wanted = [file for file in files if file.path in problems]
    if not wanted:
        return
    with folder_lock(root / HALF_FILES):
        needed = sum(file.size - _half_size(root, file) for file in wanted)
        check_free_space(root, needed, "download")
        with tqdm(total=needed, desc="fetching", unit="B", unit_scale=True, disable=None) as bar:
            problems = _each(partial(_fetch, root, bar), wanted, workers)
        _refuse(problems, root, "Run the same command again")
        shutil.rmtree(root / HALF_FILES, ignore_errors=True)


def _remote_file(entry: Any, repository: str, commit: str | None, endpoint: str) -> RemoteFile:
    """From huggingface_hub's ``RepoFile``."""
    from huggingface_hub import hf_hub_url

    path = PurePosixPath(entry.path)
    if path.is_absolute() or ".." in path.parts or not entry.path.isprintable():
        raise InputError(
            f"data set {repository}: a file is named {entry.path!r}, which would leave the output "
            "folder or upset a terminal. Do not use this repository."
        )
    url = hf_hub_url(
        repository, entry.path, repo_type="dataset", revision=commit, endpoint=endpoint
    )
    if entry.lfs:
        return RemoteFile(entry.path, url, entry.lfs.size, "sha256", b"", entry.lfs.sha256)
    header = b"blob %d\0" % entry.size
    return RemoteFile(entry.path, url, entry.size, "sha1", header, entry.blob_id)


def _in_folders(files: Sequence[RemoteFile], level: int, names: Sequence[str]) -> list[RemoteFile]:
    """Files whose folder at a level is one of ``names``; all of them if there are no names."""
    found = {file.folder(level) for file in files}
    if missing := [name for name in names if name not in found]:
        raise InputError(
            f"download: nothing to fetch from {', '.join(missing)}. "
            f"There are: {', '.join(sorted(found - {''}))}."
        )
    return [file for file in files if not names or file.folder(level) in names]


def _check(files: Sequence[RemoteFile], root: Path, workers: int) -> dict[str, str]:
    """What is wrong with files under ``root``, by path."""
    total = sum(file.size for file in files)
    with tqdm(total=total, desc="checking", unit="B", unit_scale=True, disable=None) as bar:
        return _each(partial(_check_one, root, bar), files, workers)


def _check_one(root: Path, bar: tqdm, file: RemoteFile, _: Event) -> str:
    problem = _problem(root / file.path, file)
    bar.update(file.size)
    return problem


def _each(
    work: Callable[[RemoteFile, Event], str], files: Sequence[RemoteFile], workers: int
) -> dict[str, str]:
    """Problems that ``work`` finds, by path. Its event is set when the rest is given up."""
    given_up = Event()
    with _failures_reported("download"), ThreadPoolExecutor(workers) as pool:
        try:
            problems = list(pool.map(lambda file: work(file, given_up), files))
        finally:
            given_up.set()
    return {file.path: problem for file, problem in zip(files, problems, strict=True) if problem}


def _problem(path: Path, file: RemoteFile) -> str:
    """What is wrong with the content at ``path``; '' if it is the file's."""
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    if size != file.size:
        pointer = " (a git-lfs pointer: 'git lfs pull' fetches the file)"
        return f"expected {file.size} bytes, found {size}{pointer if is_lfs_pointer(path) else ''}"
    with path.open("rb") as stream:
        start = hashlib.new(file.algorithm, file.prefix)
        found = hashlib.file_digest(stream, lambda: start).hexdigest()
    if found != file.digest:
        return f"expected {file.algorithm} {file.digest}, found {found}"
    return ""


def _refuse(problems: Mapping[str, str], root: Path, remedy: str) -> None:
    if not problems:
        return
    listed = [f"  {path}: {problem}" for path, problem in problems.items()]
    if len(listed) > MAX_PROBLEMS_REPORTED:
        listed[MAX_PROBLEMS_REPORTED:] = [f"  and {len(listed) - MAX_PROBLEMS_REPORTED} more"]
    listing = "\n".join(listed)
    raise InputError(
        f"{root}: {len(problems)} files missing or damaged:\n{listing}\n"
        f"{remedy}: it fetches just these."
    )


def _half(root: Path, file: RemoteFile) -> Path:
    """The half file: named after path and content, so that no other version continues it."""
    name = hashlib.sha256(f"{file.digest} {file.path}".encode()).hexdigest()
    return root / HALF_FILES / name


def _half_size(root: Path, file: RemoteFile) -> int:
    half = _half(root, file)
    return half.stat().st_size if half.is_file() else 0


def _fetch(root: Path, bar: tqdm, file: RemoteFile, given_up: Event) -> str:
    """Fetch the rest of a file and move it into place; what is wrong with it, or ''."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    half = _half(root, file)
    share: Any = partial(_Share, bar, given_up)
    if _half_size(root, file) > file.size:
        half.unlink()
    with half.open("ab") as stream:
        http_get(
            file.url,
            stream,
            resume_size=stream.tell(),
            headers={**build_hf_headers(), "Accept-Encoding": "identity"},
            expected_size=file.size,
            tqdm_class=share,
        )
    if problem := _problem(half, file):
        half.unlink()
        return problem
    (root / file.path).parent.mkdir(parents=True, exist_ok=True)
    os.replace(half, root / file.path)
    return ""


class _Share:
    """A file's share of the bar of all files: what http_get wants of a progress bar."""

    def __init__(self, bar: tqdm, given_up: Event, **_: object) -> None:
        self.bar, self.given_up = bar, given_up

    def __enter__(self) -> "_Share":
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, count: int) -> None:
        if self.given_up.is_set():
            raise CancelledError
        self.bar.update(count)


@contextmanager
def _failures_reported(what: str) -> Iterator[None]:
    """Turn errors of the hub, the network and the disk into one line and a remedy."""
    from huggingface_hub import errors

    log_in = "log in with 'hf auth login' or set HF_TOKEN"
    again = "what arrived is kept, the same command goes on from there"
    # They go from the narrow to the wide: the first that fits is reported.
    reasons: dict[type[Exception], str] = {
        errors.GatedRepoError: f"gated: accept its terms on its page, then {log_in}",
        errors.RevisionNotFoundError: "no such revision: check --revision",
        errors.RepositoryNotFoundError: f"not found: check --repository; if private, {log_in}",
        errors.HFValidationError: "not a repository: expected --repository OWNER/NAME",
        errors.OfflineModeIsEnabled: "offline: unset HF_HUB_OFFLINE",
        errors.HTTPError: f"the hub does not serve: check network, HF_ENDPOINT, HF_TOKEN; {again}",
        OSError: f"cannot be read or written: check disk and permissions; {again}",
    }
    try:
        yield
    except tuple(reasons) as error:
        reason = next(text for kind, text in reasons.items() if isinstance(error, kind))
        detail = next((line for line in str(error).splitlines() if line), type(error).__name__)
        raise InputError(f"{what}: {reason} ({detail})") from None

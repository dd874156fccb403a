"""A Hugging Face hub on this machine, for tests: repositories of files behind its addresses.

Files of at least ``LFS_BYTES`` are kept as the hub keeps git-lfs files: listed with a SHA-256 and
served, by redirection, from a second host.
"""

import hashlib
import json
import re
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

LFS_BYTES = 1000
COMMIT = "0123456789abcdef0123456789abcdef01234567"
INFO = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?")
TREE = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/]+)")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
STORE = re.compile(r"/store/([^/]+/[^/]+/[^/]+)/(.+)")


@dataclass
class FakeHub:
    """What is served, how it fails, and what was asked for."""

    # Files by path, of repositories such as "models/owner/name".
    repositories: dict[str, dict[str, bytes]]
    endpoint: str = ""
    port: int = 0
    refusal: tuple[int, str] | None = None  # status and X-Error-Code of every further answer
    cut_after: dict[str, int] = field(default_factory=dict)  # path: bytes before the line breaks
    dies_when_cut: bool = False  # refuses from then on
    replaced: dict[str, bytes] = field(default_factory=dict)  # path: what is served instead
    asked: list[tuple[str, str]] = field(default_factory=list)  # path of a file, its Range header


def entry(path: str, content: bytes) -> dict[str, object]:
    """A file as the hub's tree lists it."""
    header = b"blob %d\0" % len(content)
    plain = {"type": "file", "path": path, "size": len(content)}
    if len(content) < LFS_BYTES:
        return {**plain, "oid": hashlib.sha1(header + content).hexdigest()}
    sha256 = hashlib.sha256(content).hexdigest()
    lfs = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return {**plain, "oid": hashlib.sha1(sha256.encode()).hexdigest(), "lfs": lfs}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urllib.parse.unquote(self.path.partition("?")[0])
        if self.hub.refusal:
            status, code = self.hub.refusal
            self._send(status, {"X-Error-Code": code})
        elif match := TREE.fullmatch(path):
            files = self.hub.repositories[f"{match[1]}/{match[2]}"]
            folders = [{"type": "directory", "path": "folder", "oid": "0" * 40}]
            self._send_json(folders + [entry(*item) for item in files.items()])
        elif match := INFO.fullmatch(path):
            self._info(f"{match[1]}/{match[2]}", match[3])
        elif match := RESOLVE.fullmatch(path):
            self._resolve((match[1] or "models/") + match[2], match[4])
        elif match := STORE.fullmatch(path):
            assert "Authorization" not in self.headers, "the token left the hub"
            self._send_file(match[2], self._content(match[1], match[2]), {})
        else:
            self._send(404, {"X-Error-Code": "EntryNotFound"})

    def _info(self, repository: str, revision: str | None) -> None:
        if repository not in self.hub.repositories:
            self._send(404, {"X-Error-Code": "RepoNotFound"})
        elif revision not in (None, "main", COMMIT):
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            self._send_json({"id": repository.partition("/")[2], "sha": COMMIT, "siblings": []})

    def _resolve(self, repository: str, path: str) -> None:
        content = self.hub.repositories[repository][path]
        listed = entry(path, content)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{listed["oid"]}"'}
        if "lfs" not in listed:
            self._send_file(path, self._content(repository, path), headers)
            return
        headers["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        headers["X-Linked-Size"] = str(len(content))
        store = f"http://localhost:{self.hub.port}/store/"
        self._send(302, {**headers, "Location": store + urllib.parse.quote(f"{repository}/{path}")})

    def _content(self, repository: str, path: str) -> bytes:
        return self.hub.replaced.get(path, self.hub.repositories[repository][path])

    def _send_file(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").partition("-")[0] or 0)
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.command == "GET":
            self.hub.asked.append((path, asked))
        sent = content[start:]
        is_cut = self.command == "GET" and path in self.hub.cut_after
        if is_cut and self.hub.dies_when_cut:
            self.hub.refusal = (503, "")
        kept = self.hub.cut_after.pop(path) if is_cut else None
        self._send(206 if start else 200, headers, sent, kept)

    def _send_json(self, value: object) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send(
        self, status: int, headers: dict[str, str], body: bytes = b"", kept: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:kept])
        self.close_connection = kept is not None

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve(repositories: dict[str, dict[str, bytes]]) -> Iterator[FakeHub]:
    """A hub that answers at ``endpoint`` while the block runs."""
    hub = FakeHub(repositories)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.port = server.server_port
    hub.endpoint = f"http://127.0.0.1:{hub.port}"
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

"""A small server that speaks the Hugging Face Hub's protocol: repositories in memory, and what can go wrong."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40
LARGE = 1000  # bytes from which a file is stored as LFS does


@dataclass
class Hub:
    """What the server has, does and saw."""

    repositories: Mapping[str, Mapping[str, bytes]]
    gated: set[str] = field(default_factory=set)
    cut_after: int | None = None  # bytes of a body after which the connection breaks, once a file
    stall_after: int | None = None  # bytes of a body after which nothing more comes
    spoilt: set[str] = field(default_factory=set)  # paths whose content is not what is listed
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range
    address: str = ""
    _cut: set[str] = field(default_factory=set)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The server on a free port of 127.0.0.1, until the end of the block."""

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.state.requests.append((self.command, path, self.headers.get("Range") or ""))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)/?(.*)", path):
            repository, what, revision, folder = match.groups()
            self._api(repository, what, revision, folder)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*match.groups(), body=body)
        else:
            self._refuse(404, "EntryNotFound")

    def _api(self, repository: str, what: str, revision: str, folder: str) -> None:
        files = self.state.repositories.get(repository)
        if files is None:
            self._refuse(401, "RepoNotFound")
        elif revision not in {"main", COMMIT}:
            self._refuse(404, "RevisionNotFound")
        elif what == "revision":
            self._json({"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})
        else:
            below = {name: data for name, data in files.items() if not folder or name.startswith(f"{folder}/")}
            self._json([_entry(name, data) for name, data in below.items()])

    def _file(self, repository: str, revision: str, name: str, *, body: bool) -> None:
        if repository in self.state.gated:
            self._refuse(403, "GatedRepo")
            return
        data = self.state.repositories[repository].get(name)
        if data is None:
            self._refuse(404, "EntryNotFound")
            return
        first = int((re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "") or [0, 0])[1])
        tag = hashlib.sha256(data).hexdigest() if len(data) >= LARGE else _git_sha1(data)
        sent = bytes(len(data)) if name in self.state.spoilt else data
        self.send_response(206 if first else 200)
        self.send_header("ETag", f'"{tag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            self._send(name, sent[first:])

    def _send(self, name: str, data: bytes) -> None:
        state = self.state
        if state.stall_after is not None and len(data) > state.stall_after:
            self.wfile.write(data[: state.stall_after])
            self.wfile.flush()
            time.sleep(30)
        elif state.cut_after is not None and len(data) > state.cut_after and name not in state._cut:
            state._cut.add(name)
            self.wfile.write(data[: state.cut_after])
            self.wfile.flush()
            self.connection.close()
        else:
            self.wfile.write(data)

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(name: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(data), "oid": _git_sha1(data)}
    if len(data) >= LARGE:
        digest = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
    return entry


def _git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

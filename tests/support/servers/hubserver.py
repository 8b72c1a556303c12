"""A local server that speaks what huggingface_hub and datasets ask the Hub, for HF_ENDPOINT.

What is answered was seen on the wire (huggingface_hub 2.4, datasets 5.2): the repository's description, its tree, the
paths' details, and its files with ETag, commit and ranges. Models and data sets differ only in the address.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from tests.support.servers.hubuploads import UploadAnswers, Uploads

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A Hub with repositories (id → folder).

    Args:
        repositories: models; an id of a set of rows begins with `datasets/`.
        gated: ids that refuse whoever has no token, or none of `members`.
        pause: seconds between the pieces (1 MB) of a large file.
        moved: old id → the id it has now, as `imdb` is `stanfordnlp/imdb`.
        uploads: what it takes, and from whom; None for a Hub that takes nothing.
    """

    def __init__(
        self,
        repositories: dict[str, Path],
        gated: tuple[str, ...] = (),
        pause: float = 0.0,
        moved: dict[str, str] | None = None,
        uploads: Uploads | None = None,
    ) -> None:
        self.repositories, self.gated, self.pause, self.moved = repositories, gated, pause, moved or {}
        self.uploads = uploads
        self.told: dict[str, dict[str, Any]] = {}  # What a repository's description says besides: license, gated.
        self.break_after: int | None = None  # Bytes after which the next large file's connection breaks, once.
        self.sent_bytes = 0
        self.requests: list[str] = []
        self.tokens: set[str] = set()  # Tokens that were shown.
        self.known: set[str] | None = None  # Tokens of somebody; None for any.
        self.members: set[str] | None = None  # Those that open gated repositories; None for all that are known.
        self.waiting: set[str] = set()  # Those whose request for access is not answered yet.


@contextmanager
def serve_hub(hub: Hub) -> Iterator[str]:
    """Serve it on a loopback port and give its address, for HF_ENDPOINT."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(UploadAnswers, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        return

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_PUT(self) -> None:
        address = unquote(urlparse(self.path).path).strip("/")
        self.hub.requests.append(f"PUT /{address}")
        self.take(address)

    def answer(self, body: bytes) -> None:
        hub, address = self.hub, unquote(urlparse(self.path).path).strip("/")
        hub.requests.append(f"{self.command} /{address}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        hub.tokens |= {token} if token else set()
        if token and hub.known is not None and token not in hub.known:
            return self.fail(401, "", "Invalid credentials in Authorization header")
        if hub.uploads is not None and self.upload(address, body, token):
            return None
        api = address.startswith("api/")
        rest = address.removeprefix("api/").removeprefix("models/")
        known = [name for name in (*hub.repositories, *hub.gated, *hub.moved) if f"{rest}/".startswith(f"{name}/")]
        if address == "api/models":
            return self.found(parse_qs(urlparse(self.path).query))
        if not known:
            return self.fail(404, "RepoNotFound")
        name = known[0]
        verb, _, tail = rest.removeprefix(name).strip("/").partition("/")
        if name in hub.moved:
            return self.redirect(self.path.replace(name, hub.moved[name], 1))
        # As on the Hub, whoever has no access may see what a gated repository holds, but not read it.
        described = api and verb != "auth-check" and name in hub.repositories
        open_to = bool(token) and (hub.members is None or token in hub.members)
        if name in hub.gated and not described and not open_to:
            return self.gated(name, token)
        revision, _, path = (tail or "main").partition("/")
        if revision not in ("main", COMMIT):
            return self.fail(404, "RevisionNotFound")
        folder = hub.repositories[name]
        if not api:
            return self.file(folder / path)
        if verb == "auth-check":
            return self.json({})
        if verb == "tree":
            deep = parse_qs(urlparse(self.path).query).get("recursive", [""])[0].lower() in ("true", "1")
            return self.tree(folder, path, deep)
        if verb == "paths-info":
            fields = parse_qs(body.decode()) if body[:1] != b"{" else json.loads(body)
            return self.json([_entry(folder, folder / one) for one in fields["paths"] if (folder / one).exists()])
        siblings = [
            {"rfilename": str(file.relative_to(folder)), "size": file.stat().st_size} for file in _files(folder, True)
        ]
        owner = name.removeprefix("datasets/")
        told = hub.told.get(name, {})
        self.json({"id": owner, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], **told})

    def found(self, asked: dict[str, list[str]]) -> None:
        """A search: ids that hold the words, whatever the filters."""
        words = asked.get("search", [""])[0].lower()
        names = [name for name in self.hub.repositories if words in name.lower()]
        self.json([{"id": name, "downloads": 7, "gated": name in self.hub.gated, "tags": []} for name in names])

    def tree(self, folder: Path, path: str, deep: bool) -> None:
        if not (folder / path).is_dir():
            return self.fail(404, "EntryNotFound")
        self.json([_entry(folder, one) for one in _files(folder / path, deep, folders=True)])

    def gated(self, name: str, token: str) -> None:
        """What the Hub says to those without a token, with a request that waits, and with none."""
        if not token:
            said = f"Access to model {name} is restricted. You must have access to it and be authenticated to access"
            return self.fail(401, "GatedRepo", f"{said} it. Please log in.")
        if token in self.hub.waiting:
            said = f"Your request to access model {name} is awaiting a review from the repo authors."
            return self.fail(403, "GatedRepo", said)
        said = f"Access to model {name} is restricted and you are not in the authorized list."
        self.fail(403, "GatedRepo", f"{said} Visit https://huggingface.co/{name} to ask for access.")

    def fail(self, status: int, code: str, said: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", said or code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def redirect(self, address: str) -> None:
        self.send_response(307)
        self.send_header("Location", address)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def file(self, file: Path) -> None:
        if not file.is_file():
            return self.fail(404, "EntryNotFound")
        data, begin = file.read_bytes(), 0
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes="):
            begin = int(wanted.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if begin else 200)
        self.send_header("ETag", f'"{file.name}-{len(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if self.command != "HEAD":
            self.pieces(data, begin)

    def pieces(self, data: bytes, begin: int) -> None:
        hub, step = self.hub, 1024 * 1024
        for place in range(begin, len(data), step):
            if hub.break_after is not None and place - begin >= hub.break_after:
                hub.break_after = None
                self.close_connection = True
                self.connection.close()
                return
            piece = data[place : place + step]
            self.wfile.write(piece)
            hub.sent_bytes += len(piece)
            time.sleep(hub.pause if len(data) > step else 0)


def _files(folder: Path, deep: bool, folders: bool = False) -> list[Path]:
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(one for one in found if one.is_file() or folders)


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": f"{name}-tree", "size": 0}
    size = path.stat().st_size
    return {"type": "file", "path": name, "oid": f"{path.name}-{size}", "size": size}

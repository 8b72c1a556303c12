"""Pushing a cleaned copy: the real `datasets` and `huggingface_hub` against a server here that answers as the Hub does.

It takes what is uploaded (create, preupload, LFS, commit) and shows nothing else; the real Hub was not asked.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from studio.data.quality.push import push
from studio.data.worker.whole import WholeOperations
from studio.errors import InputError, StoppedError, StudioError
from studio.settings import Settings
from tests.data.rows import chat
from tests.support.everyday import everyday

COMMIT = "a" * 40
TOKEN = "hf_" + "x" * 30
SECRET = "CANARY-of-a-mirror"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as an upload needs; `server.taken` keeps the files, `server.requests` what was asked."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self.server.requests.append(("GET", self.path, b"", self.headers.get("authorization")))
        path = self.path.split("?")[0]
        if path.endswith(f"/tree/{COMMIT}"):
            return self._answer([{"type": "directory", "path": "data", "oid": COMMIT}])
        if path.endswith(f"/tree/{COMMIT}/data"):
            return self._answer([{"type": "file", "path": "data/other.txt", "size": 1, "oid": COMMIT}])
        if path.startswith("/api/datasets/me/set"):
            return self._answer(
                {"_id": "1", "id": "me/set", "private": True, "sha": COMMIT, "siblings": [], "tags": []}
            )
        return self._answer({"error": "there is no such thing"}, 404)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:
        self.server.taken.append(self._body())
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        self.server.requests.append(("POST", self.path, body, self.headers.get("authorization")))
        if self.server.refuse:
            said = self.headers.get("authorization")
            return self._answer(
                {"error": f"this token may not write: {said}"}, 403, {"X-Error-Message": f"bad: {said}"}
            )
        if "/preupload/" in self.path:
            files = [{"path": one["path"], "uploadMode": "lfs"} for one in json.loads(body)["files"]]
            files = [{**one, "uploadMode": "regular"} if one["path"] == "README.md" else one for one in files]
            return self._answer({"files": [{**one, "shouldIgnore": False} for one in files]})
        if self.path.endswith("/info/lfs/objects/batch"):
            here = f"http://127.0.0.1:{self.server.server_port}/up/"
            objects = [
                {**one, "actions": {"upload": {"href": here + one["oid"]}}} for one in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        if "/commit/" in self.path:
            return self._answer(
                {"success": True, "commitOid": COMMIT, "commitUrl": f"/datasets/me/set/commit/{COMMIT}"}
            )
        return self._answer({"url": "/datasets/me/set", "errors": [], "warnings": []})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _answer(self, value: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(value).encode()
        self.send_response(code)
        for name, said in (headers or {}).items():
            self.send_header(name, said)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.requests, server.taken, server.refuse = [], [], False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def kept(settings: Settings, tmp_path: Path) -> list[Any]:
    rows = [chat(f"é{n}", "b") for n in range(30)]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = {"name": "clean", "data": {"train": [{"path": str(path)}], "validation": 0}}
    WholeOperations(settings).run("keep", args, lambda *told: None)
    return rows


def test_the_rows_arrive(hub: Any, kept: list[Any], settings: Settings) -> None:
    import pyarrow.parquet as pq

    told = WholeOperations(settings).run("push", {"name": "clean", "repo": "me/set"}, lambda *step: None)
    assert told == {"repo": "me/set", "splits": ["train"]}
    (taken,) = hub.taken
    assert pq.read_table(io.BytesIO(taken)).to_pylist() == kept
    (commit,) = [body for verb, path, body, _ in hub.requests if "/commit/main" in path]
    assert b"data/train-00000-of-00001.parquet" in commit
    assert {token for verb, _, _, token in hub.requests if verb == "POST"} <= {f"Bearer {TOKEN}", None}
    assert list(settings.temporary.iterdir()) == []


def test_what_the_hub_says_is_a_sentence_without_the_token(hub: Any, kept: list[Any], settings: Settings) -> None:
    hub.refuse = True
    with pytest.raises(StudioError, match="me/set: the Hub did not accept the data") as caught:
        push("clean", "me/set", True, settings, lambda: None)
    assert "status 403" in caught.value.sentence and TOKEN not in caught.value.sentence


@pytest.mark.parametrize(
    "case", everyday(["mirror with a password", "nobody there", "token with a line break"], "mirror with a password")
)
def test_no_key_is_repeated(
    hub: Any, kept: list[Any], settings: Settings, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://me:{SECRET}@127.0.0.1:{hub.server_port}")
    hub.refuse = True
    if case == "nobody there":
        monkeypatch.setenv("HF_ENDPOINT", f"http://me:{SECRET}@127.0.0.1:9")
    if case == "token with a line break":
        monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n")
    with pytest.raises(StudioError, match="me/set: the Hub did not accept the data") as caught:
        push("clean", "me/set", True, settings, lambda: None)
    assert TOKEN not in caught.value.sentence and SECRET not in caught.value.sentence


def test_an_upload_can_be_cancelled(hub: Any, kept: list[Any], settings: Settings) -> None:
    def stop() -> None:
        raise StoppedError("enough")

    with pytest.raises(StoppedError):
        push("clean", "me/set", True, settings, stop)
    assert hub.taken == []


def test_a_push_needs_a_set_a_name_and_a_token(
    kept: list[Any], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name, repo, words in (
        ("other", "me/set", "there is no cleaned copy 'other'"), ("../clean", "me/set", "is not a name"),
        ("clean", "set", "OWNER/NAME"), ("clean", "me/set", "HF_TOKEN"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            push(name, repo, True, settings, lambda: None)

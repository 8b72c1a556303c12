"""The side of the local Hub (`hubserver.py`) that takes models: tokens, new repositories, large files, commits.

What is answered was read off the client, huggingface_hub 2.4 (hf_api.py, _commit_api.py, lfs.py): Git LFS, in one
piece or in parts, and commits as lines of JSON. Large files are kept by their SHA-256, as on the Hub, also those of
an upload that was never committed. The real Hub was not asked.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

LARGE = ("*.safetensors", "*.gguf", "*.png")
PIECE = 64 * 1024
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass
class Uploads:
    """What the Hub knows of whoever uploads.

    Attributes:
        home: folder of the repositories that are created.
        tokens: of users, with what they may do: write or read.
        user, orgs: who they are.
        locked: repositories that exist and that they may not write to.
        part_bytes: large files are asked for in parts of so many bytes; None for one piece.
        pause: seconds before each piece of 64 kB is read, as a slow line has.
        objects: large files by SHA-256.
        received: bytes of large files that arrived, whole or not.
        reading: how many large files are on the line.
        commits: the lines of each commit.
        with_token: requests for the storage of large files that showed a token, which only the Hub itself may see.
    """

    home: Path
    tokens: dict[str, str] = field(default_factory=lambda: {"hf_of_ada": "write", "hf_reads": "read"})
    user: str = "ada"
    orgs: tuple[str, ...] = ("lab",)
    locked: set[str] = field(default_factory=set)
    part_bytes: int | None = None
    pause: float = 0.0
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    received: int = 0
    reading: int = 0
    commits: list[list[dict[str, Any]]] = field(default_factory=list)
    with_token: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class UploadAnswers:
    """The answers; a mixin of the handler, whose `hub.uploads` is not None."""

    hub: Any
    headers: Any
    rfile: Any
    server: Any

    def upload(self, address: str, body: bytes, token: str) -> bool:
        """Answer a request if it is about an upload; returns whether it was."""
        uploads: Uploads = self.hub.uploads
        if address == "api/validate-yaml":
            return self._said(*_validated(json.loads(body)["content"]))
        if found := re.fullmatch(r"lfs/(\w+)/(verify|complete)", address):
            return self._stored(found[1], found[2], body)
        ours = re.fullmatch(
            r"api/(whoami-v2|repos/create)|api/models/([^/]+/[^/]+)/(auth-check/write|preupload/main|commit/main)"
            r"|([^/]+/[^/]+)\.git/(info/lfs/objects/batch)", address,
        )  # fmt: skip
        if ours is None:
            return False
        if token not in uploads.tokens:
            return self._said(
                {"error": "no such token"}, 401, {"X-Error-Message": "Invalid credentials in Authorization header"}
            )
        verb, repo = ours[1] or ours[3] or ours[5], ours[2] or ours[4]
        if verb == "whoami-v2":
            access = {"displayName": "test", "role": uploads.tokens[token]}
            orgs = [{"name": one, "roleInSub": "write"} for one in uploads.orgs]
            return self._said({"type": "user", "name": uploads.user, "orgs": orgs, "auth": {"accessToken": access}})
        if verb == "repos/create":
            return self._created(json.loads(body))
        if repo not in self.hub.repositories:
            return self._said({"error": "there is none"}, 404, {"X-Error-Code": "RepoNotFound"})
        if repo in uploads.locked or uploads.tokens[token] == "read":
            return self._said({"error": f"{token} may not"}, 403, {"X-Error-Message": f"{token} may not"})
        if verb == "preupload/main":
            return self._said({"files": [self._mode(repo, one) for one in json.loads(body)["files"]]})
        if verb == "info/lfs/objects/batch":
            return self._said(
                {"transfer": "basic", "objects": [self._wanted(one) for one in json.loads(body)["objects"]]}
            )
        return self._committed(repo, body) if verb == "commit/main" else self._said({})

    def take(self, address: str) -> None:
        """Take a large file, or a part of one: slowly, and counted as it comes."""
        uploads: Uploads = self.hub.uploads
        if self.headers.get("Authorization"):
            uploads.with_token.append(address)
        data = self._read(int(self.headers["Content-Length"]))
        if data is None:
            return  # whoever sent it is gone
        _, oid, *part = address.split("/")
        if part:
            uploads.parts[oid, int(part[0])] = data
        elif hashlib.sha256(data).hexdigest() == oid:
            uploads.objects[oid] = data
        self._said({}, headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    def _read(self, left: int) -> bytes | None:
        uploads, data = self.hub.uploads, bytearray()
        with uploads.lock:
            uploads.reading += 1
        try:
            while left:
                time.sleep(uploads.pause)
                piece = self.rfile.read(min(PIECE, left))
                if not piece:
                    return None
                data += piece
                left -= len(piece)
                with uploads.lock:
                    uploads.received += len(piece)
        except ConnectionError:
            return None
        finally:
            with uploads.lock:
                uploads.reading -= 1
        return bytes(data)

    def _created(self, asked: dict[str, Any]) -> bool:
        uploads, repo = self.hub.uploads, f"{asked.get('organization') or self.hub.uploads.user}/{asked['name']}"
        address = {"url": f"{self._own()}/{repo}"}
        if repo in self.hub.repositories:
            return self._said({"error": "You already created this model repo", **address}, 409)
        folder = uploads.home / repo
        folder.mkdir(parents=True)
        (folder / ".gitattributes").write_text("".join(f"{one} filter=lfs\n" for one in LARGE))
        self.hub.repositories[repo] = folder
        self.hub.told[repo] = {"private": asked.get("visibility") == "private"}
        return self._said(address)

    def _mode(self, repo: str, file: dict[str, Any]) -> dict[str, Any]:
        large = any(fnmatch(file["path"], one) for one in LARGE) or file["size"] > 10_000_000
        there, oid = self.hub.repositories[repo] / file["path"], None
        if there.is_file():
            data = there.read_bytes()
            git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            oid = hashlib.sha256(data).hexdigest() if large else git
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def _wanted(self, file: dict[str, Any]) -> dict[str, Any]:
        uploads, oid, size = self.hub.uploads, file["oid"], file["size"]
        if oid in uploads.objects:
            return {"oid": oid, "size": size}
        place = f"{self._own()}/lfs/{oid}"
        send: dict[str, Any] = {"href": place}
        if uploads.part_bytes is not None and size > uploads.part_bytes:
            count = -(-size // uploads.part_bytes)
            header = {str(number): f"{place}/{number}" for number in range(1, count + 1)}
            send = {"href": f"{place}/complete", "header": {"chunk_size": str(uploads.part_bytes), **header}}
        return {"oid": oid, "size": size, "actions": {"upload": send, "verify": {"href": f"{place}/verify"}}}

    def _stored(self, oid: str, verb: str, body: bytes) -> bool:
        uploads: Uploads = self.hub.uploads
        if verb == "complete":
            numbers = [one["partNumber"] for one in json.loads(body)["parts"]]
            data = b"".join(uploads.parts.pop((oid, number)) for number in numbers)
            if hashlib.sha256(data).hexdigest() == oid:
                uploads.objects[oid] = data
        return self._said({}, 200 if oid in uploads.objects else 404)

    def _committed(self, repo: str, body: bytes) -> bool:
        uploads, folder = self.hub.uploads, self.hub.repositories[repo]
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        values = [(line["key"], line["value"]) for line in lines]
        if any(key == "lfsFile" and one["oid"] not in uploads.objects for key, one in values):
            return self._said({"error": "a large file is missing"}, 400)
        for key, one in values:
            if key == "deletedFile":
                (folder / one["path"]).unlink()
            elif key in ("file", "lfsFile"):
                path = folder / one["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(uploads.objects[one["oid"]] if key == "lfsFile" else base64.b64decode(one["content"]))
        uploads.commits.append(lines)
        oid = f"{len(uploads.commits):040x}"
        return self._said({"success": True, "commitOid": oid, "commitUrl": f"{self._own()}/{repo}/commit/{oid}"})

    def _own(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def _said(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> bool:
        data = json.dumps(value).encode()
        with contextlib.suppress(ConnectionError):
            self.send_response(status)  # type: ignore[attr-defined]
            for name, text in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **(headers or {}),
            }.items():
                self.send_header(name, text)  # type: ignore[attr-defined]
            self.end_headers()  # type: ignore[attr-defined]
            self.wfile.write(data)  # type: ignore[attr-defined]
        return True


def _validated(card: str) -> tuple[dict[str, Any], int]:
    """The Hub's opinion of a card: what it is known to refuse is refused here."""
    errors = []
    values = yaml.safe_load(card.removeprefix("---\n").partition("\n---\n")[0]) if card.startswith("---\n") else {}
    if "base_model" in values and not _HUB_ID.fullmatch(str(values["base_model"])):
        errors.append('"base_model" is not valid. Use a model id from https://hf.co/models')
    if "license" in values and not re.fullmatch(r"[a-z0-9.+-]+", str(values["license"])):
        errors.append('"license" must be one of the known ones')
    if not all(_HUB_ID.fullmatch(str(one)) for one in values.get("datasets", [])):
        errors.append('"datasets" must be ids')
    if "model-index" in values:
        try:
            model_index_to_eval_results(values["model-index"])
        except (KeyError, TypeError, ValueError):
            errors.append('"model-index" is not valid')
    said = {"errors": [{"message": one} for one in errors], "warnings": []}
    return said, 400 if errors else 200

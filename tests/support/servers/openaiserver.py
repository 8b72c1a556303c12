"""A local server that speaks OpenAI's files, fine-tuning and chat API, for OPENAI_BASE_URL or `base_url`.

Shapes and words are those of the API reference (openai/openai-openapi of 2026-08-21) and of answers that people
published. A job goes on by the clock: files are checked, it waits, trains a step every `pace` seconds, and leaves a
checkpoint after each epoch and a model that answers what it was taught. `Faults` makes it refuse, break and wait.

`python -m tests.support.servers.openaiserver --port 8123` serves it alone; any key but sk-bad is good.
"""

from __future__ import annotations

import argparse
import email.parser
import email.policy
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from tests.support.servers.openaijobs import BASES, Job, refused_rows

BAD_KEY = "sk-bad"
SORRY = "The server had an error while processing your request. Sorry about that!"


@dataclass
class Faults:
    """What goes wrong; a count goes down by one each time.

    Attributes:
        broken: requests that are answered with 500.
        limited: requests that are answered with 429, with `retry_after` seconds to wait.
        dropped: requests whose connection closes without an answer, before anything is done.
        lost: changing requests that are done, and whose answer never comes.
        down: nothing is answered at all while it is set.
        quota: the account has no money left.
        closed: the organization may start no training.
        no_metadata: jobs are kept without their metadata, as other servers of this API do.
    """

    broken: int = 0
    limited: int = 0
    retry_after: float = 1.0
    dropped: int = 0
    lost: int = 0
    down: bool = False
    quota: bool = False
    closed: bool = False
    no_metadata: bool = False


@dataclass
class OpenAI:
    """The service's side of one project.

    Attributes:
        pace: seconds of a training step.
        validating: seconds for which the files are checked.
        queued: seconds that a job waits.
        slow_upload: seconds between a file's arrival and its being listed.
        hook: called with (number, request, False) before each request is done, and with True after it, before the
            answer is sent.
    """

    pace: float = 0.02
    validating: float = 0.1
    queued: float = 0.1
    slow_upload: float = 0.0
    faults: Faults = field(default_factory=Faults)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    deleted_models: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)  # With which it was asked.
    asked: list[dict[str, Any]] = field(default_factory=list)
    hook: Callable[[int, str, bool], None] = lambda number, request, done: None
    lock: threading.RLock = field(default_factory=threading.RLock)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def add_file(self, name: str, purpose: str, content: bytes) -> dict[str, Any]:
        """Take a file and return its object."""
        with self.lock:
            id = f"file-{next(self._numbers):024d}"
            self.contents[id] = content
            made = {
                "object": "file", "id": id, "purpose": purpose, "filename": name, "bytes": len(content),
                "created_at": int(time.time()), "expires_at": None, "status": "processed", "status_details": None,
            }  # fmt: skip
            self.files[id] = {**made, "_listed": time.monotonic() + self.slow_upload}
            return made

    def uploads(self) -> list[str]:
        """Names of all files that were sent for training, in order."""
        return [one["filename"] for one in self.files.values() if one["purpose"] == "fine-tune"]

    def models(self) -> dict[str, Job | None]:
        """All models that answer; the job of a tuned one."""
        found: dict[str, Job | None] = dict.fromkeys(BASES)
        for job in self.jobs.values():
            job.tick()
            found.update(dict.fromkeys([*job.checkpoint_models(), *filter(None, [job.tuned])], job))
        return {name: job for name, job in found.items() if name not in self.deleted_models}

    def start(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer a request for a new job."""
        if self.faults.closed:
            return refusal(
                403, "OpenAI is winding down the fine-tuning platform and your organization is no longer able to "
                "create new fine-tuning training jobs.", "invalid_request_error", code="training_not_available",
            )  # fmt: skip
        if body.get("model") not in self.models():
            return refusal(
                400, f"Model {body.get('model')} is not available for fine-tuning or does not exist.",
                code="model_not_available",
            )  # fmt: skip
        for key in ("training_file", "validation_file"):
            if body.get(key) is not None and body[key] not in self.files:
                return refusal(400, f"invalid {key}: {body[key]}", param=key)
        with self.lock:
            job = Job(f"ftjob-{next(self._numbers):024d}", body, self.contents, self)
            if self.faults.no_metadata:
                job.body.pop("metadata", None)
            self.jobs[job.id] = job
            return 200, job.shown()


def refusal(
    status: int, message: str, type: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> tuple[int, dict[str, Any]]:
    """An error as the API sends it."""
    return status, {"error": {"message": message, "type": type, "param": param, "code": code}}


@contextmanager
def serve_openai(service: OpenAI, port: int = 0) -> Iterator[str]:
    """Serve it on a loopback port and give its address, which ends with /v1."""

    class Handler(_Handler):
        pass

    Handler.service = service
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: OpenAI

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        self.take("GET")

    def do_POST(self) -> None:
        self.take("POST")

    def do_DELETE(self) -> None:
        self.take("DELETE")

    def take(self, verb: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlparse(self.path)
        path, query = unquote(url.path).removeprefix("/v1").strip("/"), parse_qs(url.query, keep_blank_values=True)
        faults = self.service.faults
        with self.service.lock:
            self.service.requests.append(f"{verb} /{path}")
            number = len(self.service.requests)
            self.service.hook(number, f"{verb} /{path}", False)
            if faults.down:
                return self.hang_up()
            if faults.dropped > 0:
                faults.dropped -= 1
                return self.hang_up()
            if faults.limited > 0:
                faults.limited -= 1
                said = refusal(429, "Rate limit reached for requests", "requests", code="rate_limit_exceeded")
                return self.send(*said, {"Retry-After": str(faults.retry_after)})
            if faults.broken > 0:
                faults.broken -= 1
                return self.send(*refusal(500, SORRY, "server_error"))
            key = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if not key or key == BAD_KEY:
                shown = f"{key[:3]}****" if key else ""
                said = (
                    f"Incorrect API key provided: {shown}. You can find your API key at "
                    "https://platform.openai.com/account/api-keys."
                )
                return self.send(*refusal(401, said, code="invalid_api_key"))
            self.service.keys.add(key)
            status, answer = self.answer(verb, path.split("/"), query, body)
            self.service.hook(number, f"{verb} /{path}", True)
            if verb != "GET" and faults.lost > 0 and status == 200:
                faults.lost -= 1
                return self.hang_up()
        if answer is not None:
            self.send(status, answer)

    def answer(
        self, verb: str, path: list[str], query: dict[str, list[str]], body: bytes
    ) -> tuple[int, dict[str, Any] | None]:
        match verb, path:
            case "POST", ["files"]:
                fields = _form(self.headers["Content-Type"], body)
                name, content = fields["file"]
                return 200, self.service.add_file(name, fields["purpose"][1].decode(), content)
            case "GET", ["files"]:
                now = time.monotonic()
                wanted = query.get("purpose", [None])[0]
                found = [one for one in self.service.files.values() if one["_listed"] <= now
                         and wanted in (None, one["purpose"])]  # fmt: skip
                return 200, _page([_plain(one) for one in reversed(found)], query, 10_000)
            case "GET" | "DELETE", ["files", id, *rest]:
                return self.file(verb, id, rest)
            case "POST", ["fine_tuning", "jobs"]:
                if self.service.faults.quota:
                    said = "You exceeded your current quota, please check your plan and billing details."
                    return refusal(429, said, "insufficient_quota", code="insufficient_quota")
                return self.service.start(json.loads(body))
            case "GET", ["fine_tuning", "jobs"]:
                wanted = {key[9:-1]: one[0] for key, one in query.items() if key.startswith("metadata[")}
                jobs = [job.shown() for job in reversed(self.service.jobs.values())]
                chosen = [job for job in jobs if wanted.items() <= (job["metadata"] or {}).items()]
                return 200, _page(chosen, query, 20)
            case _, ["fine_tuning", "jobs", id, *rest]:
                return self.job(verb, id, rest, query)
            case "GET", ["models"]:
                return 200, {"object": "list", "data": [_model(name) for name in self.service.models()]}
            case "GET" | "DELETE", ["models", name]:
                if name not in self.service.models():
                    said = f"The model `{name}` does not exist or you do not have access to it."
                    return refusal(404, said, code="model_not_found")
                if verb == "GET":
                    return 200, _model(name)
                self.service.deleted_models.add(name)
                return 200, {"id": name, "object": "model", "deleted": True}
            case "POST", ["chat", "completions"]:
                return self.chat(json.loads(body))
        return refusal(404, f"Invalid URL ({verb} /v1/{'/'.join(path)})")

    def file(self, verb: str, id: str, rest: list[str]) -> tuple[int, dict[str, Any] | None]:
        if id not in self.service.files:
            return refusal(404, f"No such File object: {id}", param="id")
        if rest == ["content"]:
            self.raw(200, self.service.contents[id], "application/octet-stream")
            return 200, None
        if verb == "DELETE":
            del self.service.files[id]
            return 200, {"id": id, "object": "file", "deleted": True}
        return 200, _plain(self.service.files[id])

    def job(
        self, verb: str, id: str, rest: list[str], query: dict[str, list[str]]
    ) -> tuple[int, dict[str, Any] | None]:
        job = self.service.jobs.get(id)
        if job is None:
            return refusal(404, f"Could not find fine tune: {id}", param="fine_tune_id", code="fine_tune_not_found")
        job.tick()
        match verb, rest:
            case "GET", []:
                return 200, job.shown()
            case "GET", ["events"]:
                return 200, _page(job.events[::-1], query, 20)
            case "GET", ["checkpoints"]:
                return 200, _page(job.checkpoints[::-1], query, 10)
            case "POST", ["cancel" | "pause" | "resume" as action]:
                if (said := job.act(action)) is not None:
                    return refusal(400, said)
                return 200, job.shown()
        return refusal(404, f"Invalid URL ({verb})")

    def chat(self, body: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        self.service.asked.append(body)
        models = self.service.models()
        if body["model"] not in models:
            said = f"The model `{body['model']}` does not exist or you do not have access to it."
            return refusal(404, said, code="model_not_found")
        job = models[body["model"]]
        text = job.answer_to(body["messages"]) if job else "I am the base model."
        # A word is a token; where the limit leaves no room for the answer's end, it is cut.
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or 10**9
        ended = len(text.split()) < limit
        text = text if ended else " ".join(text.split()[:limit])
        usage = {"prompt_tokens": 9, "completion_tokens": len(text.split()), "total_tokens": 9 + len(text.split())}
        reason = "stop" if ended else "length"
        head = {"id": "chatcmpl-1", "created": int(time.time()), "model": body["model"]}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
            return 200, {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        pieces = [{"role": "assistant", "content": ""}, *({"content": one} for one in _pieces(text))]
        chunks = [{**head, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": piece,
                   "finish_reason": None}]} for piece in pieces]  # fmt: skip
        end = {"index": 0, "delta": {}, "finish_reason": reason}
        chunks.append({**head, "object": "chat.completion.chunk", "choices": [end]})
        chunks.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
        lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        self.raw(200, lines.encode(), "text/event-stream")
        return 200, None

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def send(self, status: int, values: dict[str, Any] | None, headers: dict[str, str] | None = None) -> None:
        self.raw(status, json.dumps(values).encode(), "application/json", headers)

    def raw(self, status: int, content: bytes, type: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": type, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _page(found: list[dict[str, Any]], query: dict[str, list[str]], usual: int) -> dict[str, Any]:
    """A page of a list, newest first, from behind the object `after`."""
    limit, after = int(query.get("limit", [usual])[0]), query.get("after", [""])[0]
    if after:
        places = [at for at, one in enumerate(found) if one["id"] == after]
        found = found[places[0] + 1 :] if places else []
    shown = found[:limit]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
    return {"object": "list", "data": shown, **ends, "has_more": len(found) > limit}


def _plain(file: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in file.items() if not key.startswith("_")}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1721172741, "owned_by": "system"}


def _pieces(text: str) -> list[str]:
    return [text[at : at + 7] for at in range(0, len(text), 7)]


def _form(kind: str, body: bytes) -> dict[str, tuple[str, bytes]]:
    """The fields of a form, as (file name, content) by name."""
    whole = f"Content-Type: {kind}\r\n\r\n".encode() + body
    parsed = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(whole)
    found = {}
    for part in parsed.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        found[name] = (part.get_filename() or "", part.get_payload(decode=True) or b"")
    return found


def main() -> None:
    """Serve until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--pace", type=float, default=0.5, help="seconds of a step")
    given = parser.parse_args()
    with serve_openai(OpenAI(pace=given.pace, validating=1.0, queued=1.0), given.port) as address:
        print(f"OPENAI_BASE_URL={address}", flush=True)
        threading.Event().wait()


__all__ = ["BASES", "Faults", "OpenAI", "refused_rows", "serve_openai"]

if __name__ == "__main__":
    main()

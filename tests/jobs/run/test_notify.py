"""The end of a job is told to an address: by the supervisor, once, as chat programs take it, and never shown."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from studio.errors import InputError
from studio.jobs import JobFolder, ensure_supervisor, submit, wait
from studio.jobs.run import notify
from studio.jobs.run.supervisor import Supervisor
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.settings import Settings, read_settings

SECRET = "canary-9f8e7d"
WORKER = """
import sys
from studio.jobs.run.worker import run_worker
from studio.errors import InputError

def work(context):
    context.metric(1, {"loss": 1.0, "eval_loss": 0.25}, total_steps=2)
    if context.config["mode"] == "failed":
        raise InputError("row 3 has no answer", where="data.jsonl", fix="Write one")

raise SystemExit(run_worker("train", work))
"""


@dataclass
class Hook:
    """A server that takes posts; it answers with the next of `answers` (or hangs, or sends elsewhere), then 200."""

    answers: list[int | str] = field(default_factory=list)
    got: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    address: str = ""


@contextmanager
def serve(hook: Hook) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            hook.got.append(json.loads(body))
            hook.paths.append(self.path)
            hook.times.append(time.monotonic())
            answer = hook.answers.pop(0) if hook.answers else 200
            if answer == "hang":
                time.sleep(3)
                return
            self.send_response(302 if isinstance(answer, str) else answer)
            if isinstance(answer, str):
                self.send_header("Location", answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/services/{SECRET}?key={SECRET}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "PAUSES", (0.05, 0.05))
    monkeypatch.setattr(notify, "TIMEOUT_SECONDS", 0.5)


def supervised(settings: Settings, tmp_path: Path, mode: str) -> JobFolder:
    """A job done by a supervisor of this process; returns when its threads are done."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    job = create_job(settings.jobs, "train", f"run-{mode}", {"mode": mode})
    supervisor = Supervisor(settings, lambda job: [sys.executable, str(script), str(job.path)])
    end = time.monotonic() + 60
    while supervisor.step() or supervisor._children:
        assert time.monotonic() < end
        time.sleep(0.05)
    for thread in threading.enumerate():
        if thread.name.startswith("webhook-"):
            thread.join(20)
    return job


def test_an_end_is_told_with_what_a_person_and_a_program_want_to_know(settings, tmp_path) -> None:
    write_json_page(settings)
    hook = Hook()
    with serve(hook) as address:
        job = supervised(replace(settings, webhook=address), tmp_path, "failed")
    (told,) = hook.got
    assert told["text"] == told["content"], "Slack reads one, Discord the other"
    assert told["text"].startswith("run-failed failed after ") and "row 3 has no answer" in told["text"]
    wanted = {
        "id": job.id,
        "name": "run-failed",
        "kind": "train",
        "status": "failed",
        "best_eval_loss": 0.25,
        "steps": 1,
    }
    assert told.items() >= wanted.items()
    assert told["reason"] == "data.jsonl: row 3 has no answer" and told["seconds"] >= 0
    assert told["url"] == f"http://127.0.0.1:7860/#tab=training&job={job.id}"
    assert hook.paths == [f"/services/{SECRET}?key={SECRET}"]


def write_json_page(settings: Settings) -> None:
    settings.home.mkdir(parents=True, exist_ok=True)
    write_json(settings.home / notify.PAGE, {"address": "http://127.0.0.1:7860/"})


def test_two_more_attempts_and_one_line_without_the_secret(settings, tmp_path, capfd) -> None:
    hook = Hook(answers=[500, "hang"])
    with serve(hook) as address:
        supervised(replace(settings, webhook=address), tmp_path, "done")
        assert len(hook.got) == 3, "the third was taken"
        assert capfd.readouterr().err == ""
        hook.answers, hook.got = [503, 503, 503, 200], []
        job = supervised(replace(settings, webhook=address), tmp_path, "failed")
        assert len(hook.got) == 3, "no fourth attempt"
        (line,) = capfd.readouterr().err.splitlines()
    server = address.partition("/services")[0]
    assert line.endswith(f"the webhook at {server} was not notified of {job.id}: it answered 503")
    assert SECRET not in line


def test_it_is_not_led_elsewhere(settings, tmp_path, capfd) -> None:
    other, hook = Hook(), Hook()
    with serve(other) as elsewhere, serve(hook) as address:
        hook.answers = [elsewhere] * 3
        supervised(replace(settings, webhook=address), tmp_path, "done")
    assert len(hook.got) == 3 and other.got == [] and "it answered 302" in capfd.readouterr().err


def test_a_server_that_is_away_holds_nothing_up(settings, tmp_path, capfd) -> None:
    with serve(Hook()) as address:
        pass
    began = time.monotonic()
    job = supervised(replace(settings, webhook=address), tmp_path, "done")
    assert job.state().status == "completed" and time.monotonic() - began < 30
    assert "it did not respond (ConnectionRefusedError)" in capfd.readouterr().err


def test_each_end_is_told_once_also_after_another_supervisor_took_over(settings, tmp_path) -> None:
    hook = Hook()
    with serve(hook) as address:
        watched = replace(settings, webhook=address)
        job = supervised(watched, tmp_path, "done")
        Supervisor(watched).step()
        assert len(hook.got) == 1
        # Its supervisor was killed before it could tell: the next one finds the note.
        notify.expect_end(watched, job)
        Supervisor(watched).step()
        for thread in threading.enumerate():
            if thread.name.startswith("webhook-"):
                thread.join(20)
        assert len(hook.got) == 2
        supervised(settings, tmp_path, "failed")
        assert len(hook.got) == 2, "without the setting nobody is told"


@pytest.mark.long
def test_a_real_supervisor_tells_and_keeps_the_secret(home, tmp_path, monkeypatch) -> None:
    """The worker is a real evaluation that fails at once; afterwards no file of the home has the address."""
    hook = Hook()
    with serve(hook) as address:
        monkeypatch.setenv("STUDIO_WEBHOOK", address)
        settings = read_settings()
        assert settings.webhook == address and SECRET not in repr(settings)
        job = submit(settings, "evaluate", "nothing", {"run": "nobody", "data": "demo/test.jsonl"})
        ensure_supervisor(settings)
        assert wait(job, seconds=60).status == "failed"
        end = time.monotonic() + 20
        while not hook.got:
            assert time.monotonic() < end
            time.sleep(0.1)
    assert hook.got[0]["status"] == "failed" and "nobody" in hook.got[0]["reason"]
    for path in home.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    "text",
    [
        "ftp://host/x", "file:///etc/passwd", "host/path", "http://", "javascript:alert(1)", "http://[::1",
        "http://host:abc/x", "http://host:99999/x", "http://host:0/x",
    ],
)  # fmt: skip
def test_only_addresses_that_can_be_posted_to(monkeypatch, text: str) -> None:
    monkeypatch.setenv("STUDIO_WEBHOOK", text)
    with pytest.raises(InputError) as refused:
        read_settings()
    assert refused.value.where == "STUDIO_WEBHOOK" and text not in refused.value.what


def test_the_worker_does_not_get_the_address(settings, tmp_path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("import os, sys; print(repr(os.environ['STUDIO_WEBHOOK'])); sys.exit(3)")
    job = create_job(settings.jobs, "train", "env", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_WEBHOOK", f"http://127.0.0.1:9/{SECRET}")
        supervisor = Supervisor(settings, lambda job: [sys.executable, str(script)])
        end = time.monotonic() + 60
        while supervisor.step():
            assert time.monotonic() < end
            time.sleep(0.05)
    assert job.log_path.read_text() == "''\n"

"""An event log with anything in it: readers go on, say so once, and show the rest."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import settings as few
from hypothesis import strategies as st

from studio.cli.jobs import watch
from studio.cli.main import main
from studio.errors import InputError
from studio.jobs import JobState, Summaries, read_events
from studio.jobs.run.supervisor import Supervisor
from studio.jobs.store.events import LINE_BYTES, UNREADABLE, EventWriter
from studio.jobs.store.folder import JobFolder, create_job
from studio.jobs.store.state import own_identity, write_state
from studio.settings import Settings
from studio.ui.routes.answers import Json
from studio.ui.routes.api import make_router
from studio.ui.routes.runlist import RunBook, state_dict, summary_dict
from studio.ui.server.services import Services

KINDS = ("phase", "metric", "sample", "notice", "result", "resume", "done", "surprise")
FIELDS = (
    "seq", "time", "step", "total_steps", "epoch", "epochs", "tokens", "elapsed", "eta", "done", "total", "memory_gb",
    "phase", "state", "unit", "level", "text", "fix", "status", "reason", "values", "name", "rewards", "prompt",
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
STRANGE = st.fixed_dictionaries({"kind": st.sampled_from(KINDS)}, optional=dict.fromkeys(FIELDS, ANYTHING))
GARBAGE = [
    b"\xff\xfe\x00 binary \x80\x81",
    '{"seq": 3, "kind": "notice", "text": "\u00e4'.encode()[:-1],  # half a letter
    b"\0" * 5000,  # what a file system leaves after a power cut
    b"[1, 2]",
    b"null",
    b"12",
    b'{"seq": 3, "kind": ["metric"], "step": 1, "values": {}}',
    b'{"seq": "three", "kind": "metric", "step": 1, "values": {}}',
    b'{"seq": null, "kind": "notice", "text": "x"}',
    b'{"seq": 3, "time": "noon", "kind": "notice", "text": "x"}',
    b'{"seq": 3, "kind": "metric", "step": "one", "values": {"loss": 1.0}}',
    b'{"seq": 3, "kind": "metric", "step": 1, "values": [1]}',
    b'{"seq": 3, "kind": "metric", "step": 1, "values": {"loss": "much"}}',
    b'{"seq": 3, "kind": "metric", "step": 1, "values": {"loss": {}}}',
    b'{"seq": 3, "kind": "metric", "step": 1, "eta": "soon", "values": {"loss": 1.0}}',
    b'{"seq": 3, "kind": "metric", "step": 1e999, "values": {"loss": 1.0}}',
    b'{"seq": 3, "kind": "metric", "values": {"loss": 1.0}}',
    b'{"seq": 3, "kind": "phase", "phase": 7}',
    b'{"seq": 3, "kind": "phase", "phase": "x", "done": "half"}',
    b'{"seq": 3, "kind": "phase", "phase": "x", "memory_gb": "much"}',
    b'{"seq": 3, "kind": "resume"}',
    b'{"seq": 3, "kind": "result", "name": ["x"], "values": {}}',
    b'{"seq": 3, "kind": "result", "name": "x"}',
    b'{"seq": 3, "kind": "notice", "text": {"a": 1}}',
    b'{"seq": 99999999999999999999999999, "kind": "notice", "text": "x"}',
    b"[" * 100_000,
]


def metric(number: int) -> bytes:
    values = {"loss": 1.0 / number, "eval_loss": 2.0 / number}
    event = {"seq": number, "time": 1e9, "kind": "metric", "step": number, "total_steps": 9, "values": values}
    return json.dumps(event).encode() + b"\n"


def job_with(home: Settings, content: bytes) -> JobFolder:
    job = create_job(home.jobs, "train", "strange", {})
    write_state(job.state_path, JobState(status="running", started=time.time()))
    job.events_path.write_bytes(content)
    return job


def shown(events: list[dict[str, Any]]) -> None:
    """Both views of the command line take the events in."""
    for view in (watch._Lines(), watch._Bars()):
        with view:
            for event in events:
                view.show(event)


@pytest.mark.parametrize("line", GARBAGE, ids=lambda line: line[:40].decode(errors="replace"))
def test_garbage_is_one_notice_and_hides_nothing(settings: Settings, line: bytes) -> None:
    job = job_with(settings, metric(1) + line + b"\n" + metric(2) + line + b"\n" + line + b"\n" + metric(3))
    events, _ = read_events(job.events_path, 0, 10**7)
    assert [event["step"] for event in events if event["kind"] == "metric"] == [1, 2, 3]
    assert {event["text"] for event in events if event["kind"] == "notice"} == {UNREADABLE}
    summary = Summaries().of(job)
    assert (summary.step, summary.best, len(summary.notices)) == (3, (2 / 3, 3), 1)
    (row,) = RunBook(settings, Summaries()).rows()
    assert (row["word"], row["best"]) == ("step 3 of 9", 2 / 3)
    shown(events)
    writer = EventWriter(job.events_path)
    assert writer.write("metric", step=4, values={})["seq"] == 4
    writer.close()


@few(max_examples=150, deadline=None)
@given(lines=st.lists(STRANGE | ANYTHING, max_size=8), cut=st.integers(0, 30))
def test_no_reader_breaks_on_anything(lines: list[Any], cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "events.jsonl"
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(text[: len(text) - cut] + "\n")
    events, end = read_events(path, 0, 10**6)
    assert end == path.stat().st_size and len(events) >= len(lines) - cut - 1
    summary = Summaries().of(JobFolder(path.parent))
    json.loads(bytes(Json({"events": events, "summary": summary_dict(summary)}).body))
    shown(events)


BAD_REQUESTS = [
    b"kind: train\nname: x\nconfig:\n", b"kind: train\nname: x\nconfig: [1]\n", b"kind: foo\nname: x\nconfig: {}\n",
    b"kind: train\nname: x\nconfig:\n  method: sft\n", b"kind: train\nname: x\nconfig:\n  model:\n",
    b"kind: train\nname:\nconfig: {}\n", b"kind: train\nname: x\nbranch: {run: a}\nconfig: {}\n", b"hello\n",
    b"kind: [train]\nname: x\nconfig: {}\n", b"kind: train\nname: x\nbranch: [1]\nconfig: {}\n", b"a: [\n",
]  # fmt: skip


@pytest.mark.parametrize("content", BAD_REQUESTS)
@pytest.mark.parametrize("status", ["queued", "completed"])
def test_a_request_that_is_none_takes_down_no_list(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes, status: Any
) -> None:
    damaged, sound = job_with(settings, metric(1)), job_with(settings, metric(2))
    (damaged.path / "job.yaml").write_bytes(content)
    write_state(damaged.state_path, JobState(status=status))
    write_state(sound.state_path, JobState(status="queued"))
    with pytest.raises(InputError, match=r"job\.yaml cannot be read"):
        _ = JobFolder(damaged.path).request
    app = FastAPI()
    services = Services(settings=settings, summaries=Summaries(), data=None, chats=None)  # type: ignore[arg-type]
    app.include_router(make_router(services))
    page = TestClient(app)
    for path in ("", f"/{damaged.id}", f"/{damaged.id}/events"):
        assert page.get(f"/api/jobs{path}").status_code == 200, path
    assert main(["jobs", "list", "--json"]) == 0
    assert {row["id"] for row in json.loads(capsys.readouterr().out)["jobs"]} == {damaged.id, sound.id}
    supervisor = Supervisor(settings, lambda job: [*(["true"] if job.request.kind else [])])
    end = time.monotonic() + 20
    while supervisor.step() and time.monotonic() < end:
        time.sleep(0.02)
    assert sound.state().final
    assert damaged.state().status == ("failed" if status == "queued" else status)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"null"])
def test_a_stop_that_cannot_be_read_stops_gently(settings: Settings, content: bytes) -> None:
    job = job_with(settings, metric(1))
    pid, start = own_identity()
    write_state(job.state_path, job.state().with_(pid=pid, process_start=start))
    job.stop_path.write_bytes(content)
    assert Supervisor(settings).step(), "and it did not end this process"
    shown_state = state_dict(job, job.state())
    assert (shown_state["stop_asked"], shown_state["stop_now"]) == (True, False)


@pytest.mark.parametrize(
    "fields",
    [{"created": "x"}, {"created": None}, {"change": [1]}, {"reason": None}, {"line": "x"}, {"attempt": "2"},
     {"pid": "abc"}, {"finished": "a"}, {"device": ["x"]}, {"log_start": "0"}],
)  # fmt: skip
def test_a_state_with_other_types_is_a_damaged_one(settings: Settings, fields: dict[str, Any]) -> None:
    job = job_with(settings, metric(1))
    job.state_path.write_text(json.dumps({"status": "running", "created": 1.0, **fields}))
    assert (job.state().status, job.state().created) == ("lost", 0.0) and "damaged" in job.state().reason
    assert main(["jobs", "list"]) == 0


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b"[]", b"{}", b'{"status": 5}', b"\xff", b"{"])
@pytest.mark.parametrize("name", ["state.json", "environment.json", "job.yaml"])
def test_a_damaged_file_of_one_job_hides_no_other(settings: Settings, name: str, content: bytes) -> None:
    damaged, sound = job_with(settings, metric(1)), job_with(settings, metric(2))
    (damaged.path / name).write_bytes(content)
    rows = {row["id"]: row for row in RunBook(settings, Summaries()).rows()}
    assert rows[sound.id]["name"] == "strange" and rows[sound.id]["status"] == "running"
    assert rows[damaged.id]["status"] == ("lost" if name == "state.json" else "running")
    assert isinstance(JobFolder(damaged.path).environment(), dict)
    assert Supervisor(settings).step() and sound.state().status == "running"


def test_another_users_job_hides_no_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, sound = job_with(settings, metric(1)), job_with(settings, metric(2))
    opening = os.open

    def refusing(path: Any, *args: Any, **more: Any) -> int:
        """As the system does for a folder that only its owner may look into."""
        if isinstance(more.get("dir_fd"), int) and theirs.path == Path(f"/proc/self/fd/{more['dir_fd']}").readlink():
            raise PermissionError(13, "Permission denied", str(path))
        return opening(path, *args, **more)

    asking = os.access
    monkeypatch.setattr(os, "open", refusing)
    monkeypatch.setattr(os, "access", lambda path, mode: theirs.id not in Path(path).parts and asking(path, mode))
    assert (theirs.state().status, theirs.environment()) == ("lost", {}) and "may not be read" in theirs.state().reason
    assert read_events(theirs.events_path) == ([], 0)
    assert main(["jobs", "list", "--json"]) == 0
    assert {row["id"] for row in json.loads(capsys.readouterr().out)["jobs"]} == {theirs.id, sound.id}
    rows = {row["id"]: row["status"] for row in RunBook(settings, Summaries()).rows()}
    assert rows == {theirs.id: "lost", sound.id: "running"}
    assert main(["jobs", "show", theirs.id]) == 2 and "job.yaml cannot be read" in capsys.readouterr().err
    assert Supervisor(settings).step() and sound.state().status == "running"


def test_a_torn_last_line_waits(settings: Settings) -> None:
    job = job_with(settings, metric(1) + metric(2)[:-20])
    summaries = Summaries()
    assert summaries.of(job).step == 1 and summaries.of(job).notices == []
    with job.events_path.open("ab") as file:
        file.write(metric(2)[-20:])
    assert summaries.of(job).step == 2 and summaries.of(job).notices == []


def test_a_line_of_ten_megabytes_is_no_event(settings: Settings) -> None:
    line = json.dumps({"seq": 2, "kind": "notice", "text": "x" * 10_000_000}).encode()
    job = job_with(settings, metric(1) + line)
    offset, pages = 0, []
    for _ in range(30):
        events, offset = read_events(job.events_path, offset)
        pages.append(events)
    assert job.events_path.stat().st_size - offset < LINE_BYTES  # its rest waits for the end, which is soon read again
    with job.events_path.open("ab") as file:
        file.write(b"\n" + metric(3))
    events, offset = read_events(job.events_path, offset, 10**8)
    assert [event["kind"] for event in events] == ["notice", "metric"] and events[1]["step"] == 3
    assert offset == job.events_path.stat().st_size
    summary = Summaries().of(job)
    assert (summary.step, len(summary.notices)) == (3, 1)
    assert len(json.dumps(pages)) < 10_000


def test_a_file_that_got_shorter_is_read_again(settings: Settings) -> None:
    job = job_with(settings, metric(1) + metric(2))
    summaries = Summaries()
    assert summaries.of(job).step == 2
    job.events_path.write_bytes(metric(1))
    assert summaries.of(job).step == 1


def test_text_that_is_no_text_is_written_nevertheless(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.touch()
    writer = EventWriter(path)
    writer.write("notice", text="a file named \udcff", level="info", fix="")
    writer.close()
    (event,) = read_events(path)[0]
    assert event["text"] == "a file named ?"

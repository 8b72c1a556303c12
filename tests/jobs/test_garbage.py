"""An event log with anything in it: readers go on, say so once, and show the rest."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as few
from hypothesis import strategies as st

from studio.cli import watch
from studio.jobs import JobState, Summaries, read_events
from studio.jobs.events import LINE_BYTES, UNREADABLE, EventWriter
from studio.jobs.folder import JobFolder, create_job
from studio.jobs.state import write_state
from studio.jobs.supervisor import Supervisor
from studio.settings import Settings
from studio.ui.api import Json
from studio.ui.runlist import RunBook, summary_dict

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

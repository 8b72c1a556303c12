"""Our own routes, over job folders written with the same API that workers use."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from studio.config import RunConfig
from studio.jobs import JobFolder
from studio.jobs.store.events import EventWriter
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.settings import Settings

SPARSE_BYTES = 5 * 1000**3
HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} \u2028"


def make_job(settings: Settings, name: str = "demo", kind: Any = "train", status: Any = "running") -> JobFolder:
    config = RunConfig().model_dump(mode="json") if kind == "train" else {"run": "demo"}
    job = create_job(settings.jobs, kind, name, config)
    write_state(job.state_path, JobState(status=status, started=time.time()))
    return job


def test_jobs_list_tells_what_a_person_looks_for(page: TestClient, settings: Settings) -> None:
    assert page.get("/api/jobs").json() == []
    job = make_job(settings)
    first, second = (make_job(settings, name, status="queued") for name in ("first", "second"))
    writer = EventWriter(job.events_path)
    values = {"loss": 1.5, "eval_loss": 0.5}
    writer.write("metric", step=4, total_steps=10, tokens=400, elapsed=2.0, eta=3.0, passed=1.0, values=values)
    rows = {row["id"]: row for row in page.get("/api/jobs").json()}
    row = rows[job.id]
    assert (row["line"], row["word"]) == ("LoRA · SFT", "step 4 of 10")
    assert (row["best"], row["best_step"], row["share"], row["left"]) == (0.5, 4, 0.4, 3.0)
    assert rows[first.id]["word"] == "waiting, next in line"
    assert rows[second.id]["word"] == "waiting, 2nd in line"
    writer.write("metric", step=5, total_steps=10, tokens=500, elapsed=2.5, values={"loss": 1.2})
    assert {row["id"]: row for row in page.get("/api/jobs").json()}[job.id]["step"] == 5


def test_a_broken_job_hides_no_other(page: TestClient, settings: Settings) -> None:
    good, bad = make_job(settings), make_job(settings, "bad")
    (bad.path / "job.yaml").write_text("nonsense")
    bad.events_path.write_text('{"kind": "phase"}\n[1]\nhalf a li')
    rows = {row["id"]: row for row in page.get("/api/jobs").json()}
    assert rows[good.id]["name"] == "demo" and rows[bad.id]["name"] == bad.id
    assert page.get(f"/api/jobs/{bad.id}/events").status_code == 200


def test_events_are_paged_by_byte_offset(page: TestClient, settings: Settings) -> None:
    job = make_job(settings)
    writer = EventWriter(job.events_path)
    for step in range(1, 5001):
        writer.write("metric", step=step, total_steps=5000, values={"loss": 1.0}, filler="x" * 150)
    seen: list[int] = []
    after, more, pages = 0, True, 0
    while more:
        answer = page.get(f"/api/jobs/{job.id}/events", params={"after": after}).json()
        seen += [event["step"] for event in answer["events"]]
        after, more, pages = answer["next"], answer["more"], pages + 1
    assert seen == list(range(1, 5001)) and pages > 1
    assert after == job.events_path.stat().st_size
    answer = page.get(f"/api/jobs/{job.id}/events", params={"after": after}).json()
    assert answer["events"] == [] and answer["summary"]["step"] == 5000 and answer["state"]["status"] == "running"
    writer.write("metric", step=5001, total_steps=5001, values={"loss": float(1)})
    answer = page.get(f"/api/jobs/{job.id}/events", params={"after": after}).json()
    assert [event["step"] for event in answer["events"]] == [5001]


def test_half_a_line_waits_for_its_end(page: TestClient, settings: Settings) -> None:
    job = make_job(settings)
    whole = '{"seq": 1, "time": 0, "kind": "notice", "level": "info", "text": "a", "fix": ""}\n'
    job.events_path.write_text(f'{whole}{{"seq": 2, ')
    answer = page.get(f"/api/jobs/{job.id}/events").json()
    assert [event["seq"] for event in answer["events"]] == [1]
    again = page.get(f"/api/jobs/{job.id}/events", params={"after": answer["next"]}).json()
    assert (again["events"], again["next"], again["more"]) == ([], answer["next"], False)
    with job.events_path.open("a") as file:
        file.write('"kind": "notice", "level": "info", "text": "b", "fix": ""}\n')
    assert page.get(f"/api/jobs/{job.id}/events", params={"after": again["next"]}).json()["events"][0]["text"] == "b"


def test_nan_is_valid_json(page: TestClient, settings: Settings) -> None:
    job = make_job(settings)
    job.events_path.write_text('{"seq": 1, "time": 0, "kind": "metric", "step": 1, "values": {"loss": NaN}}\n')
    answer = page.get(f"/api/jobs/{job.id}/events")
    loss = json.loads(answer.text, parse_constant=lambda name: pytest.fail(name))["events"][0]["values"]["loss"]
    assert loss == "nan"


def test_log_by_offset_and_only_the_end_of_a_long_one(page: TestClient, settings: Settings) -> None:
    job = make_job(settings)
    assert page.get(f"/api/jobs/{job.id}/log").json()["lines"] == []
    job.log_path.write_bytes(f"{HOSTILE}\n".encode() + b"\xff not utf-8\nhalf")
    answer = page.get(f"/api/jobs/{job.id}/log").json()
    assert answer["lines"][0] == HOSTILE and len(answer["lines"]) == 2
    assert page.get(f"/api/jobs/{job.id}/log", params={"after": answer["next"]}).json()["lines"] == []
    job.log_path.write_text("".join(f"line {number}\n" for number in range(100_000)))
    answer = page.get(f"/api/jobs/{job.id}/log").json()
    assert answer["skipped"] is True and answer["lines"][-1] == "line 99999" and answer["lines"][0].startswith("line ")


def test_each_rank_has_its_log(page: TestClient, settings: Settings, tmp_path: Path) -> None:
    job = make_job(settings)
    assert page.get(f"/api/jobs/{job.id}").json()["ranks"] == [0]
    (job.path / "ranks").mkdir()
    (job.path / "ranks" / "rank-1.log").write_text("of the second\n")
    job.log_path.write_text("of the first\n")
    about = page.get(f"/api/jobs/{job.id}").json()
    assert about["ranks"] == [0, 1] and {"log.txt", "rank-1.log"} <= {file["name"] for file in about["files"]}
    lines = [page.get(f"/api/jobs/{job.id}/log", params={"rank": rank}).json()["lines"] for rank in (0, 1)]
    assert lines == [["of the first"], ["of the second"]]
    assert page.get(f"/api/jobs/{job.id}/files/rank-1.log").text == "of the second\n"
    assert page.get(f"/api/jobs/{job.id}/log", params={"rank": 2}).status_code == 404
    (job.path / "ranks").rename(tmp_path / "elsewhere")
    (job.path / "ranks").symlink_to(tmp_path / "elsewhere")
    assert page.get(f"/api/jobs/{job.id}").json()["ranks"] == [0]
    assert page.get(f"/api/jobs/{job.id}/log", params={"rank": 1}).status_code == 404


def test_answers_are_json_that_no_browser_reads_as_a_page(page: TestClient, settings: Settings) -> None:
    job = make_job(settings, "x")
    EventWriter(job.events_path).write("notice", level="warning", text=HOSTILE, fix="")
    answer = page.get(f"/api/jobs/{job.id}/events")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["events"][0]["text"] == HOSTILE


def test_download_of_a_huge_file_is_not_copied(page: TestClient, settings: Settings) -> None:
    job = make_job(settings, kind="export", status="completed")
    job.exports.mkdir()
    with (job.exports / "demo-f16.gguf").open("wb") as file:
        file.write(b"GGUF")
        file.truncate(SPARSE_BYTES)
    began = time.monotonic()
    address = f"/api/jobs/{job.id}/files/demo-f16.gguf"
    part = page.get(address, headers={"range": "bytes=0-3"})
    assert part.status_code == 206 and part.content == b"GGUF"
    assert part.headers["content-range"] == f"bytes 0-3/{SPARSE_BYTES}"
    assert part.headers["content-disposition"].startswith("attachment")
    assert page.get(address, headers={"range": f"bytes={SPARSE_BYTES - 2}-"}).content == b"\0\0"
    assert time.monotonic() - began < 2
    files = {file["name"]: file for file in page.get(f"/api/jobs/{job.id}").json()["files"]}
    assert files["demo-f16.gguf"]["bytes"] == SPARSE_BYTES and files["demo-f16.gguf"]["url"] == address


@pytest.mark.parametrize(
    "path",
    [
        "{id}/files/job.yaml", "{id}/files/state.json", "{id}/files/..%2Fstate.json", "{id}/files/../state.json",
        "{id}/files/secret.txt", "{id}/files/%2Fetc%2Fpasswd", "{id}/files/exports", "..%2F..%2Fetc/files/passwd",
        "../secret/events", "%2e%2e/log", "./events", "{id}%00/events", "none/events", "none/log",
    ],
)  # fmt: skip
def test_tricks_with_paths_find_nothing(page: TestClient, settings: Settings, path: str) -> None:
    job = make_job(settings, kind="export")
    job.exports.mkdir()
    secret = settings.home / "secret.txt"
    secret.write_text("secret")
    (job.exports / "secret.txt").symlink_to(secret)
    (job.exports / "folder").mkdir()
    assert page.get("/api/jobs/" + path.format(id=job.id)).status_code in (404, 422)


def test_stop_only_by_post_with_json(page: TestClient, settings: Settings) -> None:
    job = make_job(settings)
    address = f"/api/jobs/{job.id}/stop"
    assert page.get(address).status_code == 405
    assert page.post(address, content=b'{"now": true}', headers={"content-type": "text/plain"}).status_code == 422
    assert not job.stop_path.exists()
    assert page.post(address, json={"now": False}).json()["stop_asked"] is True
    assert json.loads(job.stop_path.read_text())["now"] is False
    assert page.post(address, json={"now": True}).json()["stop_now"] is True
    assert page.post("/api/jobs/none/stop", json={}).status_code == 404


def test_assets_are_those_of_the_list_only(page: TestClient) -> None:
    for name in ("core/look.css", "training/monitor.js", "plotly.min.js", "core/icon.svg"):
        answer = page.get(f"/studio/{name}")
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    for name in (
        "make_demo.py",
        "demo",
        "..%2Fapp.py",
        "%2e%2e%2fapp.py",
        "demo/make_demo.py",
        "core/..%2f..%2fapp.py",
        "session/signin.html",
        "core",
    ):
        assert page.get(f"/studio/{name}").status_code == 404


def test_polling_many_jobs_is_cheap(page: TestClient, settings: Settings, tmp_path: Path) -> None:
    for number in range(60):
        job = make_job(settings, f"job-{number}", status="completed")
        EventWriter(job.events_path).write("metric", step=1, total_steps=1, values={"loss": 1.0, "eval_loss": 1.0})
    page.get("/api/jobs")
    began = time.process_time()
    for _ in range(10):
        page.get("/api/jobs")
    assert (time.process_time() - began) / 10 < 0.1

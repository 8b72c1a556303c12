"""Many viewers of one live run: each asks as the page does, and the web process stays small."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from studio.config import RunConfig
from studio.jobs.store.events import EventWriter
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, own_identity, write_state

if TYPE_CHECKING:
    from tests.browser.conftest import Server

STEPS = 500  # made before the viewers come
CORE, BYTES = 0.60, 400e6


class Viewer(threading.Thread):
    """One open page: the list, the events and the log of a run, once a second over one connection."""

    def __init__(self, port: int, job: str, begin: float, end: float) -> None:
        super().__init__(daemon=True)
        self.port, self.job, self.begin, self.end = port, job, begin, end
        self.version, self.after, self.log, self.step, self.answers = "", 0, 0, 0, 0
        self.slowest = 0.0
        self.failures: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        time.sleep(max(0.0, self.begin - time.monotonic()))
        try:
            while (began := time.monotonic()) < self.end:
                self.look(connection)
                self.slowest = max(self.slowest, time.monotonic() - began)
                time.sleep(max(0.0, began + 1 - time.monotonic()))
        except Exception as error:
            self.failures.append(repr(error))

    def look(self, connection: http.client.HTTPConnection) -> None:
        self.version = self.get(connection, f"/api/jobs?after={self.version}")["version"]
        more = True
        while more:
            news = self.get(connection, f"/api/jobs/{self.job}/events?after={self.after}")
            self.after, more = news["next"], news["more"]
            self.step = max([self.step, *(event["step"] for event in news["events"] if event["kind"] == "metric")])
        self.log = self.get(connection, f"/api/jobs/{self.job}/log?after={self.log}")["next"]

    def get(self, connection: http.client.HTTPConnection, path: str) -> Any:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        self.answers += 1
        return json.loads(body)


def watch(server: Server, viewers: int, seconds: float) -> tuple[float, int, list[Viewer], int]:
    """Returns share of a core, resident bytes, the viewers, and the last step that was made."""
    job = create_job(server.home / "made", "train", "watched", RunConfig().model_dump(mode="json"))
    pid, start = own_identity()
    write_state(job.state_path, JobState(status="running", pid=pid, process_start=start, started=time.time()))
    (server.home / "jobs").mkdir(exist_ok=True)
    job = type(job)(job.path.rename(server.home / "jobs" / job.id))
    events, step = EventWriter(job.events_path), 0

    def train() -> None:
        nonlocal step
        step += 1
        events.write(
            "metric", step=step, total_steps=10_000, epoch=0.1, tokens=600 * step, elapsed=1.0 * step, eta=5.0,
            values={"loss": 1.0 / step, "learning_rate": 1e-3, "grad_norm": 1.0, "tokens_per_second": 600.0},
        )  # fmt: skip
        events.write("phase", phase="training", state="progress", done=step, total=10_000, unit="steps")
        with job.log_path.open("a") as log:
            log.write(f"12:00:00  training {step}\n")

    for _ in range(STEPS):
        train()
    assert server.process is not None
    web = psutil.Process(server.process.pid)
    begin = time.monotonic() + 1
    crowd = [Viewer(server.port, job.id, begin + number / viewers, begin + seconds) for number in range(viewers)]
    for viewer in crowd:
        viewer.start()
    time.sleep(max(0.0, begin + 2 - time.monotonic()))  # the first look reads everything
    before, since = web.cpu_times(), time.monotonic()
    while time.monotonic() < begin + seconds - 1:
        train()
        time.sleep(1)
    after, wall = web.cpu_times(), time.monotonic() - since
    memory = web.memory_info().rss
    for viewer in crowd:
        viewer.join(30)
    write_state(job.state_path, job.state().with_(status="completed", finished=time.time()))
    return (after.user + after.system - before.user - before.system) / wall, memory, crowd, step


def check(server: Server, viewers: int, seconds: float, core: float) -> None:
    share, memory, crowd, step = watch(server, viewers, seconds)
    asked = sum(viewer.answers for viewer in crowd) / seconds
    slowest = max(viewer.slowest for viewer in crowd)
    print(f"\n{viewers} viewers: {share:.0%} of a core, {memory / 1e6:.0f} MB, {asked:.0f} answers/s, {slowest:.2f} s")
    assert [failure for viewer in crowd for failure in viewer.failures] == []
    assert all(viewer.step >= step - 2 for viewer in crowd)
    assert memory <= BYTES
    assert share <= core


@pytest.mark.long
def test_twenty_five_viewers(serve: Callable[[Path], Server], tmp_path: Path) -> None:
    check(serve(tmp_path / "home"), 25, 6, CORE)


@pytest.mark.faults
def test_a_hundred_viewers(serve: Callable[[Path], Server], tmp_path: Path) -> None:
    check(serve(tmp_path / "home"), 100, 25, CORE)

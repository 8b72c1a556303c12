"""Which rank hangs: the one that is not in a wait for others, told by where it stands; and nobody while one works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio.jobs.store.events import EventWriter
from studio.train.ranks import hanging
from studio.train.ranks.ends import FOLDER, log_of
from studio.train.ranks.hanging import WATCHED, Watch

PROGRAM = """\
import faulthandler, signal, sys, time
faulthandler.register(signal.SIGUSR1, all_threads=True)
print("it begins", flush=True)
def {name}():
    end = time.monotonic() + {busy}
    while time.monotonic() < end: pass
    time.sleep(60)
{name}()
"""
Ranks = Callable[..., list[subprocess.Popen[bytes]]]


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ranks]:
    """Start processes that stand for ranks: each is (folder of its code, function that it stands in, busy seconds)."""
    monkeypatch.setattr(hanging, "IDLE_SECONDS", 1.0)
    monkeypatch.setattr(hanging, "LOOK_SECONDS", 0.2)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / WATCHED).touch()
    started: list[subprocess.Popen[bytes]] = []

    def start(*kinds: tuple[str, str, float]) -> list[subprocess.Popen[bytes]]:
        for number, (folder, name, busy) in enumerate(kinds):
            file = tmp_path / folder / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(PROGRAM.format(name=name, busy=busy))
            with log_of(tmp_path, number).open("wb") as log:
                environment = {**os.environ, "RANK": str(number)}
                started.append(subprocess.Popen([sys.executable, file], stdout=log, stderr=log, env=environment))
        while not all(log_of(tmp_path, number).stat().st_size for number in range(len(kinds))):
            time.sleep(0.02)
        return started

    yield start
    for process in started:
        process.kill()
        process.wait()


def watched(job: Path, count: int, seconds: float) -> str:
    """What a watch says within some seconds, "" if nothing."""
    watch = Watch(job, count)
    watch.start()
    watch.join(seconds)
    watch._over.set()
    watch.join()
    return "" if watch.found is None else watch.found.what


def test_the_rank_that_waits_for_nobody_is_named_with_its_place(tmp_path: Path, ranks: Ranks) -> None:
    first, second = ranks(("torch/distributed", "all_reduce", 0), ("code", "score", 0))
    said = watched(tmp_path, 2, 8.0)
    assert said.startswith("rank 1 has done nothing for 1 s, in score (") and "code/score.py, line 7)" in said, said
    assert second.wait(5) == -signal.SIGKILL and first.poll() is None


def test_a_suspended_rank_is_named(tmp_path: Path, ranks: Ranks) -> None:
    ranks(("torch/distributed", "all_reduce", 0), ("torch/distributed", "barrier", 0))[0].send_signal(signal.SIGSTOP)
    assert "rank 0 has done nothing for 1 s and does not respond" in watched(tmp_path, 2, 8.0)


def test_a_tracker_that_waits_for_its_network_is_left_alone(tmp_path: Path, ranks: Ranks) -> None:
    first, second = ranks(("studio/train/loop/trackers", "begin", 0), ("torch/distributed", "all_reduce", 0))
    assert watched(tmp_path, 2, 3.0) == ""
    assert first.poll() is None and second.poll() is None


def steps_took(job: Path, seconds: float, count: int = 5) -> None:
    """Events of steps that took so long."""
    writer = EventWriter(job / "events.jsonl")
    for step in range(count):
        writer.write("metric", step=step + 1, values={}, passed=seconds * step)
    writer.close()


def test_a_rank_that_computes_without_an_end_is_named_with_its_place(
    tmp_path: Path, ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hanging, "ENDLESS_SECONDS", 1.5)
    monkeypatch.setattr(hanging, "AGAIN_SECONDS", 0.5)
    steps_took(tmp_path, 0.01)
    first, second = ranks(("torch/distributed", "all_reduce", 0), ("code", "training_step", 60))
    said = watched(tmp_path, 2, 12.0)
    assert said.startswith("rank 1 is stuck computing in training_step (") and "line 6)" in said, said
    assert second.wait(5) == -signal.SIGKILL and first.poll() is None


@pytest.mark.parametrize(
    ("name", "seconds", "count"),
    [("save_model", 0.01, 5), ("training_step", 10.0, 5), ("training_step", 0.01, 3)],
    ids=["not-in-a-step", "steps-take-long", "few-steps"],
)
def test_who_computes_long_for_a_reason_is_left_alone(
    tmp_path: Path, ranks: Ranks, monkeypatch: pytest.MonkeyPatch, name: str, seconds: float, count: int
) -> None:
    monkeypatch.setattr(hanging, "ENDLESS_SECONDS", 1.2)
    monkeypatch.setattr(hanging, "AGAIN_SECONDS", 0.3)
    steps_took(tmp_path, seconds, count)
    first, second = ranks(("torch/distributed", "all_reduce", 0), ("code", name, 60))
    assert watched(tmp_path, 2, 3.5) == ""
    assert first.poll() is None and second.poll() is None


class Elsewhere:
    """Other machines, whose ranks wait, or do not."""

    def __init__(self, seconds: float) -> None:
        self.still, self.seconds = 0.0, seconds

    def others_still(self) -> float:
        return self.seconds


@pytest.mark.parametrize(("seconds", "named"), [(5.0, True), (0.0, False)])
def test_a_rank_that_waits_for_nobody_is_named_once_other_machines_wait(
    tmp_path: Path, ranks: Ranks, seconds: float, named: bool
) -> None:
    ranks(("code", "score", 0))
    watch = Watch(tmp_path, 1, Elsewhere(seconds))
    watch.start()
    watch.join(4.0)
    watch._over.set()
    watch.join()
    assert (watch.found is not None and watch.found.what.startswith("rank 0 has done nothing")) is named


def test_a_machine_whose_ranks_wait_says_so(tmp_path: Path, ranks: Ranks) -> None:
    ranks(("torch/distributed", "all_reduce", 0))
    others = Elsewhere(5.0)
    watch = Watch(tmp_path, 1, others)
    watch.start()
    watch.join(4.0)
    still = others.still
    watch._over.set()
    watch.join()
    assert watch.found is None and still > 1.0


def test_nobody_hangs_while_one_computes_or_before_all_compute(tmp_path: Path, ranks: Ranks) -> None:
    ranks(("torch/distributed", "all_reduce", 0), ("code", "score", 20))
    assert watched(tmp_path, 2, 2.5) == ""

"""The line of waiting jobs: its order, changes while a job waits, and a supervisor that starts jobs meanwhile."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.errors import InputError
from studio.jobs import JobFolder, list_jobs
from studio.jobs.actions.queue import move, queue_lock, rewrite, waiting
from studio.jobs.run.devices import Device
from studio.jobs.run.supervisor import Supervisor
from studio.jobs.store.folder import create_job, free_name
from studio.jobs.store.state import write_state
from studio.settings import Settings

# What a worker of these tests leaves: the device that it was given, and the settings with which it began.
WORKER = "import os, shutil, sys, time\nos.chdir(sys.argv[1])\nshutil.copy('job.yaml', 'seen.yaml')\n" + (
    "open('gpu', 'w').write(os.environ.get('CUDA_VISIBLE_DEVICES', 'all'))\ntime.sleep({seconds})\n"
)


def command(seconds: float) -> Callable[[JobFolder], list[str]]:
    return lambda job: [sys.executable, "-S", "-c", WORKER.format(seconds=seconds), str(job.path)]


def make(settings: Settings, name: str, device: str = "any") -> JobFolder:
    return create_job(settings.jobs, "train", name, {"training": {"device": device, "epochs": 0}})


def names(settings: Settings) -> list[str]:
    return [job.request.name for job in waiting(settings)]


def run_until(supervisor: Supervisor, condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        supervisor.step()
        time.sleep(0.02)


def begun(job: JobFolder) -> bool:
    return (job.path / "gpu").exists()


def test_moves(settings: Settings) -> None:
    a, b, c = (make(settings, name) for name in "abc")
    assert names(settings) == ["a", "b", "c"]
    assert move(settings, c, "up") == 2
    assert names(settings) == ["a", "c", "b"]
    assert move(settings, a, "last") == 3 and names(settings) == ["c", "b", "a"]
    assert move(settings, a, "down") == 3 and names(settings) == ["c", "b", "a"]
    assert move(settings, a, "first") == 1 and names(settings) == ["a", "c", "b"]
    assert move(settings, a, "up") == 1
    make(settings, "later")
    assert names(settings) == ["a", "c", "b", "later"]
    write_state(b.state_path, b.state().with_(status="stopped"))
    assert names(settings) == ["a", "c", "later"]
    with pytest.raises(InputError, match="'b' is no longer queued"):
        move(settings, b, "first")


@pytest.mark.parametrize("content", ["", "{", '{"a": 1}', "[1, null, {}]", "\x00"])
def test_a_damaged_order_loses_no_job(settings: Settings, content: str) -> None:
    a, b = make(settings, "a"), make(settings, "b")
    move(settings, b, "first")
    (settings.home / "queue.json").write_text(content)
    assert names(settings) == ["a", "b"]
    move(settings, b, "first")
    assert names(settings) == ["b", "a"]
    supervisor = Supervisor(settings, command(0))
    run_until(supervisor, lambda: a.state().final)
    assert b.state().finished <= a.state().started


def test_jobs_start_in_the_new_order(settings: Settings) -> None:
    a, b, c = (make(settings, name) for name in "abc")
    move(settings, c, "first")
    supervisor = Supervisor(settings, command(0))
    run_until(supervisor, lambda: all(job.state().final for job in (a, b, c)))
    assert c.state().started < a.state().started < b.state().started
    assert {job.state().device for job in (a, b, c)} == {"cpu"}


def test_one_job_on_each_device(settings: Settings) -> None:
    devices = [Device(f"cuda:{n}", "a GPU", environment={"CUDA_VISIBLE_DEVICES": f"GPU-{n}"}) for n in (0, 1)]
    devices.append(Device("cpu", "processor", environment={"CUDA_VISIBLE_DEVICES": ""}))
    first, other, wants, third, cpu = (
        make(settings, name, device)
        for name, device in [("a", "any"), ("b", "any"), ("c", "cuda:0"), ("d", "any"), ("e", "cpu")]
    )
    supervisor = Supervisor(settings, command(1.0), lambda settings: devices)
    run_until(supervisor, lambda: all(map(begun, (first, other, cpu))))
    assert wants.state().status == third.state().status == "queued"
    seen = {job.request.name: (job.path / "gpu").read_text() for job in (first, other, cpu)}
    assert seen == {"a": "GPU-0", "b": "GPU-1", "e": ""}
    assert [job.state().device for job in (first, other, cpu)] == ["cuda:0", "cuda:1", "cpu"]
    again = Supervisor(settings, command(1.0), lambda settings: devices)  # as after kill -9 of the first
    again.step()
    assert wants.state().status == third.state().status == "queued"
    run_until(supervisor, lambda: all(job.state().final for job in (wants, third)))
    assert wants.state().device == "cuda:0" and wants.state().started >= first.state().finished
    assert third.state().device in ("cuda:0", "cuda:1")


def test_two_at_once_on_a_processor_that_takes_two(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_DEVICES", "cpu*2")
    from studio.settings import read_settings

    a, b, c = (make(settings, name) for name in "abc")
    supervisor = Supervisor(read_settings(), command(0.6))
    run_until(supervisor, lambda: begun(a) and begun(b))
    assert c.state().status == "queued"
    run_until(supervisor, lambda: c.state().final)
    assert c.state().started >= min(a.state().finished, b.state().finished)


def test_who_waits_for_a_device_that_is_gone_holds_up_nobody(settings: Settings) -> None:
    lost, next_one = make(settings, "a", "cuda:3"), make(settings, "b")
    supervisor = Supervisor(settings, command(0))
    run_until(supervisor, lambda: next_one.state().final)
    assert lost.state().status == "queued" and supervisor.step()
    rewrite(settings, lost, {"training": {"device": "any"}})
    run_until(supervisor, lambda: lost.state().final)


def test_a_request_that_cannot_be_read_ends_its_job_and_no_other(settings: Settings) -> None:
    broken, whole = make(settings, "a"), make(settings, "b")
    (broken.path / "job.yaml").write_text("nonsense")
    supervisor = Supervisor(settings, lambda job: [*command(0)(job), job.request.name])
    run_until(supervisor, lambda: whole.state().final)
    assert broken.state().status == "failed" and "job.yaml cannot be read" in broken.state().reason


def test_two_supervisors_start_each_job_once(settings: Settings, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    jobs = [make(settings, f"job-{number}") for number in range(8)]

    def once(job: JobFolder) -> list[str]:
        return ["sh", "-c", f"echo {job.id} >> {starts}; sleep 0.05"]

    def supervise() -> None:
        supervisor = Supervisor(settings, once)
        end = time.monotonic() + 30
        while not all(job.state().final for job in jobs) and time.monotonic() < end:
            supervisor.step()

    both = [threading.Thread(target=supervise) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(starts.read_text().split()) == sorted(job.id for job in jobs)


@pytest.mark.long
def test_new_settings_are_there_whole_or_the_job_has_begun(settings: Settings) -> None:
    """The race: settings change again and again while the supervisor starts one job after the other."""
    jobs = [make(settings, f"job-{number}") for number in range(8)]
    wrote: dict[str, list[int]] = {job.id: [0] for job in jobs}
    late: set[str] = set()

    def edit() -> None:
        number = 0
        while any(job.state().status == "queued" for job in jobs):
            for job in jobs:
                number += 1
                try:
                    rewrite(settings, JobFolder(job.path), {"training": {"device": "any", "epochs": number}})
                    wrote[job.id].append(number)
                except InputError as error:
                    assert "has already started" in error.what
                    late.add(job.id)

    editor = threading.Thread(target=edit)
    supervisor = Supervisor(settings, command(0))
    editor.start()
    run_until(supervisor, lambda: all(job.state().final for job in jobs), 60)
    editor.join()
    assert late and any(len(numbers) > 2 for numbers in wrote.values())
    for job in jobs:
        assert (job.path / "seen.yaml").read_text() == (job.path / "job.yaml").read_text()
        assert JobFolder(job.path).request.config["training"]["epochs"] == wrote[job.id][-1]


def test_a_start_waits_for_who_holds_the_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.jobs.run.supervisor.LOCK_SECONDS", 0.05)
    job = make(settings, "a")
    supervisor = Supervisor(settings, command(0))
    with queue_lock(settings.home):
        for _ in range(3):
            assert supervisor.step()
        assert job.state().status == "queued"
    run_until(supervisor, lambda: job.state().final)


def test_settings_change_only_before_the_start(settings: Settings) -> None:
    job = create_job(settings.jobs, "train", "a", {"x": 1}, group="sweep-1")
    rewrite(settings, job, {"x": 2})
    request = JobFolder(job.path).request
    assert (request.kind, request.name, request.config, request.group) == ("train", "a", {"x": 2}, "sweep-1")
    for state, words in [
        ({"status": "running"}, "has already started"), ({"status": "completed"}, "has already started"),
        ({"status": "queued", "attempt": 2}, "resumes from a checkpoint"),
    ]:  # fmt: skip
        write_state(job.state_path, job.state().with_(**state))
        with pytest.raises(InputError, match=words) as caught:
            rewrite(settings, job, {"x": 3})
        assert "Duplicate it" in caught.value.fix
    write_state(job.state_path, job.state().with_(status="queued", attempt=1))
    job.stop_path.write_text("{}")
    with pytest.raises(InputError, match="is being removed from the queue"):
        rewrite(settings, job, {"x": 3})
    assert JobFolder(job.path).request.config == {"x": 2}


def test_names_and_groups(settings: Settings) -> None:
    assert free_name(settings.jobs, "my run") == "my-run"
    job = make(settings, "my run")
    assert free_name(settings.jobs, "my run") == "my-run-2"
    assert job.request.group == "" and "group" not in (job.path / "job.yaml").read_text()
    assert [found.id for found in list_jobs(settings.jobs)] == [job.id]

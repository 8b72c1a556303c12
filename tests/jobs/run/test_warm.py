"""The warm process and what it becomes, with real processes: each child is one of its own, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from studio.jobs import JobFolder, request_stop
from studio.jobs.run import starting
from studio.jobs.run.leftovers import MARK
from studio.jobs.run.supervisor import Supervisor
from studio.jobs.run.warm import Warm
from studio.jobs.store.folder import create_job
from studio.processes import child_environment, module_command, module_of
from studio.settings import Settings
from tests.support.processes import gone

SAYS = """
import json, os, random, sys, threading
import numpy
print(json.dumps({
    "argv": sys.argv[1:], "cwd": os.getcwd(), "name": __name__, "word": os.environ["WORD"], "session": os.getsid(0),
    "pid": os.getpid(), "random": random.random(), "numpy": numpy.random.random(), "threads": threading.active_count(),
    "comm": open("/proc/self/comm").read().strip(),
    "imported": sys.modules["costly"].__dict__["imported_by"], "stdin": sys.stdin.read(),
}), flush=True)
"""
ENDS = "import atexit, sys\natexit.register(print, 'bye', flush=True)\nraise SystemExit(int(sys.argv[1]))\n"
WAITS = "import time\nprint('here', flush=True)\ntime.sleep(600)\n"
COSTLY = "import os, time\nimport numpy\nimported_by = os.getpid()\ntime.sleep(float(os.environ.get('COSTS', '0')))\n"
# A job that says in its events by whom the costly module was imported, and then does what its config says.
WORKER = """
import os, sys, time
from studio.jobs.run.worker import run_worker

def work(context):
    import costly
    context.result("import", {"own": costly.imported_by == os.getpid()})
    mode = context.config["mode"]
    if mode == "fork" and os.fork() == 0:
        time.sleep(600)
    if mode == "killed" or mode == "fork":
        os.kill(os.getpid(), 9)
    while mode == "wait":
        context.check_stop()
        time.sleep(0.05)

if __name__ == "__main__":
    raise SystemExit(run_worker("train", work))
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that processes of this test can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, text in (("says", SAYS), ("ends", ENDS), ("waits", WAITS), ("costly", COSTLY), ("worker", WORKER)):
        (folder / f"{name}.py").write_text(text)
    (folder / "broken.py").write_text("raise OSError('no such library')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", "")))))
    return folder


@pytest.fixture
def warm(modules: Path, tmp_path: Path) -> Iterator[Warm]:
    with (tmp_path / "warm.log").open("ab") as log:
        made = Warm.launch(["costly"], log, tmp_path, child_environment())
    yield made
    made.close()


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def begin(warm: Warm, folder: Path, module: str, *arguments: str):
    until(lambda: warm.ready or warm.gone)
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("ab") as log:
        child = warm.start(module, arguments, log, folder, {"WORD": "hello"})
    until(lambda: child.poll() is not None or child.pid)
    return child


def test_a_child_is_a_process_of_its_own_with_what_was_imported(warm: Warm, tmp_path: Path) -> None:
    found = []
    for name in ("first", "second"):
        child = begin(warm, tmp_path / name, "says", "one", "two words")
        until(lambda child=child: child.poll() is not None)
        assert child.returncode == 0
        found.append(json.loads((tmp_path / name / "log").read_text()))
        said = found[-1]
        assert said["argv"] == ["one", "two words"]
        assert said["name"] == "__main__"
        assert said["cwd"] == str(tmp_path / name)
        assert said["word"] == "hello"
        assert said["pid"] == said["session"] == child.pid
        assert said["threads"] == 1
        assert said["stdin"] == ""
        assert said["comm"] == "says"
    first, second = found
    assert first["imported"] == second["imported"] != first["pid"], "by the warm process, once"
    assert first["random"] != second["random"]
    assert first["numpy"] != second["numpy"]


def test_a_child_finds_what_its_owner_says_now_however_much_both_have(modules: Path, tmp_path: Path) -> None:
    many = {**child_environment(), "WORD": "before", **{f"LONG_{n}": "x" * 1000 for n in range(100)}}  # over LARGEST
    with (tmp_path / "log").open("ab") as log:
        made = Warm.launch(["costly"], log, tmp_path, many)
        child = made.start("says", [], log, tmp_path, {**many, "WORD": "hello"})
    assert child.wait(60) == 0
    made.close()
    assert json.loads((tmp_path / "log").read_text())["word"] == "hello"


def test_it_tells_how_a_child_ended(warm: Warm, tmp_path: Path) -> None:
    failing, killed = begin(warm, tmp_path / "one", "ends", "7"), begin(warm, tmp_path / "two", "waits")
    until(lambda: failing.poll() is not None)
    assert failing.returncode == 7
    assert (tmp_path / "one" / "log").read_text() == "bye\n", "what was to be done at its end was done"
    assert killed.poll() is None
    os.kill(killed.pid, signal.SIGKILL)
    until(lambda: killed.poll() is not None)
    assert killed.returncode == -9


def test_children_go_on_without_their_owner_and_the_warm_process_ends(warm: Warm, tmp_path: Path) -> None:
    child = begin(warm, tmp_path / "one", "waits")
    parent = psutil.Process(child.pid).ppid()
    warm.close()
    until(lambda: gone(parent))
    assert not gone(child.pid)
    os.kill(child.pid, signal.SIGKILL)


def test_a_child_of_a_dead_warm_process_is_lost_but_lives(warm: Warm, tmp_path: Path) -> None:
    child = begin(warm, tmp_path / "one", "waits")
    assert not child.lost
    os.kill(psutil.Process(child.pid).ppid(), signal.SIGKILL)
    until(lambda: warm.gone)
    assert child.poll() is None
    assert child.lost
    assert not gone(child.pid)
    with (tmp_path / "log").open("ab") as log, pytest.raises(OSError):
        warm.start("says", [], log, tmp_path, {})
    os.kill(child.pid, signal.SIGKILL)


@pytest.fixture
def supervisor(modules: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor whose trainings are `worker.py`, and whose warm process imports what costs half a second."""
    monkeypatch.setenv("COSTS", "0.5")
    monkeypatch.setattr(starting, "worker_command", lambda job: module_command("worker", str(job.path)))
    monkeypatch.setattr(starting, "LIBRARIES", {"train": "costly"})
    made = Supervisor(settings, starting.worker_command)
    yield made
    made.close()


def make(settings: Settings, mode: str) -> JobFolder:
    return create_job(settings.jobs, "train", f"job-{mode}", {"mode": mode})


def run_until(supervisor: Supervisor, condition: Callable[[], object]) -> None:
    until(lambda: (supervisor.step(), condition())[1])


def imported_itself(job: JobFolder) -> bool:
    from studio.jobs import read_events

    return next(event["values"]["own"] for event in read_events(job.events_path)[0] if event["kind"] == "result")


def test_the_jobs_of_a_supervisor_import_once(supervisor: Supervisor, settings: Settings) -> None:
    for number in range(2):
        job = make(settings, "done")
        run_until(supervisor, lambda job=job: job.state().final)
        assert job.state().status == "completed", number
        assert not imported_itself(job)


def test_a_job_is_started_on_its_own_where_the_warm_process_does_not_come_up(
    supervisor: Supervisor, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "LIBRARIES", {"train": "broken"})
    job = make(settings, "done")
    run_until(supervisor, lambda: job.state().final)
    assert job.state().status == "completed"
    assert imported_itself(job)
    assert "no such library" in (settings.home / "supervisor.log").read_text()


def test_a_job_on_one_of_several_places_is_started_on_its_own(
    modules: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.jobs.run.devices import Device

    monkeypatch.setattr(starting, "worker_command", lambda job: module_command("worker", str(job.path)))
    shared = Device("cpu", "processor", 2, {"OMP_NUM_THREADS": "1"})
    supervisor = Supervisor(settings, starting.worker_command, lambda settings: [shared])
    job = make(settings, "done")
    run_until(supervisor, lambda: job.state().final)
    assert imported_itself(job)


def test_a_job_that_is_stopped_while_the_libraries_are_imported_never_begins(
    supervisor: Supervisor, settings: Settings
) -> None:
    job = make(settings, "wait")
    supervisor.step()
    assert job.state().status == "starting"
    request_stop(job)
    run_until(supervisor, lambda: job.state().final)
    assert job.state().status == "stopped"
    assert "before it started" in job.state().reason
    after = make(settings, "done")
    run_until(supervisor, lambda: after.state().final)
    assert job.state().pid is None, "nor does it later"


def test_a_killed_job_is_told_and_leaves_nobody_behind(supervisor: Supervisor, settings: Settings) -> None:
    for mode in ("killed", "fork"):
        job = make(settings, mode)
        run_until(supervisor, lambda job=job: job.state().final)
        assert job.state().exit_code == -9
        assert "SIGKILL" in job.state().reason
        left = [one for one in psutil.process_iter() if _is_of(one, job)]
        assert all(gone(one.pid) for one in left), mode


def _is_of(process: psutil.Process, job: JobFolder) -> bool:
    try:
        return os.getsid(process.pid) == job.state().pid or process.environ().get(MARK) == str(job.path)
    except (OSError, psutil.Error):
        return False


def test_jobs_survive_the_death_of_the_warm_process(supervisor: Supervisor, settings: Settings) -> None:
    job = make(settings, "wait")
    run_until(supervisor, lambda: job.state().status == "running")
    os.kill(psutil.Process(job.state().pid).ppid(), signal.SIGKILL)
    for _ in range(5):
        supervisor.step()
        time.sleep(0.05)
    assert job.state().status == "running"
    request_stop(job)
    run_until(supervisor, lambda: job.state().final)
    assert job.state().status == "stopped"
    next_one = make(settings, "done")
    run_until(supervisor, lambda: next_one.state().final)
    assert next_one.state().status == "completed"
    assert not imported_itself(next_one), "by a new one"


def test_another_supervisor_finds_a_forked_job_again(supervisor: Supervisor, settings: Settings) -> None:
    job = make(settings, "wait")
    run_until(supervisor, lambda: job.state().status == "running")
    supervisor.close()
    second = Supervisor(settings, starting.worker_command)
    second.step()
    assert job.state().status == "running"
    request_stop(job)
    run_until(second, lambda: job.state().final)
    assert job.state().status == "stopped"
    second.close()


@pytest.mark.long
def test_the_libraries_of_a_training_leave_no_thread_and_no_gpu_behind(tmp_path: Path) -> None:
    """What a fork would not survive; in a process of its own, as the warm one is."""
    import subprocess

    code = (
        "import importlib, threading, sys\n"
        f"for name in {sorted(starting.LIBRARIES.values())}: importlib.import_module(name)\n"
        "import torch\n"
        "print(threading.active_count(), torch.cuda.is_initialized())\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, env=child_environment())
    assert done.stdout.split() == ["1", "False"], done.stderr


def test_a_command_of_ours_is_known_by_its_module() -> None:
    assert module_of(module_command("studio.train", "/a job", "-m")) == ("studio.train", ["/a job", "-m"])
    assert module_of(module_command("studio.train")) == ("studio.train", [])
    for other in ([], module_command("")[:-1], ["python", "-P", "-m", "studio.train"], ["true"]):
        assert module_of(other) is None

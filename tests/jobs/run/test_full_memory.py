"""Memory that is really full: Python's own error, and the kernel's kill, through a real supervisor."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.jobs import JobFolder, read_events
from studio.jobs.run.supervisor import Supervisor
from studio.jobs.store.folder import create_job
from studio.settings import Settings

LIMIT_BYTES = 150_000_000
WORKER = """
import os, sys
from studio.jobs.run.worker import run_worker

cgroup = sys.argv[2]
if cgroup:
    open(os.path.join(cgroup, "cgroup.procs"), "w").write(str(os.getpid()))

def work(context):
    context.environment(plan={
        "memory": {"weights": 1_000_000_000, "activations": 3_000_000_000}, "available_bytes": 5_000_000_000,
        "cures": [{"change": {"training.micro_batch_size": 1}, "bytes": 2_000_000_000}],
    })
    context.log("training")
    kept = [b"x" * 10_000_000 * (n + 1) for n in range(100)] if cgroup else bytearray(10**17)

raise SystemExit(run_worker("train", work, sys.argv[1:2]))
"""


def ended(settings: Settings, tmp_path: Path, cgroup: str = "") -> JobFolder:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    job = create_job(settings.jobs, "train", "full", {})
    supervisor = Supervisor(settings, lambda job: [sys.executable, str(script), str(job.path), cgroup])
    end = time.monotonic() + 60
    while supervisor.step():
        assert time.monotonic() < end
        time.sleep(0.05)
    return job


def told(job: JobFolder, reason: str) -> None:
    state = job.state()
    assert (state.status, state.reason) == ("failed", reason)
    assert "The plan counted 4.00 GB (weights 1.00, activations 3.00), and 5.00 GB of memory were free" in state.fix
    assert "Set training.micro_batch_size to 1: it then needs 2.00 GB" in state.fix
    assert state.change == {"training.micro_batch_size": 1}
    assert read_events(job.events_path)[0][-1]["status"] == "failed"


def test_a_memory_error_comes_with_plan_change_and_line(settings, tmp_path) -> None:
    job = ended(settings, tmp_path)
    told(job, "the computer's memory was full")
    line = job.state().line
    assert line is not None and job.log_path.read_text().splitlines()[line - 1] == "MemoryError"


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A control group with little memory; only root can make one."""
    old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    folder = (old if old.is_dir() else new) / f"studio-test-{os.getpid()}"
    try:
        folder.mkdir()
        limits = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max")
        for name in limits:
            if (folder / name).exists():
                (folder / name).write_text("0" if name == "memory.swap.max" else str(LIMIT_BYTES))
        if not any((folder / name).exists() for name in limits):
            folder.rmdir()
            pytest.skip("control groups cannot limit memory here")
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error.strerror})")
    yield folder
    end = time.monotonic() + 20
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:  # its process is not gone yet
            assert time.monotonic() < end
            time.sleep(0.1)


def test_the_kernels_kill_is_known_by_its_count(settings, tmp_path, cgroup) -> None:
    job = ended(settings, tmp_path, str(cgroup))
    assert job.state().exit_code == -9
    told(job, "the kernel killed the process because memory was full (SIGKILL)")
    line = job.state().line
    assert line is not None and job.log_path.read_text().splitlines()[line - 1].endswith("training")

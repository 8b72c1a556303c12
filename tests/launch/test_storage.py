"""`studio watch` of a folder in a storage: one that grows, through fsspec, and a real S3 server where there is one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from studio.cli.main import main
from studio.jobs import JobFolder
from studio.jobs.store.events import EventWriter
from studio.jobs.store.state import JobState, write_state
from tests.launch.test_watching import job
from tests.support.ports import free_port

__all__ = ["job"]


def put(job: JobFolder, system: fsspec.AbstractFileSystem, folder: str) -> None:
    """Write a job's folder into a storage, the state last, as whole objects."""
    for name in ("job.yaml", "events.jsonl", "state.json"):
        system.pipe_file(f"{folder}/{name}", (job.path / name).read_bytes())


def grow(job: JobFolder, put: Callable[[], None]) -> None:
    """Let it go on for two steps, and complete."""
    for step in (3, 4):
        time.sleep(1.0)
        writer = EventWriter(job.events_path)
        writer.write("metric", step=step, total_steps=4, values={"loss": 1.0 / step})
        writer.close()
        put()
    write_state(job.state_path, JobState(status="completed"))
    put()


def watched(job: JobFolder, url: str, system: fsspec.AbstractFileSystem, capsys: pytest.CaptureFixture[str]) -> None:
    """Watch a job that grows meanwhile."""
    folder = url.partition("://")[2]
    write_state(job.state_path, JobState(status="running"))
    put(job, system, folder)
    thread = threading.Thread(target=grow, args=(job, lambda: put(job, system, folder)))
    thread.start()
    code = main(["watch", url, "--json"])
    thread.join()
    told = capsys.readouterr()
    assert code == 0, told.err
    assert '"step": 4' in told.out and '"loss": 0.25' in told.out and '"status": "completed"' in told.out
    assert main(["watch", f"{url}-none"]) == 2
    assert "is not the folder of a job" in capsys.readouterr().err


def test_a_run_in_a_storage_is_watched_while_it_grows(
    job: JobFolder, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched(job, "memory://runs/orders", fsspec.filesystem("memory"), capsys)


def test_a_run_in_a_bucket_is_watched_while_it_grows(
    job: JobFolder, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "an S3 server and fsspec's way to it are missing: pip install s3fs 'moto[server]'"
    pytest.importorskip("s3fs", reason=reason)
    server = pytest.importorskip("moto.server", reason=reason).ThreadedMotoServer("127.0.0.1", free_port(), False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"), ("AWS_ACCESS_KEY_ID", "tests"),
            ("AWS_SECRET_ACCESS_KEY", "tests"), ("AWS_DEFAULT_REGION", "us-east-1"),
        ):  # fmt: skip
            monkeypatch.setenv(name, value)
        system = fsspec.filesystem("s3", skip_instance_cache=True)
        system.mkdir("runs")
        watched(job, "s3://runs/jobs/orders", system, capsys)
    finally:
        server.stop()

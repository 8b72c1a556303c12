"""What is no ordinary file: a pipe, a device, a file that grows, stale code, one that the page may not read."""

from __future__ import annotations

import os
import py_compile
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from studio.config.data import DataConfig
from studio.data.files.datafiles import file_sha256
from studio.data.prepare.units import Prompt
from studio.errors import InputError
from studio.models.inspect.adapters import adapter_config
from studio.models.inspect.headers import read_config
from studio.reach import descriptor_path, opened, read_text, reading_for
from studio.settings import Settings
from studio.train.rewards.python import load_function
from tests.security.files.swaps import INSIDE, OUTSIDE, rows
from tests.ui.made_jobs import made_run


@pytest.fixture
def soon() -> Iterator[None]:
    """Ends a test that hangs, as reading a pipe or a device does."""

    def late(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("confined", [True, False])
def test_what_is_no_file_is_refused_at_once(
    confined: bool, tmp_path: Path, settings: Settings, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe, a socket, a device, a file of the kernel: also where somebody has made the whole machine a root."""
    folder = tmp_path / "model"
    folder.mkdir()
    os.mkfifo(folder / "config.json")
    os.mkfifo(folder / "adapter_config.json")
    with socket.socket(socket.AF_UNIX) as made:
        monkeypatch.chdir(tmp_path)  # an address is at most 107 bytes long
        made.bind("some.sock")
    everything = replace(settings, roots=(Path("/"),))
    with reading_for(everything if confined else None):
        for path in (folder / "config.json", tmp_path / "some.sock", Path("/dev/zero"), Path("/dev/tty")):
            with pytest.raises((InputError, OSError)):
                opened(path)
        for path in (Path("/proc/self/environ"), Path("/proc/kmsg"), Path("/sys/kernel/notes")):
            with pytest.raises((InputError, OSError)):
                opened(path)
        with pytest.raises(InputError):
            read_config(folder)
        with pytest.raises(InputError):
            adapter_config(folder)


def test_a_job_folder_with_pipes_does_not_stop_the_list(settings: Settings, soon: None) -> None:
    job = made_run(settings.jobs)
    for name in ("events.jsonl", "log.txt", "job.yaml", "labels.json"):
        (job.path / name).unlink(missing_ok=True)
        os.mkfifo(job.path / name)
    from studio.jobs import Summaries, list_jobs, read_events
    from studio.jobs.store.logs import read_tail

    assert [one.id for one in list_jobs(settings.jobs)] == [job.id]
    assert read_events(job.events_path, 0) == ([], 0) and read_tail(job.log_path).text == ""
    assert Summaries().of(job).step == 0
    job.state_path.unlink()
    os.mkfifo(job.state_path)
    assert job.state().status == "lost"


def test_a_file_that_grows_has_an_end(ours: Settings, soon: None) -> None:
    """Somebody writes to it faster than it is read: a page gets what it had when it was opened."""
    file = ours.uploads / "grows.jsonl"
    file.write_text(rows(INSIDE) * 100)
    size, ended = file.stat().st_size, threading.Event()

    def grow() -> None:
        with file.open("a") as more:
            while not ended.is_set():
                more.write(rows(INSIDE) * 1000)
                more.flush()

    with reading_for(ours), opened(file) as reading:
        writer = threading.Thread(target=grow)
        writer.start()
        try:
            assert len(reading.read()) == size and reading.read() == b""
            assert reading.seek(-5, os.SEEK_END) == size - 5 and len(reading.read()) == 5
        finally:
            ended.set()
            writer.join()
        assert file_sha256(file)


def test_a_file_that_is_read_whole_has_a_bound(ours: Settings) -> None:
    file = ours.uploads / "large.json"
    with file.open("wb") as made:
        made.truncate(10_000_000_000)  # takes no space
    with reading_for(ours), pytest.raises(InputError, match="more than"):
        read_text(file, most=1_000_000)


def test_a_job_of_the_page_reads_what_the_page_may(ours: Settings, tmp_path: Path) -> None:
    """Its request says which folders those are; one of the command line reads what its user may."""
    from studio.jobs.store.folder import JobFolder, create_job

    config = {"data": DataConfig().model_dump(mode="json")}
    with reading_for(ours):
        asked = create_job(ours.jobs, "export", "page", {"run": "x"} | config)
    typed = create_job(ours.jobs, "export", "typed", {"run": "x"} | config)
    assert JobFolder(asked.path).request.roots == tuple(str(root) for root in ours.roots)
    assert JobFolder(typed.path).request.roots is None
    outside = tmp_path / "outside.jsonl"
    outside.write_text(rows(OUTSIDE))
    code = (
        "import sys\nfrom studio.jobs.run.worker import run_worker\nfrom studio.data.files.datafiles import read_rows\n"
        "from pathlib import Path\n"
        "sys.exit(run_worker('export', lambda context: print(list(read_rows(Path(sys.argv[2])))), [sys.argv[1]]))"
    )
    for job, may in ((asked, False), (typed, True)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(job.path), str(outside)],
            env={**os.environ, "STUDIO_HOME": str(ours.home)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (OUTSIDE in done.stdout) is may, done.stderr
        assert job.state().status == ("completed" if may else "failed")


def test_the_code_of_a_reward_is_the_code_that_was_read(tmp_path: Path) -> None:
    """Compiled code that somebody laid beside the file, which Python would take for it, is not run."""
    good, bad = (f"def score(prompts, completions, **more):\n    return [{one} for _ in prompts]\n" for one in "12")
    file = tmp_path / "reward.py"
    file.write_text(bad)
    py_compile.compile(str(file))
    written = file.stat().st_mtime_ns
    file.write_text(good)
    os.utime(file, ns=(written, written))
    assert list((tmp_path / "__pycache__").iterdir())
    assert load_function(f"{file}:score")([Prompt([], "a", None, 1, "rows")], ["b"]) == [1.0]


def test_a_descriptor_has_a_name(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(INSIDE)
    with file.open() as held_open:
        file.unlink()
        assert Path(descriptor_path(held_open.fileno())).read_text() == INSIDE

"""What other users of the machine can do: nothing in a home, and no lock makes anybody wait without a word."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from studio.data.files.hubfetch import fetch_here
from studio.data.files.hubsets import HubSet, set_folder
from studio.data.worker.client import DataWorker
from studio.jobs import JobFolder, ensure_supervisor, read_events, resume
from studio.jobs.actions.client import supervisor_lock, supervisor_record
from studio.jobs.actions.queue import Keeper, move
from studio.jobs.actions.removal import remove_job
from studio.jobs.run.supervisor import Supervisor
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.labels import change_labels
from studio.jobs.store.state import own_identity
from studio.locks import HeldError, holder_of, make_lock
from studio.models.catalog import embedded
from studio.models.catalog.hub import download, hub_folder
from studio.models.device.machine import device_info
from studio.private import begin, tighten
from studio.processes import child_environment, module_command
from studio.settings import Settings
from tests.conftest import run_studio
from tests.security.conftest import Handlers
from tests.ui.made_jobs import made_run

NOBODY = 65534
ROOT = os.geteuid() == 0
# The lock is handed over open, since the home is closed to whoever runs this.
HOLDER = """
import fcntl, os, sys, time
if os.geteuid() == 0:
    os.setuid(65534)
for one in sys.argv[1:]:
    fcntl.flock(int(one), fcntl.LOCK_EX)
print(flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    """The tests' own umask, which `begin` changes."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> dict[str, str]:
    """What other users may do with what is in a folder, links left out."""
    paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    modes = {str(path.relative_to(folder.parent)): stat.S_IMODE(path.lstat().st_mode) for path in paths}
    return {name: oct(mode) for name, mode in modes.items() if mode & 0o077}


class Held:
    """Locks that another process holds: another user's where we may make one, else our own user's."""

    def __init__(self, *paths: Path) -> None:
        self.files = []
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.files.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        command = [sys.executable, "-c", HOLDER, *map(str, self.files)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=self.files, cwd="/")
        assert self.process.stdout.readline() == b"\n"
        for file in self.files:
            os.close(file)

    def __enter__(self) -> int:
        return self.process.pid

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def refused(work: Callable[[], object], pid: int) -> float:
    """Seconds until a piece of work said who holds its lock."""
    began = time.monotonic()
    with pytest.raises(HeldError) as told:
        work()
    assert f"process {pid}" in told.value.sentence and str(told.value.where).endswith(".lock")
    if ROOT:
        assert "nobody" in told.value.sentence or str(NOBODY) in told.value.sentence
    return time.monotonic() - began


def test_a_home_is_closed_whatever_the_umask_says(tmp_path: Path) -> None:
    """Supervisor, job and command line, started by a shell that gives everything to everybody."""
    home = tmp_path / "home"
    job = create_job(home / "jobs", "export", "nothing", {"run": "none"})
    home.chmod(0o777)
    environment = child_environment(STUDIO_HOME=str(home))
    supervisor = subprocess.Popen(
        module_command("studio.jobs.run.supervisor"), env=environment, umask=0, cwd=home, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 120
        while not job.state().final and time.monotonic() < end:
            time.sleep(0.2)
        assert job.state().status == "failed" and job.log_path.stat().st_size
        assert supervisor_record(home).exists()
        assert open_to_others(home) == {}
    finally:
        supervisor.terminate()
        supervisor.wait()
    subprocess.run(module_command("studio", "jobs", "note", job.id, "mine"), env=environment, umask=0, check=False)
    (home / "uploads").mkdir()
    assert open_to_others(home) == {"home/uploads": "0o755"}, "made by this test, with its own umask"


def test_what_the_page_writes_is_its_owners(tmp_path: Path) -> None:
    """The real server under umask 0: an upload on its way and kept, gradio's own folders, what a click starts."""
    home = tmp_path / "home"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = child_environment(STUDIO_HOME=str(home), STUDIO_PASSWORD="", STUDIO_LOGIN_FILE="")
    server = subprocess.Popen(
        [sys.executable, "app.py"], env=environment | {"STUDIO_PORT": str(port)}, umask=0, stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        assert b"Finetune Studio" in server.stdout.readline()
        here = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=here, timeout=60) as client:
            rows = b'{"prompt": "a", "completion": "b"}\n'
            (sent,) = client.post("/gradio_api/upload", files={"files": ("rows.jsonl", rows)}).json()
            handlers = Handlers(client, client.get("/config").json())
            value = {"path": sent, "meta": {"_type": "gradio.FileData"}, "orig_name": "rows.jsonl"}
            assert handlers.call("take_upload", value, [], "0.1").json()["data"][2] == ""
        assert Path(sent).exists() and (home / "uploads" / "rows.jsonl").read_bytes() == rows
        assert open_to_others(home) == {}
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


@pytest.mark.long
def test_a_whole_chain_leaves_nothing_open(short_run: JobFolder, short_export: JobFolder) -> None:
    """A real training, with its checkpoints and optimizer, and the GGUF files that llama.cpp made of it."""
    for job in (short_run, short_export):
        assert len([path for path in job.path.rglob("*") if path.is_file()]) > 5
        assert open_to_others(job.path) == {}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's umask")
def test_the_data_worker_keeps_its_files_to_its_owner(settings: Settings) -> None:
    os.umask(0)
    worker = DataWorker(settings, confined=True)
    try:
        worker.call("ping")
        assert "Umask:\t0077" in Path(f"/proc/{worker.pid}/status").read_text()
    finally:
        worker.close()


def test_an_older_home_is_tightened(tmp_path: Path) -> None:
    """What is ours, through no link, and nothing that others share with us."""
    home, outside = tmp_path / "home", tmp_path / "outside"
    for folder in (home / "jobs" / "one" / "checkpoints", home / "uploads", outside):
        folder.mkdir(parents=True)
    ours = [home / "jobs" / "one" / "log.txt", home / "uploads" / "rows.jsonl", home / "supervisor.lock"]
    theirs = [home / "notes.txt", outside / "shared.txt", outside / "weights.safetensors"]
    for path in (*ours, *theirs):
        path.write_text("x")
    tool = home / "uploads" / "tool"
    tool.write_text("x")
    tool.chmod(0o755)
    (home / "uploads" / "link.txt").symlink_to(outside / "shared.txt")
    (home / "uploads" / "folder").symlink_to(outside)
    (home / "jobs" / "one" / "base.safetensors").hardlink_to(outside / "weights.safetensors")
    both = home / "jobs" / "one" / "checkpoints" / "optimizer.pt"
    both.hardlink_to(ours[0])  # a branch shares it, and both names are ours
    if ROOT:
        foreign = home / "uploads" / "foreign.jsonl"
        foreign.write_text("x")
        os.chown(foreign, NOBODY, NOBODY)
        theirs.append(foreign)
    assert begin(home) == ""
    assert [oct(stat.S_IMODE(path.stat().st_mode)) for path in (*ours, both)] == ["0o600"] * 4
    assert stat.S_IMODE(tool.stat().st_mode) == 0o700 and stat.S_IMODE((home / "jobs" / "one").stat().st_mode) == 0o700
    assert stat.S_IMODE(home.stat().st_mode) == 0o700 and stat.S_IMODE(outside.stat().st_mode) == 0o755
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in theirs} == {"0o644"}
    assert tighten(home) == 0


def test_a_home_that_is_shared_on_purpose_stays_so_and_it_is_said(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "uploads").mkdir(parents=True)
    rows = home / "uploads" / "rows.jsonl"
    rows.write_text("x")
    home.chmod(0o2770)
    said = begin(home)
    assert "shared with the group" in said and str(home) in said
    assert stat.S_IMODE(home.stat().st_mode) == 0o2770 and stat.S_IMODE(rows.stat().st_mode) == 0o644
    assert os.umask(0o022) == 0o007
    shown = run_studio("jobs", "list", home=home)
    assert shown.code == 0 and "shared with the group" in shown.stderr


@pytest.mark.skipif(not ROOT, reason="only root makes a folder of another user")
def test_a_home_of_somebody_else_is_told_and_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    os.chown(home, NOBODY, NOBODY)
    assert "belongs to" in begin(home) and stat.S_IMODE(home.stat().st_mode) == 0o755


def test_a_lock_is_its_owners(tmp_path: Path) -> None:
    os.umask(0)
    lock = make_lock(tmp_path / "some.lock")
    with lock:
        assert stat.S_IMODE((tmp_path / "some.lock").stat().st_mode) == 0o600
        found = holder_of(tmp_path / "some.lock")
    if Path("/proc/locks").exists():
        assert found is not None and found.pid == os.getpid() and found.ours and not found.foreign
    assert holder_of(tmp_path / "some.lock") is None


@pytest.mark.long
def test_whoever_waits_for_a_lock_is_told_who_has_it(settings: Settings) -> None:
    """Every lock that is waited for: of the line, a job's, a model's, a set's, and that of the measurement."""
    run = made_run(settings.jobs)
    waiting = create_job(settings.jobs, "export", "waiting", {"run": run.id})
    asked = HubSet("org/rows", None, "train", "main")
    model = hub_folder(settings, "org/model")
    for file in settings.home.glob("device*.json"):
        file.unlink()
    locks = [
        settings.home / "queue.lock", settings.home / "device.lock", supervisor_lock(settings.home),
        run.path / ".resume.lock", run.path / ".labels.lock", settings.models / f".{model.name}.lock",
        settings.datasets / f".{set_folder(asked, settings).name}.lock",
    ]  # fmt: skip
    works: list[Callable[[], object]] = [
        lambda: ensure_supervisor(settings), lambda: move(settings, waiting, "first"), lambda: resume(settings, run),
        lambda: remove_job(settings, run), lambda: change_labels(run.path, note="x"),
        lambda: device_info(settings, measure=True), lambda: download("org/model", settings),
        lambda: fetch_here(asked, settings, lambda *phase: None),
    ]  # fmt: skip
    with Held(*locks) as pid, ThreadPoolExecutor(len(works)) as pool:
        seconds = list(pool.map(lambda work: refused(work, pid), works))
        assert max(seconds) < 5.0, seconds
        began = time.monotonic()
        told = run_studio("jobs", "resume", run.id, home=settings.home)
        assert told.code == 1 and f"process {pid}" in told.stderr and time.monotonic() - began < 30
    change_labels(run.path, note="x")  # and once it is free


@pytest.mark.long
def test_the_preparation_of_the_model_waits_with_words(settings: Settings) -> None:
    """A process of the studio that prepares it is waited for; anybody else who has the lock is told."""
    settings.models.mkdir(parents=True, exist_ok=True)
    lock = next(iter(settings.models.glob("*.lock")), settings.models / ".probe.lock")
    with make_lock(lock):
        words: list[str] = []

        def tell(name: str, done: float, total: float | None) -> None:
            words.append(name)
            raise InterruptedError

        with pytest.raises(InterruptedError), embedded._lock(lock, tell):
            pass
    assert f"process {os.getpid()}" in words[0]
    with Held(lock) as pid:
        refused(lambda: embedded._lock(lock, lambda *phase: None).__enter__(), pid)


def test_a_job_that_waits_says_who_keeps_it(settings: Settings) -> None:
    """The lock of the line is taken while a supervisor runs, and that of the supervisor while a page is open."""

    def notices(job: JobFolder) -> list[str]:
        return [event["text"] for event in read_events(job.events_path, 0)[0] if event["kind"] == "notice"]

    job = create_job(settings.jobs, "export", "waiting", {"run": "none"})
    supervisor = Supervisor(settings)
    with Held(settings.home / "queue.lock") as pid:
        end = time.monotonic() + 10
        while not notices(job) and time.monotonic() < end:
            supervisor.step()
        assert len(notices(job)) == 1 and f"process {pid}" in notices(job)[0]
        supervisor.step()
        assert len(notices(job)) == 1, "said once"
    other = create_job(settings.jobs, "export", "waiting-too", {"run": "none"})
    keeper = Keeper(settings)
    with Held(supervisor_lock(settings.home)) as pid:
        keeper.look()
        assert len(notices(other)) == 1 and f"process {pid}" in notices(other)[0]
    for one in (job, other):
        one.stop_path.touch()


def test_a_supervisor_is_known_by_its_record(settings: Settings) -> None:
    """Also where the system does not say who holds a lock: its process is alive, or it is not."""
    pid, start = own_identity()
    settings.home.mkdir(exist_ok=True)
    with make_lock(supervisor_lock(settings.home)):
        write_json(supervisor_record(settings.home), {"pid": pid, "start": start})
        ensure_supervisor(settings)
        write_json(supervisor_record(settings.home), {"pid": pid, "start": start + 100})
        with pytest.raises(HeldError):
            ensure_supervisor(settings)

"""What the far side prints, loses or refuses: ssh and Slurm in place of which small programs answer."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from studio.config.launch import SlurmConfig
from studio.errors import InputError, StudioError
from studio.jobs import JobFolder, read_events
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.launch import watching
from studio.launch.following import Following
from studio.launch.slurm.cluster import Cluster, node_folder, script_path
from studio.launch.slurm.follow import OnCluster
from studio.launch.slurm.node import FILE
from studio.launch.ssh import setup
from studio.launch.ssh.address import parse_address
from studio.launch.ssh.machine import BrokenError, Machine
from studio.settings import Settings

Program = Callable[[str, str], Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a shell script on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(name: str, body: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def machine(program: Program, tmp_path: Path) -> Machine:
    """This one, whose login shell prints something without an end of line."""
    home = tmp_path / "home there"
    home.mkdir()
    skip = 'while [ "$1" != "--" ]; do shift; done; shift 2'
    program("ssh", f"{skip}\nexport HOME={shlex.quote(str(home))}\nprintf 'Welcome! '\nexec sh -c \"$*\"")
    return Machine(parse_address("ssh://box/~/studio"))


def test_what_a_login_shell_prints_is_passed_over(machine: Machine, tmp_path: Path) -> None:
    found = setup.probe(machine, sys.executable)
    assert found.folder == f"{tmp_path}/home there/studio" and found.python == sys.executable
    setup._require_version(setup.Studio(machine, found, sys.executable))
    with pytest.raises(InputError, match="the run none no longer exists there"):
        setup.Studio(machine, found, sys.executable).ask("look", {"id": "none", "events": 0, "log": 0})


def test_a_file_is_watched_as_it_is_and_one_that_cannot_be_read_is_named(machine: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "home there" / "studio"
    folder.mkdir()
    (folder / "state.json").write_text('{"status": "running"}')
    place = watching.BySsh(machine)
    assert place.read("state.json", 0) == b'{"status": "running"}' and place.read("state.json", 11) == b'"running"}'
    assert place.read("none", 0) is None
    (folder / "events.jsonl").write_text("")
    assert place.read("events.jsonl", 0) == b""


def test_a_studio_that_two_runs_install_is_installed_once(machine: Machine, program: Program, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pip = program("pip", "sleep 1")
    python = program(
        "python-there",
        f"""\
[ "$1" = -c ] && exec {shlex.quote(sys.executable)} "$@"
echo made >> {shlex.quote(str(log))}
mkdir -p "$3/bin" && cp {shlex.quote(str(pip))} "$3/bin/python" && sleep 1""",
    )
    wheel = tmp_path / setup.wheel.name()
    wheel.write_bytes(b"PK")
    found = setup.Found(str(tmp_path / "there"), str(python), None, False, False)
    place = f"{found.folder}/venvs/abc"
    (tmp_path / "there" / "venvs").mkdir(parents=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: setup._install(machine, found, wheel, place), range(2)))
    assert log.read_text() == "made\n" and Path(place, ".installed").exists()


@pytest.fixture
def job(settings: Settings) -> JobFolder:
    """A run that is to be submitted."""
    settings.jobs.mkdir(parents=True, exist_ok=True)
    made = create_job(settings.jobs, "train", "far", {}, place={"to": "slurm", "machine": "Slurm"})
    node = node_folder(made)
    node.path.mkdir(parents=True)
    node.events_path.write_text("")
    write_state(node.state_path, JobState(status="queued"))
    script_path(made).write_text("#!/bin/bash\n")
    return made


def test_a_number_is_found_among_what_a_site_prints(job: JobFolder, program: Program) -> None:
    program("squeue", "exit 0")
    program("sbatch", "echo '*** Welcome to Ada ***'\necho '4711;ada'\necho 'Your budget: 12 h'")
    assert Cluster(job).submit() == "4711" == Cluster(job).number
    program("squeue", "echo '*** Welcome to Ada ***'\necho 'PENDING|Priority'")
    assert Cluster(job).ask("look", {"id": job.id, "events": 0, "log": 0})["waiting"] == (
        "waiting in Slurm's queue (Priority)"
    )


def test_a_job_without_a_number_is_said_and_found_in_line(job: JobFolder, program: Program) -> None:
    program("squeue", "exit 0")
    program("sbatch", "echo Submitted")
    with pytest.raises(StudioError, match=r"sbatch did not say the job's number \(Submitted\)"):
        Cluster(job).submit()
    program("squeue", f"echo '1|/other.sh'\necho '12|{script_path(job)}'")
    program("sbatch", "echo 13")
    assert Cluster(job).submit() == "12"


def test_a_controller_that_is_away_is_waited_for_and_gets_one_job(
    job: JobFolder, settings: Settings, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sbatch loses the answer to what Slurm took, and the controller is away for a while after that."""
    monkeypatch.setattr("studio.launch.following.PAUSES", (0.01,))
    line = shlex.quote(str(tmp_path / "line"))
    lost = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    program("sbatch", f"echo x >> {line}; echo '{lost}' >&2; exit 1")
    program(
        "squeue",
        f"""\
[ -e {line} ] || exit 0
[ -e {line}.away ] || {{ touch {line}.away; echo 'squeue: error: Unable to contact slurm controller' >&2; exit 1; }}
echo '21|{script_path(job)}'""",
    )
    config = SlurmConfig()
    OnCluster(JobContext(job, settings), config.machine, config.poll).begin(Cluster(job))
    assert Cluster(job).number == "21" and (tmp_path / "line").read_text() == "x\n"


def test_a_resume_that_slurm_does_not_take_can_be_asked_again(job: JobFolder, program: Program) -> None:
    cluster = Cluster(job)
    write_json(cluster.node.path / FILE, {"job": "5"})
    ended = JobState(status="stopped", attempt=1)
    write_state(cluster.node.state_path, ended)
    program("squeue", "exit 0")
    program("sbatch", "echo 'sbatch: error: invalid partition specified: gpuu' >&2; exit 1")
    with pytest.raises(InputError, match=r"sbatch refused the run \(sbatch: error: invalid partition specified: gpuu"):
        cluster.ask("resume", {"id": job.id, "attempt": 1})
    assert cluster.node.state() == ended
    program("sbatch", "echo 6")
    cluster.ask("resume", {"id": job.id, "attempt": 1})
    assert cluster.number == "6" and cluster.node.state().attempt == 2


def test_files_that_never_come_are_told_once(job: JobFolder, settings: Settings) -> None:
    following: Following[Any] = Following(JobContext(job, settings), "box", 1.0)
    for final in (False, True, True):
        following._tell_late(BrokenError("only some files arrived from box", fix="Wait"), final)
    told = [one["text"] for one in read_events(job.events_path)[0] if one["kind"] == "notice"]
    assert told == ["the run ended there, and its files are still missing: only some files arrived from box"]

"""A run of several machines: two launchers that meet on this one, each with its ranks, are one process; and faults."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from studio.cli.main import main as cli
from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputError, StoppedError, StudioError
from studio.jobs import JobFolder, find_job, request_stop, wait
from studio.jobs.run.worker import JobContext
from studio.jobs.store.checkpoints import last_whole
from studio.jobs.store.folder import create_job
from studio.settings import Settings
from studio.train.ranks import joining, machines, meeting
from studio.train.ranks.ends import FOLDER, End, verdict, write_end
from studio.train.ranks.hanging import ranks_of
from studio.train.ranks.launching import run_ranks
from studio.train.ranks.machines import Asked, joining_line, write_asked
from studio.train.ranks.meeting import Meeting, called, joined
from studio.train.worker import train
from tests.conftest import run_studio
from tests.ranks.made import SECONDS, config, curve, ran
from tests.ranks.test_equal import equal
from tests.ranks.test_faults import same, until

HERE = machines.LOOPBACK


@pytest.fixture
def job(settings: Settings) -> JobFolder:
    """A job of two machines that nobody has trained."""
    raw = {"data": {"train": [{"path": "demo/train.jsonl"}]}, "training": {"nodes": 2}}
    made = create_job(settings.jobs, "train", "two", build(RunConfig, raw).model_dump(mode="json"))
    (made.path / FOLDER).mkdir()
    write_asked(made.path, Asked(HERE, wait=5))
    return made


def both(
    job: JobFolder, settings: Settings, problem: str = "", meet: Callable[[Meeting], None] = lambda meeting: None
) -> tuple[Any, Any]:
    """What becomes of the first and the second machine: a meeting, or the error that it raises."""
    found: list[Any] = [None, None]

    def first() -> None:
        try:
            with called(JobContext(job, settings), 2) as found[0]:
                meet(found[0])
        except StudioError as error:
            found[0] = error

    thread = threading.Thread(target=first)
    thread.start()
    try:
        found[1] = joined(job.path, 1, 2, problem, lambda text: None)
    except StudioError as error:
        found[1] = error
    thread.join()
    return found[0], found[1]


def test_two_machines_meet_and_know_each_other(job: JobFolder, settings: Settings) -> None:
    seen: dict[str, Any] = {}

    def meet(first: Meeting) -> None:
        file = job.path / FOLDER / meeting.FILE
        seen["mode"] = file.stat().st_mode & 0o077
        first.say("x", [1])
        # Only at the address that was named.
        with socket.socket() as probe:
            seen["elsewhere"] = probe.connect_ex(("127.0.0.2", first.port))

    first, second = both(job, settings, meet=meet)
    assert isinstance(first, Meeting) and isinstance(second, Meeting)
    assert (first.host, first.port, second.number, second.hear("x")) == (HERE, second.port, 1, [1])
    assert seen["mode"] == 0 and seen["elsewhere"] != 0
    assert second.hear("over") == {}


def test_who_comes_when_the_first_machine_has_ended_hears_why(job: JobFolder, settings: Settings) -> None:
    write_asked(job.path, Asked(HERE, wait=20))

    def stop() -> None:
        time.sleep(1.0)
        job.stop_path.write_text("{}")
        with pytest.raises(StoppedError), called(JobContext(job, settings), 2):
            raise AssertionError("it was stopped")

    thread = threading.Thread(target=stop)
    thread.start()
    # Nobody listens when it looks.
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoppedError, match="cannot start: it was stopped"):
        patch.setattr(meeting, "_unreachable", lambda host, port: "too late")
        joined(job.path, 1, 2, "", lambda text: None)
    thread.join()
    # That of a start before is not meant.
    write_asked(job.path, Asked(HERE, wait=1))
    with pytest.raises(StudioError, match="it has not begun"):
        joined(job.path, 1, 2, "", lambda text: None)


def test_a_machine_that_cannot_compute_it_ends_the_run_with_its_reason(job: JobFolder, settings: Settings) -> None:
    first, second = both(job, settings, "4 devices were requested, but there is no GPU here")
    assert re.match(r"machine 1 \(.+\) cannot compute it: 4 devices were requested", first.what)
    assert second.what.startswith("the run cannot start: machine 1")


def test_another_version_is_refused(job: JobFolder, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, mine = machines.versions(), threading.current_thread()
    other = {**ours, "studio": "0.0.1"}
    monkeypatch.setattr(machines, "versions", lambda: other if threading.current_thread() is mine else ours)
    first, second = both(job, settings)
    assert f"has studio 0.0.1, and the first one {ours['studio']}" in first.what and "same version" in first.fix
    assert "has studio 0.0.1" in second.what
    assert machines.difference({**ours, "code": ""}, ours) == f"has other files of the studio {ours['studio']}"
    assert machines.difference(ours, ours) == ""


def test_a_machine_that_never_comes_is_named_with_the_line_that_starts_it(job: JobFolder, settings: Settings) -> None:
    write_asked(job.path, Asked(HERE, wait=1, by_hand=True))
    machines.log_of_machine(job.path, 1).write_text("12:00:00  waiting: no route to host\n")
    with pytest.raises(StudioError) as caught, called(JobContext(job, settings), 2):
        raise AssertionError("nobody came")
    assert re.search(rf"machine 1 of 2 did not connect to {HERE}, port \d+, within 1 seconds", caught.value.what)
    assert "it says: 12:00:00  waiting: no route to host" in caught.value.what
    assert caught.value.fix == f"Start it there: {joining_line(job.path, 1, settings.home)}"


def test_a_stop_ends_the_waiting(job: JobFolder, settings: Settings) -> None:
    job.stop_path.write_text("{}")
    with pytest.raises(StoppedError), called(JobContext(job, settings), 2):
        raise AssertionError("it was stopped")


def test_what_the_first_machine_cannot_have_is_refused(job: JobFolder, settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind((HERE, 0))
        taken.listen()
        port = taken.getsockname()[1]
        for host, asked, said in (
            (HERE, port, "address already in use"), ("192.0.2.77", 0, "cannot assign"), ("no such", 0, "not known")
        ):  # fmt: skip
            write_asked(job.path, Asked(host, asked, wait=1))
            with pytest.raises(InputError, match=f"cannot listen at {host}, port {asked or 'any'} .*{said}"):
                called(JobContext(job, settings), 2).__enter__()


def test_what_another_machine_cannot_do_is_said(
    job: JobFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, number, code, said in (
        (tmp_path / "none", "1", 2, "there is no job in"), (job.path, "2", 2, "so there is no machine 2 to join"),
        (job.path, "0", 2, "the first machine runs the job itself"), (job.path, "x", 2, "usage"),
    ):  # fmt: skip
        assert joining.main([str(folder), number]) == code
        assert said in capsys.readouterr().err


def test_a_first_machine_that_cannot_be_reached_is_said_after_a_while(job: JobFolder) -> None:
    write_asked(job.path, Asked(HERE, wait=1))
    with pytest.raises(StudioError, match="cannot be reached from here: it has not begun"):
        joined(job.path, 1, 2, "", lambda text: None)
    with socket.socket() as closed:
        closed.bind((HERE, 0))
        port = closed.getsockname()[1]
        (job.path / FOLDER / meeting.FILE).write_text(f'{{"host": "{HERE}", "port": {port}, "token": "x"}}')
        with pytest.raises(StudioError) as caught:
            joined(job.path, 1, 2, "", lambda text: None)
    assert (
        caught.value.what == f"the first machine cannot be reached at {HERE}, port {port} from here: connection refused"
    )
    assert "--with host" in caught.value.fix


def test_a_run_of_several_machines_is_not_begun_by_others(
    home: Path, settings: Settings, job: JobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["train", "demo/sft", "--set", "training.nodes=2"]) == 2
    assert "training.nodes: this run uses 2 machines" in " ".join(capsys.readouterr().err.split())
    (job.path / machines.FILE).unlink()
    with pytest.raises(InputError, match="was not launched on them"), called(JobContext(job, settings), 2):
        raise AssertionError("nobody asked")


def test_launch_refuses_what_torchrun_cannot_do(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, where, said in (
        (["--set", "training.nodes=2"], "host", "host"),
        (["--with", f"host={HERE}"], "training.nodes", "uses one machine"),
        (["--with", f"host={HERE}", "--set", "training.nodes=2", "--set", "training.devices=[0, 1]"],
         "training.devices", "which other machines may not have"),
        (["--with", f"host={HERE}", "--set", "training.nodes=2", "--set", "training.batch_size=3"],
         "training.batch_size", "cannot be divided equally"),
    ):  # fmt: skip
        assert cli(["launch", "demo/sft", "--to", "torchrun", *more]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert where in told and said in told


def test_the_interface_is_that_towards_the_first_machine() -> None:
    assert HERE in [one.address for one in psutil.net_if_addrs()[machines.interface_towards(HERE)]]
    assert machines.own_address() == HERE


class Two:
    """A run of two machines on this one: the first is the job, the second a launcher that a person starts."""

    def __init__(self, settings: Settings, tiny: Path, folder: Path, **training: Any) -> None:
        self.settings = settings
        values = config(tiny, folder, epochs=20, save_steps=5)
        values["training"] |= {"nodes": 2, **training}
        self.file = folder / "run.yaml"
        import yaml

        self.file.write_text(yaml.safe_dump(values))
        sent = run_studio(
            "launch", str(self.file), "--to", "torchrun", "--with", f"host={HERE}", "--with", "wait=120",
            "--detach", "--json", home=settings.home, OMP_NUM_THREADS="1",
        )  # fmt: skip
        assert sent.code == 0, sent.stderr
        self.job = find_job(settings.jobs, sent.json["id"])
        self.line = joining_line(self.job.path, 1, settings.home)
        assert f"on machine 1: {self.line}" in " ".join(sent.stderr.split())
        self.second: subprocess.Popen[str] | None = None

    def join(self) -> subprocess.Popen[str]:
        """Start the second machine's part by its line."""
        self.second = subprocess.Popen(
            ["sh", "-c", f"exec {self.line}"], stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return self.second

    def said(self, code: int) -> str:
        """The last sentence of the second machine's launcher, which ends with a status."""
        assert self.second is not None and self.second.stderr is not None
        assert self.second.wait(40) == code
        return self.second.stderr.read().strip().splitlines()[-1].partition("  ")[2]

    def ranks(self) -> list[psutil.Process]:
        """Ranks of the second machine."""
        return [] if self.second is None else list(ranks_of(psutil.Process(self.second.pid)).values())


@pytest.fixture
def two(tiny: Path, session_settings: Settings, tmp_path: Path) -> Iterator[Two]:
    made = Two(session_settings, tiny, tmp_path)
    yield made
    if made.second is not None and made.second.poll() is None:
        made.second.kill()
    if not made.job.state().final:
        request_stop(made.job, now=True)
        wait(made.job, seconds=60)


def test_what_a_launcher_says_of_its_dead_rank_is_the_reason(job: JobFolder) -> None:
    write_end(job.path, 0, End("cut", "Connection closed by peer"))
    write_end(job.path, 1, End("dead", "rank 1 was killed (SIGKILL)", fix="Resume it"))
    error = verdict(job.path, 2, {0: 1})
    assert error is not None and (error.what, error.fix) == ("rank 1 was killed (SIGKILL)", "Resume it")


@pytest.fixture(scope="module")
def whole(tiny: Path, session_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    """The run that nobody disturbs, on one process."""
    return ran(session_settings, "of-one", config(tiny, tmp_path_factory.mktemp("machines"), epochs=20, save_steps=5))


@pytest.mark.long
def test_two_launchers_are_one_process(
    tiny: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    values = config(tiny, tmp_path, epochs=1, batch_size=4)
    jobs = []
    for nodes in (1, 2):
        raw = {**values, "training": {**values["training"], "nodes": nodes}}
        jobs.append(create_job(settings.jobs, "train", f"of-{nodes}", build(RunConfig, raw).model_dump(mode="json")))
    train(JobContext(jobs[0], settings))
    write_asked(jobs[1].path, Asked(HERE, wait=60))
    line = joining_line(jobs[1].path, 1, settings.home)
    with subprocess.Popen(["sh", "-c", f"exec {line}"], stderr=subprocess.PIPE, text=True) as second:
        run_ranks(JobContext(jobs[1], settings), 1, 2)
        said = second.communicate(timeout=30)[1]
    assert second.returncode == 0 and "the run has completed" in said, said
    equal(jobs[1], jobs[0])
    # Only the first rank writes of the run; the other one has a log.
    assert "loading model" in (jobs[1].path / FOLDER / "rank-1.log").read_text()
    assert len([one for one in jobs[1].path.rglob("*.json") if "checkpoint" in one.name]) == 0


@pytest.mark.long
def test_a_killed_rank_or_launcher_of_another_machine_ends_it_and_it_resumes(two: Two, whole: JobFolder) -> None:
    job = two.job
    two.join()
    until(lambda: last_whole(job.checkpoints) is not None or job.state().final)
    assert not job.state().final, job.log_path.read_text()

    at, ranks = time.monotonic(), two.ranks()
    ranks[0].kill()
    state = wait(job, seconds=60)
    assert state.status == "failed" and time.monotonic() - at < 30
    assert re.search(r"rank 1 was killed \(SIGKILL\).*; the last line of rank-1.log is '.+'", state.reason), state
    assert two.said(1).startswith("machine 1: the run ended: rank 1 was killed")

    assert run_studio("jobs", "resume", job.id, "--detach", home=two.settings.home).code == 0
    second = two.join()
    steps = len(curve(job, "loss"))
    until(lambda: len(curve(job, "loss")) > steps or job.state().final)
    assert not job.state().final, job.log_path.read_text()
    at, ranks = time.monotonic(), two.ranks()
    os.kill(second.pid, signal.SIGKILL)
    state = wait(job, seconds=60)
    assert state.status == "failed" and time.monotonic() - at < 45
    assert "machine 1 is lost" in state.reason, state.reason
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in ranks)

    assert run_studio("jobs", "resume", job.id, "--detach", home=two.settings.home).code == 0
    second = two.join()
    assert wait(job, seconds=SECONDS).status == "completed", job.log_path.read_text()
    assert second.wait(30) == 0
    same(job, whole)


@pytest.mark.long
def test_a_stop_saves_on_all_machines_and_a_killed_first_one_ends_the_others(two: Two, whole: JobFolder) -> None:
    job = two.job
    two.join()
    until(lambda: last_whole(job.checkpoints) is not None or job.state().final)
    request_stop(job)
    state = wait(job, seconds=60)
    assert state.status == "stopped" and "the weights are saved" in state.reason, state
    assert "the weights are saved" in two.said(0)

    assert run_studio("jobs", "resume", job.id, "--detach", home=two.settings.home).code == 0
    two.join()
    steps = len(curve(job, "loss"))
    until(lambda: len(curve(job, "loss")) > steps or job.state().final)
    pid, ranks = job.state().pid, two.ranks()
    assert pid is not None and ranks
    os.kill(pid, signal.SIGKILL)
    assert "the first machine is lost" in two.said(1)
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in ranks)

"""One run over several tasks of a cluster: what the script asks for, and a real cluster of one node with two tasks."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from studio.config.launch import SlurmConfig
from studio.config.training import TrainingConfig
from studio.errors import InputError
from studio.jobs import JobFolder
from studio.launch.slurm.cluster import node_folder
from studio.launch.slurm.script import require_room, script
from studio.settings import Settings
from tests.conftest import run_studio
from tests.launch.test_slurm import cluster, lines, step_of
from tests.launch.test_ssh import all_events, until
from tests.parity.fixtures import tiny
from tests.ranks.made import TOLERANCE, apart, config, curve
from tests.support.programs.slurm import Slurm, needs_slurm

__all__ = ["cluster", "tiny"]


def test_each_machine_is_a_task_and_srun_ends_none_of_them() -> None:
    text = script(SlurmConfig(gpus=8, cpus=16), "orders", Path("/x"), Path("/"), machines=4)
    asked = lines(text)
    assert (asked["nodes"], asked["ntasks"], asked["cpus-per-task"]) == ("4", "4", "16")
    assert "srun --ntasks=4 --cpus-per-task=16 --kill-on-bad-exit=0 --wait=60 " in text
    assert 'STUDIO_OTHER_MACHINES=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tr ' in text
    two = lines(script(SlurmConfig(gpus=0, tasks=2), "orders", Path("/x"), Path("/"), machines=4))
    assert (two["nodes"], two["ntasks"], two["ntasks-per-node"]) == ("2", "4", "2")
    assert "STUDIO_OTHER_MACHINES" not in script(SlurmConfig(), "orders", Path("/x"), Path("/"))


@pytest.mark.parametrize(
    ("asked", "training", "where", "fix"),
    [
        ({"gpus": 2}, {"devices": 4}, "--with gpus", "--with gpus=4"),
        ({"gpus": 0, "cpus": 2}, {"devices": 4}, "--with cpus", "--with cpus=4"),
        ({"gpus": 4}, {"devices": [0, 1]}, "training.devices", "Set it to 2"),
        ({"gpus": 2, "tasks": 2}, {"nodes": 2}, "--with tasks", "--with tasks=1"),
        ({"gpus": 0, "tasks": 2}, {"nodes": 3}, "--with tasks", "a multiple of 2"),
    ],
)
def test_what_the_run_needs_must_be_asked_for(
    asked: dict[str, Any], training: dict[str, Any], where: str, fix: str
) -> None:
    with pytest.raises(InputError) as caught:
        require_room(SlurmConfig(**asked), TrainingConfig(**training))
    assert caught.value.where == where and fix in caught.value.fix


@pytest.fixture
def run(tiny: Path, tmp_path: Path) -> Iterator[Path]:
    """A run of two machines, as a file."""
    values = config(tiny, tmp_path, epochs=40, save_steps=5)
    values["training"]["nodes"] = 2
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(values))
    yield file


def launchers(job: JobFolder) -> list[psutil.Process]:
    """Launchers of the second task."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "studio.train.ranks.joining" in words and str(node_folder(job).path) in words:
            found.append(process)
    return found


def resumed_at(job: JobFolder) -> list[int]:
    """The steps from which the run went on."""
    return [one["step"] for one in all_events(job) if one["kind"] == "resume"]


@needs_slurm
@pytest.mark.long
def test_two_tasks_are_preempted_killed_and_stopped_and_end_with_the_model_of_one_process(
    cluster: Slurm, home: Path, settings: Settings, run: Path
) -> None:
    asked = ["--with", "gpus=0", "--with", "cpus=1", "--with", "tasks=2", "--with", "partition=low"]
    done = run_studio(
        "launch", str(run), "--to", "slurm", "--name", "far", *asked, "--with", "poll=0.3", "--detach", "--json",
        home=home, OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    job = JobFolder(Path(done.json["path"]))
    node, steps = node_folder(job), step_of(job)
    until(lambda: steps() >= 6 or job.state().final)
    assert not job.state().final, (job.state(), job.log_path.read_text())
    assert len(launchers(job)) == 1 and cluster.call("squeue", "--noheader", "--format", "%D %C").split() == ["1", "2"]

    # A more important job takes the node; both tasks wait in line again and go on from their checkpoint.
    number = cluster.call("squeue", "--noheader", "--format", "%i").split()[0]
    cluster.call("sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null", "--wrap", "sleep 3")
    until(lambda: "PENDING" in cluster.call("squeue", "--noheader", "--jobs", number, "--format", "%T"))
    until(lambda: node.state().attempt == 2 and node.state().status == "running")
    until(lambda: resumed_at(job) or job.state().final)
    assert not job.state().final, (job.state(), job.log_path.read_text())

    # A killed task ends all of them.
    at = steps()
    until(lambda: steps() > at and launchers(job))
    os.kill(launchers(job)[0].pid, signal.SIGKILL)
    until(lambda: job.state().final, 60)
    assert job.state().status == "failed" and "machine 1 is lost" in job.state().reason, job.state()
    until(lambda: not cluster.call("squeue", "--noheader").strip(), 30)

    # The signal before the time limit: the step is finished and saved.
    assert run_studio("jobs", "resume", job.id, "--detach", home=home, OMP_NUM_THREADS="1").code == 0
    until(lambda: len(resumed_at(job)) >= 2 and steps() > resumed_at(job)[-1])
    number = cluster.call("squeue", "--noheader", "--format", "%i").split()[0]
    cluster.call("scancel", "--batch", "--signal=USR1", number)
    until(lambda: job.state().final)
    assert job.state().status == "stopped" and "time limit was reached" in job.state().reason, job.state()

    resumed = run_studio("jobs", "resume", job.id, "--json", home=home, OMP_NUM_THREADS="1")
    assert resumed.code == 0, resumed.stderr
    assert job.state().status == "completed"
    assert sorted(curve(job, "loss")) == list(range(1, 121))

    plain = run_studio("train", str(run), "--name", "near", "--set", "training.nodes=1", "--json", home=home)
    assert plain.code == 0, plain.stderr
    near = JobFolder(Path(plain.json["model"]).parent)
    assert curve(job, "loss") == pytest.approx(curve(near, "loss"), rel=TOLERANCE)
    assert apart(job, near) <= TOLERANCE

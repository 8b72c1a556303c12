"""A run on a cluster: the script, what becomes of Slurm's signals, and a real cluster of one node."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file

from studio.config import RunConfig
from studio.config.launch import SlurmConfig
from studio.errors import InputError
from studio.jobs import JobFolder, Summaries, find_job
from studio.launch.named import named_paths
from studio.launch.slurm.cluster import node_folder, script_path
from studio.launch.slurm.script import container_mounts, script
from studio.settings import ASSETS, Settings
from tests.conftest import call_studio, run_studio
from tests.launch.test_ssh import all_events, until
from tests.support.programs.slurm import Slurm, needs_slurm


def lines(text: str) -> dict[str, str]:
    """Options of a script, by name."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, flags=re.MULTILINE))


def test_each_option_is_a_line_of_the_script() -> None:
    config = SlurmConfig(
        partition="gpu", account="team", qos="high", gpus=2, cpus=8, memory=64, time="2-12:00:00", save_seconds=300,
        requeue=False, container="/images/my studio.sqsh",
    )  # fmt: skip
    text = script(config, "orders", Path("/shared/my home/jobs/x/slurm/x"), Path("/shared/my home"))
    assert lines(text) == {
        "job-name": "studio-orders", "output": '"/shared/my home/jobs/x/slurm/slurm.log"', "open-mode": "append",
        "nodes": "1", "ntasks": "1", "cpus-per-task": "8", "time": "2-12:00:00", "signal": "B:USR1@300",
        "partition": "gpu", "account": "team", "qos": "high", "gpus-per-node": "2", "mem": "64000M", "no-requeue": "",
    }  # fmt: skip
    assert "'--container-image=/images/my studio.sqsh'" in text
    plain = lines(script(SlurmConfig(gpus=0), "orders", Path("/x"), Path("/")))
    assert {"partition", "account", "qos", "gpus-per-node", "mem"}.isdisjoint(plain) and "requeue" in plain


def test_a_name_and_a_path_reach_sbatch_as_they_are() -> None:
    text = script(SlurmConfig(), 'it\'s "v1"\n#2', Path("/a#b/o'brien/jobs/x/slurm/x"), Path("/a#b"))
    told = lines(text)
    assert (
        told["job-name"] == r'''"studio-it\'s \"v1\" \#2"'''
        and told["output"] == r"/a\#b/o\'brien/jobs/x/slurm/slurm.log"
    )
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_what_could_break_the_script_is_refused() -> None:
    for wrong in (
        {"partition": "gpu\n#SBATCH --uid=0"}, {"account": "a b"}, {"qos": '"'}, {"container": "a\nb"},
        {"time": "soon"}, {"time": "12:00"}, {"gpus": -1}, {"save_seconds": 0},
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            SlurmConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("sent, why", [(signal.SIGUSR1, "time limit"), (signal.SIGTERM, "ended")])
def test_a_signal_of_slurm_asks_the_run_to_stop_and_waits_for_it(
    tmp_path: Path, sent: signal.Signals, why: str
) -> None:
    job = tmp_path / "a job" / "node"
    job.mkdir(parents=True)
    file = tmp_path / "script.sh"
    file.write_text(script(SlurmConfig(), "x", job, tmp_path))
    # In place of srun: a run that ends a moment after it was asked to.
    srun = tmp_path / "srun"
    waiting = 'until [ -e "$job/stop" ]; do sleep 0.05; done'
    srun.write_text(f'#!/bin/bash\nfor job; do :; done\ntouch "$job/on"\n{waiting}\nsleep 0.3\nexit 7\n')
    srun.chmod(0o755)
    process = subprocess.Popen(["bash", file], env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    until(lambda: (job / "on").exists(), 10)
    process.send_signal(sent)
    assert process.wait(timeout=20) == 7
    asked = json.loads((job / "stop").read_text())
    assert asked["why"] == why and asked["now"] is False and abs(asked["asked"] - time.time()) < 30


def test_a_dry_run_writes_the_script_and_resuming_it_needs_sbatch(
    home: Path, settings: Settings, tmp_path: Path
) -> None:
    done = call_studio("launch", "demo/sft", "--to", "slurm", "--dry-run", "--json", home=home)
    assert done.code == 0, done.stderr
    job = find_job(settings.jobs, done.json["id"])
    assert done.json["status"] == "written" and f"sbatch {script_path(job)}" in done.stderr
    assert subprocess.run(["bash", "-n", script_path(job)]).returncode == 0
    assert str(node_folder(job).path) in script_path(job).read_text()
    state = job.state()
    assert state.status == "stopped" and "not submitted" in state.reason and job.request.machine == "Slurm"
    wrong = call_studio("launch", "demo/sft", "--to", "slurm", "--with", "time=soon", "--json", home=home)
    assert wrong.code == 2 and "time" in wrong.stderr
    bare = tmp_path / "bare"
    bare.mkdir()
    again = call_studio("jobs", "resume", job.id, home=home, PATH=str(bare))
    assert again.code == 2 and "sbatch is not on this machine" in again.stderr


def test_a_container_sees_what_the_run_names_outside_of_the_home(
    home: Path, settings: Settings, tmp_path: Path
) -> None:
    far = tmp_path / "far"
    for name in ("rows", "blobs", "model"):
        (far / name).mkdir(parents=True)
    source = ASSETS / "demo" / "train.jsonl"
    (far / "blobs" / "1").write_text(source.read_text())
    (far / "rows" / "train.jsonl").symlink_to(far / "blobs" / "1")
    (far / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": str(far / "rows" / "train.jsonl")}}))
    held = far / "held.jsonl"
    held.write_text(source.read_text())
    (settings.home / "own.jsonl").write_text(source.read_text())
    values = {
        "data": {
            "train": [{"path": f"{far}/dataset_info.json:mine"}, {"path": f"{settings.home}/own.jsonl"}],
            "validation": str(held),
        },
        "model": {"path": str(far / "model")},
    }
    named = named_paths(RunConfig.model_validate(values), settings)
    mounts = container_mounts(settings.home, named)
    wanted = ["blobs/1", "dataset_info.json", "held.jsonl", "model", "rows/train.jsonl"]
    assert sorted(mounts) == sorted([settings.home, *(far / one for one in wanted)])
    text = script(SlurmConfig(container="image"), "x", Path("/x"), settings.home, 1, mounts)
    assert f"{far}/model:{far}/model" in text and f"{far}/held.jsonl:{far}/held.jsonl" in text
    demo = RunConfig.model_validate({"data": {"train": [{"path": "demo/train.jsonl"}], "validation": 0.1}})
    assert named_paths(demo, settings) == [], "the image has the demo's rows itself"
    with pytest.raises(InputError, match=r"a,b.*cannot be given a path with a comma.*Rename") as caught:
        container_mounts(settings.home, [far / "a,b"])
    assert "--with container" in caught.value.fix


def test_a_launch_in_a_container_mounts_the_data(home: Path, settings: Settings, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text((ASSETS / "demo" / "train.jsonl").read_text())
    sets = ["--set", f"data.train=[{{path: {rows}}}]", "--set", "data.validation=0", "--with", "container=image"]
    done = call_studio("launch", "demo/sft", "--to", "slurm", *sets, "--dry-run", "--json", home=home)
    assert done.code == 0, done.stderr
    text = script_path(find_job(settings.jobs, done.json["id"])).read_text()
    mounts = re.search(r"--container-mounts=(\S+)", text)
    assert mounts and set(mounts[1].split(",")) == {f"{one}:{one}" for one in (settings.home, rows)}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    made = Slurm(tmp_path / "slurm")
    monkeypatch.setenv("SLURM_CONF", str(made.config))
    yield made
    made.close()


@needs_slurm
@pytest.mark.long
def test_a_run_is_preempted_reaches_its_time_limit_and_ends_with_the_right_model(
    cluster: Slurm, home: Path, settings: Settings
) -> None:
    sets = ["--set", "training.max_steps=40", "--set", "training.batch_size=2", "--set", "data.validation=0"]
    sets += ["--set", "training.save_steps=4"]
    asked = ["--with", "gpus=0", "--with", "cpus=1", "--with", "partition=low", "--with", "poll=0.3"]
    done = run_studio(
        "launch", "demo/sft", "--to", "slurm", "--name", "far", *sets, *asked, "--detach", "--json", home=home
    )
    assert done.code == 0, done.stderr
    job = JobFolder(Path(done.json["path"]))
    node = node_folder(job)
    steps = step_of(job)
    until(lambda: steps() >= 6)

    # A more important job takes the node; the run waits in line again and goes on from its checkpoint.
    number = cluster.call("squeue", "--noheader", "--format", "%i").split()[0]
    cluster.call("sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null", "--wrap", "sleep 3")
    until(lambda: "PENDING" in cluster.call("squeue", "--noheader", "--jobs", number, "--format", "%T"))
    assert job.state().status == "running"
    until(lambda: node.state().attempt == 2 and node.state().status == "running")
    begun = [one["step"] for one in all_events(job) if one["kind"] == "resume"]
    until(lambda: [one for one in all_events(job) if one["kind"] == "resume"])
    assert not begun or begun[-1] >= 4

    # The signal that comes before the time limit: the step is finished and saved.
    at = steps()
    until(lambda: steps() > at)
    cluster.call("scancel", "--batch", "--signal=USR1", number)
    until(lambda: job.state().final)
    assert job.state().status == "stopped" and "time limit was reached" in job.state().reason
    assert at < steps() < 40

    resumed = run_studio("jobs", "resume", job.id, "--json", home=home)
    assert resumed.code == 0, resumed.stderr
    assert job.state().status == "completed" and node.state().attempt == 3
    made = [one["step"] for one in all_events(job) if one["kind"] == "metric"]
    assert made == list(range(1, 41))

    # The model is that of a run that nobody interrupted.
    plain = run_studio("train", "demo/sft", "--name", "near", *sets, "--json", home=home)
    assert plain.code == 0, plain.stderr
    ours = load_file(job.model / "adapter_model.safetensors")
    theirs = load_file(Path(plain.json["model"]) / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    assert max(float(abs(ours[name] - theirs[name]).max()) for name in ours) <= 1e-6


def step_of(job: JobFolder) -> Callable[[], int]:
    """How far a run is, as lists show it."""
    summaries = Summaries()
    return lambda: summaries.of(job).step

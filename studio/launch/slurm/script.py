"""The script that sbatch is given: what is asked of the cluster, and what becomes of its signals.

Slurm sends USR1 to the script before the time limit and TERM where it ends the job: both become a stop that finishes
the step and saves. A preempted job is put back in line by Slurm, and its next start goes on from the last checkpoint.

A run of several machines has a task for each: the first one is the run, the others come to it (`train.ranks.joining`).
Tasks end each other by themselves, so srun is told to end none at once, which could cost the first one its last words.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from studio.config.launch import SlurmConfig
from studio.config.training import TrainingConfig
from studio.errors import InputError
from studio.processes import module_command
from studio.train.ranks.machines import OTHERS

_PACKAGE_PARENT = Path(__file__).resolve().parents[3]
# After the end of one task the others have so long.
_LAST_SECONDS = 60
_BODY = """\
set -u
job={job}
export STUDIO_HOME={home} PYTHONUNBUFFERED=1

# A stop that was asked for before stays: it is the person's.
ask() {{
  [ -e "$job/stop" ] && return
  printf '{{"asked": %s, "now": false, "why": "%s"}}\\n' "$(date +%s)" "$1" > "$job/.stop"
  mv "$job/.stop" "$job/stop"
}}
trap 'ask "time limit"' USR1
trap 'ask "ended"' TERM
{names}
{run} "$job" &
child=$!
# A signal ends the waiting, not the run.
while :; do
  wait "$child"
  code=$?
  kill -0 "$child" 2>/dev/null || break
done
exit "$code"
"""


# Names of the nodes, by which the first task finds the address that the others reach.
_NAMES = f"""
{OTHERS}=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tr '\\n' ' ')
export {OTHERS}
"""


def require_room(config: SlurmConfig, training: TrainingConfig) -> None:
    """Check that what is asked of the cluster is what the run needs.

    Args:
        config: what is asked of the cluster.
        training: section of the run.

    Raises:
        InputError: it has too few GPUs or cores, or its tasks cannot be divided among nodes.
    """
    if training.device_ids:
        raise InputError(
            f"the cluster says which GPUs a run gets, but training.devices lists {training.devices}",
            where="training.devices", fix=f"Set it to {len(training.device_ids)}",
        )  # fmt: skip
    here = training.ranks_here
    if config.gpus and here > config.gpus:
        raise InputError(
            f"training.devices is {here}, but {config.gpus} GPUs were requested on each node", where="--with gpus",
            fix=f"Use --with gpus={here}, or set training.devices to {config.gpus} or less",
        )  # fmt: skip
    if not config.gpus and here > config.cpus:
        raise InputError(
            f"training.devices is {here}, but {config.cpus} cores were requested", where="--with cpus",
            fix=f"Use --with cpus={here}, or set training.devices to {config.cpus} or less",
        )  # fmt: skip
    if config.tasks > 1 and config.gpus:
        raise InputError(
            "tasks on one node would share its GPUs", where="--with tasks",
            fix="Use --with tasks=1, and set training.devices to the number of GPUs on a node",
        )  # fmt: skip
    if training.nodes % config.tasks:
        raise InputError(
            f"{training.nodes} machines cannot be divided into nodes with {config.tasks} tasks", where="--with tasks",
            fix=f"Set training.nodes to a multiple of {config.tasks}",
        )  # fmt: skip


def container_mounts(home: Path, named: Iterable[Path]) -> list[Path]:
    """Return what a container must see of the node: the home, and what a run names outside of it.

    Args:
        home: the STUDIO_HOME.
        named: files and folders that the run names.

    Raises:
        InputError: one has a sign that divides the list of mounts for srun.
    """
    mounts: list[Path] = []
    for path in sorted({home, *named}):  # a folder comes before what lies in it
        if not any(path.is_relative_to(one) for one in mounts):
            mounts.append(path)
    if wrong := next((one for one in mounts if set(",:\n") & set(str(one))), None):
        raise InputError(
            "a container cannot be given a path with a comma, a colon or a line break", where=str(wrong),
            fix="Rename the file or folder, or leave out --with container",
        )  # fmt: skip
    return mounts


def script(
    config: SlurmConfig, name: str, job: Path, home: Path, machines: int = 1, mounts: Sequence[Path] = ()
) -> str:
    """Write the script.

    Args:
        config: what is asked of the cluster.
        name: of the run.
        job: folder of the job on the node, on a file system that the node shares.
        home: the STUDIO_HOME.
        machines: of the run; each is a task.
        mounts: of the container (`container_mounts`); none without one.
    """
    asked = {
        "job-name": f"studio-{' '.join(name.split())}", "output": _pattern(job.parent / "slurm.log"),
        "open-mode": "append",
        "nodes": machines // config.tasks, "ntasks": machines, "cpus-per-task": config.cpus, "time": config.time,
        "signal": f"B:USR1@{config.save_seconds}", "partition": config.partition, "account": config.account,
        "qos": config.qos,
    }  # fmt: skip
    if config.tasks > 1:
        asked["ntasks-per-node"] = config.tasks
    if config.gpus:
        asked["gpus-per-node"] = config.gpus
    if config.memory is not None:
        asked["mem"] = f"{round(config.memory * 1000)}M"
    lines = [f"#SBATCH --{key}={_quoted(str(value))}" for key, value in asked.items() if value != ""]
    lines.append("#SBATCH --requeue" if config.requeue else "#SBATCH --no-requeue")
    body = _BODY.format(
        job=shlex.quote(str(job)), home=shlex.quote(str(home)), run=_run(config, machines, mounts),
        names=_NAMES if machines > 1 else "",
    )  # fmt: skip
    return "\n".join(["#!/bin/bash", *lines, "", body])


def _run(config: SlurmConfig, machines: int, mounts: Sequence[Path]) -> str:
    # Since Slurm 22.05 a step does not take this from the job, and would have one core for each task.
    words = ["srun", f"--ntasks={machines}", f"--cpus-per-task={config.cpus}"]
    if machines > 1:
        words += ["--kill-on-bad-exit=0", f"--wait={_LAST_SECONDS}"]
    if config.container:
        words += [
            f"--container-image={config.container}",
            f"--container-mounts={','.join(f'{one}:{one}' for one in mounts)}",
        ]
    command = module_command("studio.launch.slurm.node")
    if config.python:
        command[0] = config.python
    elif not config.container:  # this very checkout or installation
        words += ["env", f"PYTHONPATH={_PACKAGE_PARENT}"]
        command[0] = sys.executable
    else:
        command[0] = "python3"
    return shlex.join([*words, *command])


def _pattern(path: Path) -> str:
    """A path in which Slurm replaces nothing."""
    return str(path).replace("%", "%%")


def _quoted(text: str) -> str:
    """A value as sbatch reads it: the rest of a line is a comment from # on, also within quotes."""
    text = re.sub(r"""(["'\\#])""", r"\\\1", text)
    return f'"{text}"' if any(letter.isspace() for letter in text) else text

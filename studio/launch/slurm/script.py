"""The script that sbatch is given: what is asked of the cluster, and what becomes of its signals.

Slurm sends USR1 to the script before the time limit and TERM where it ends the job: both become a stop that finishes
the step and saves. A preempted job is put back in line by Slurm, and its next start goes on from the last checkpoint.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from studio.config.launch import SlurmConfig
from studio.processes import module_command

_PACKAGE_PARENT = Path(__file__).resolve().parents[3]
_BODY = """\
set -u
job={job}
export STUDIO_HOME={home} OMP_WAIT_POLICY=PASSIVE PYTHONUNBUFFERED=1

# A stop that was asked for before stays: it is the person's.
ask() {{
  [ -e "$job/stop" ] && return
  printf '{{"asked": %s, "now": false, "why": "%s"}}\\n' "$(date +%s)" "$1" > "$job/.stop"
  mv "$job/.stop" "$job/stop"
}}
trap 'ask "time limit"' USR1
trap 'ask "ended"' TERM

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


def script(config: SlurmConfig, name: str, job: Path, home: Path) -> str:
    """Write the script.

    Args:
        config: what is asked of the cluster.
        name: of the run.
        job: folder of the job on the node, on a file system that the node shares.
        home: the STUDIO_HOME.
    """
    asked = {
        "job-name": f"studio-{name}", "output": _pattern(job.parent / "slurm.log"), "open-mode": "append",
        "nodes": 1, "ntasks": 1, "cpus-per-task": config.cpus, "time": config.time,
        "signal": f"B:USR1@{config.save_seconds}", "partition": config.partition, "account": config.account,
        "qos": config.qos,
    }  # fmt: skip
    if config.gpus:
        asked["gpus-per-node"] = config.gpus
    if config.memory is not None:
        asked["mem"] = f"{round(config.memory * 1000)}M"
    lines = [f"#SBATCH --{key}={_quoted(str(value))}" for key, value in asked.items() if value != ""]
    lines.append("#SBATCH --requeue" if config.requeue else "#SBATCH --no-requeue")
    body = _BODY.format(job=shlex.quote(str(job)), home=shlex.quote(str(home)), run=_run(config, home))
    return "\n".join(["#!/bin/bash", *lines, "", body])


def _run(config: SlurmConfig, home: Path) -> str:
    words = ["srun", "--ntasks=1"]
    if config.container:
        words += [f"--container-image={config.container}", f"--container-mounts={home}:{home}"]
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
    return f'"{text}"' if any(letter.isspace() for letter in text) else text

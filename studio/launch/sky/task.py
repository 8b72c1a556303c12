"""The task file for SkyPilot: the machine, what is copied to it, how the studio is installed, and the run.

The run is the same process as on a node of a cluster (`launch.slurm.node`), so a machine that vanished and came again
goes on from the last checkpoint, if the job's folder lies in a bucket.
"""

from __future__ import annotations

import io
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from studio.config import RunConfig
from studio.config.launch import SkyConfig
from studio.errors import InputError
from studio.jobs.store.files import new_folder, put_folder, write_atomic
from studio.jobs.store.request import JobRequest, write_request
from studio.jobs.store.state import JobState, write_state
from studio.launch.sky.sizing import GPUS
from studio.launch.ssh import wheel
from studio.launch.ssh.cargo import pack
from studio.models.plan.making import Plan
from studio.settings import Settings

FILE = "task.yaml"
# Below the home there, which nobody knows here: the paths of the run are completed when it starts.
_THERE, _HOME = "~/studio", "@HOME@"
_OUT = "~/studio/out"
# Memory of the machine, in GB, beside a copy of the weights on their way to the GPU.
_LEAST_MEMORY = 16
_SETUP = """\
set -e
[ -x ~/studio/venv/bin/python ] || python3 -m venv ~/studio/venv
~/studio/venv/bin/python -m pip install --quiet --disable-pip-version-check \\
  -c ~/studio/wheel/constraints.txt "$(ls ~/studio/wheel/*.whl)[{parts}]"
"""
_RUN = """\
set -e
job={out}/jobs/{id}
mkdir -p "$job"
# A machine before this one may have begun: then its folder is gone on with.
if [ ! -e "$job/state.json" ]; then
  sed "s|{home}|$HOME|g" ~/studio/job/job.yaml > "$job/job.yaml"
  : > "$job/events.jsonl"
  cp ~/studio/job/state.json "$job/state.json"
fi
export STUDIO_HOME=~/studio/home PYTHONUNBUFFERED=1
~/studio/venv/bin/python -m studio.launch.slurm.node "$job"
"""


@dataclass(frozen=True)
class Task:
    """A task that was written.

    Attributes:
        file: its YAML.
        command: what starts it.
        watch: address at which `studio watch` shows it.
    """

    file: Path
    command: list[str]
    watch: str


def write_task(
    settings: Settings, name: str, run: RunConfig, plan: Plan, gigabytes: int, config: SkyConfig, folder: Path
) -> Task:
    """Write a task and all that it copies into a new folder.

    Args:
        settings: of this home.
        name: of the run.
        run: what is trained, with absolute paths.
        plan: of the run on a GPU of `gigabytes`.
        gigabytes: memory of the smallest GPU that the run fits on.
        config: what is asked of SkyPilot.
        folder: that is made; its name is the job's id.

    Raises:
        InputError: a spot machine without a bucket, or a file that cannot be read.
    """
    if config.spot and not config.bucket:
        raise InputError(
            "a spot machine may vanish, and its disk with it", where="--with spot",
            fix="Name a bucket for the job's folder: --with bucket=s3://name",
        )  # fmt: skip
    # SkyPilot's names have letters and digits of ASCII, and single dashes between them.
    machine = re.sub(r"[^a-z0-9]+", "-", f"studio-{folder.name}".lower()).strip("-")
    made = new_folder(folder)
    try:
        cargo = pack(run.model_dump(mode="json"), settings, f"{_HOME}/studio/files", made / "desk")
        for place, source in _described(cargo.paths, made, folder).items():
            cargo.paths[place] = source
        (made / "job").mkdir()
        (made / "wheel").mkdir()
        write_request(made / "job", JobRequest("train", name, cargo.config))
        write_state(made / "job" / "state.json", JobState(status="queued"))
        wheel.make_wheel(made / "wheel" / wheel.name())
        write_atomic(made / "wheel" / "constraints.txt", wheel.constraints())
        write_atomic(made / FILE, _yaml(_content(machine, cargo.paths, plan, gigabytes, config, folder)))
        put_folder(made, folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    if config.spot:  # only a managed job is put on another machine
        command = ["sky", "jobs", "launch", "--yes", "--name", machine, str(folder / FILE)]
    else:
        command = ["sky", "launch", "--yes", "--detach-run", "--cluster", machine, str(folder / FILE)]
    inner = f"jobs/{folder.name}"
    watch = f"{config.bucket}/{inner}" if config.bucket else f"ssh://{machine}/~/studio/out/{inner}"
    return Task(folder / FILE, command, watch)


def _described(paths: dict[str, str], made: Path, folder: Path) -> dict[str, str]:
    """Files that were written on the desk, by the place that they have once the folder is renamed."""
    return {
        place: str(folder / Path(source).relative_to(made))
        for place, source in paths.items()
        if Path(source).is_relative_to(made)
    }


def _content(
    machine: str, paths: dict[str, str], plan: Plan, gigabytes: int, config: SkyConfig, folder: Path
) -> dict[str, Any]:
    gpus = [config.gpu] if config.gpu else [gpu for gpu, memory in GPUS.items() if memory == gigabytes]
    resources: dict[str, Any] = {
        "accelerators": dict.fromkeys(gpus, 1),
        "memory": f"{max(_LEAST_MEMORY, math.ceil(2 * plan.parameters * 2 / 1e9))}+",
        "disk_size": config.disk,
    }
    if config.infra:
        resources["infra"] = config.infra
    if config.spot:
        resources |= {"use_spot": True, "job_recovery": {"strategy": "FAILOVER", "max_restarts_on_errors": 0}}
    mounts: dict[str, Any] = {place.replace(_HOME, "~"): source for place, source in paths.items()}
    mounts |= {f"{_THERE}/job": str(folder / "job"), f"{_THERE}/wheel": str(folder / "wheel")}
    if config.bucket:
        # Files are appended to, which a plain mount of a bucket cannot do.
        mounts[_OUT] = {"source": config.bucket, "mode": "MOUNT_CACHED"}
    parts = ",".join([*wheel.extras(), "cuda"])
    return {
        "name": machine,
        "resources": resources,
        "file_mounts": mounts,
        "setup": LiteralScalarString(_SETUP.format(parts=parts)),
        "run": LiteralScalarString(_RUN.format(out=_OUT, id=folder.name, home=_HOME)),
    }


def _yaml(content: dict[str, Any]) -> str:
    yaml = YAML()
    yaml.width = 4096
    yaml.default_flow_style = False
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()

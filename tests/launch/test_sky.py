"""The task for SkyPilot: the machine by the memory plan, what is copied, and SkyPilot's own schema."""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from studio.foreign import parse_yaml
from studio.jobs.store.folder import JobFolder
from studio.settings import Settings
from tests.conftest import call_studio

PYTHON = os.environ.get("STUDIO_SKY_PYTHON", "")
# Its own reading of a file: all schemas, and that what is copied is there.
READ = """
import sys, sky, yaml, jsonschema
from sky.utils import schemas
for path in sys.argv[1:]:
    told = yaml.safe_load(open(path))
    jsonschema.validate(told, schemas.get_task_schema())
    jsonschema.validate(told["resources"], schemas.get_resources_schema())
    for mount in told["file_mounts"].values():
        if isinstance(mount, dict):
            jsonschema.validate(mount, schemas.get_storage_schema())
    task = sky.Task.from_yaml(path)
    print(sorted({str(one.accelerators) for one in task.resources}), task.use_spot)
"""


def written(home: Path, *more: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the command answers, and the content of the task."""
    done = call_studio(
        "launch", "demo/sft", "--to", "skypilot", "--dry-run", "--name", "far", "--json", *more, home=home
    )
    assert done.code == 0, done.stderr
    return done.json, parse_yaml(Path(done.json["task"]).read_text())


def test_a_task_has_all_that_the_run_needs(home: Path, settings: Settings, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "Say one.", "output": "One."}\n' * 12)
    answer, task = written(home, "--set", f"data.train=[{{path: '{rows}'}}]", "--set", "data.validation=0")
    # The demo's model fits on the smallest GPU that is rented.
    assert task["resources"]["accelerators"] == {"L4": 1, "A10G": 1, "A10": 1, "RTX4090": 1}
    assert "use_spot" not in task["resources"] and task["resources"]["memory"] == "16+"
    mounts = task["file_mounts"]
    assert all(Path(source).exists() for source in mounts.values())
    (place,) = [place for place, source in mounts.items() if source == str(rows)]
    job = JobFolder(Path(mounts["~/studio/job"]))
    path = job.request.config["data"]["train"][0]["path"]
    assert path == place.replace("~", "@HOME@") and job.state().status == "queued"
    (wheel,) = Path(mounts["~/studio/wheel"]).glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        assert "studio/launch/slurm/node.py" in opened.namelist()
    for script in (task["setup"], task["run"]):
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert answer["command"].startswith("sky launch --yes --detach-run --cluster studio-")
    assert answer["watch"].startswith("ssh://studio-") and answer["status"] == "written"


def test_the_run_begins_in_the_home_of_the_machine(home: Path, tmp_path: Path) -> None:
    """The start that the task holds, up to the process: paths are completed once, and a later machine goes on."""
    answer, task = written(home)
    there = tmp_path / "home of ubuntu"
    (there / "studio").mkdir(parents=True)
    (there / "studio" / "job").symlink_to(task["file_mounts"]["~/studio/job"])
    python = there / "studio" / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$STUDIO_HOME" "$@"\n')
    python.chmod(0o755)
    command, environment = ["bash", "-c", task["run"]], {**os.environ, "HOME": str(there)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    job = there / "studio" / "out" / "jobs" / Path(answer["task"]).parent.name
    assert ran.stdout.split(" -m ")[0] == f"{there}/studio/home" and str(job) in ran.stdout, ran.stderr
    assert "@HOME@" not in (job / "job.yaml").read_text()
    (job / "state.json").write_text("as the machine before left it")
    assert subprocess.run(command, env=environment).returncode == 0
    assert (job / "state.json").read_text() == "as the machine before left it"


def test_a_name_becomes_one_that_skypilot_takes(home: Path) -> None:
    answer, task = written(home, "--name", "Größe - v2_(α)")
    assert re.fullmatch(r"studio-[0-9]{8}-[0-9]{6}-gr-e-v2", task["name"]) and task["name"] in answer["command"]


def test_a_spot_machine_needs_a_bucket(home: Path) -> None:
    refused = call_studio("launch", "demo/sft", "--to", "skypilot", "--with", "spot=true", home=home)
    assert refused.code == 2 and "Name a bucket" in refused.stderr
    assert not list((home / "sky").glob("*"))


@pytest.mark.long
@pytest.mark.skipif(not PYTHON, reason="SkyPilot has an environment of its own: make test-skypilot")
def test_skypilot_reads_the_tasks(home: Path) -> None:
    plain, _ = written(home)
    asked = [
        "--with",
        "spot=true",
        "--with",
        "bucket=s3://runs/of-us",
        "--with",
        "infra=aws/us-east-1",
        "--with",
        "gpu=H100",
    ]
    spot, task = written(home, *asked)
    assert task["resources"]["use_spot"] is True and task["file_mounts"]["~/studio/out"]["mode"] == "MOUNT_CACHED"
    assert spot["command"].startswith("sky jobs launch --yes") and spot["watch"].startswith("s3://runs/of-us/jobs/")
    done = subprocess.run(
        [PYTHON, "-c", READ, plain["task"], spot["task"]], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().splitlines()[-2:]
    assert "L4" in first and first.endswith("False") and "H100" in second and second.endswith("True")

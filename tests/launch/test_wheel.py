"""The wheel that this installation makes of itself: whole, the same each time, and one that pip installs."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

import studio
from studio.launch.ssh import wheel


def test_a_wheel_is_whole_and_the_same_each_time(tmp_path: Path) -> None:
    file = tmp_path / wheel.name()
    first = wheel.make_wheel(file)
    assert wheel.make_wheel(file) == first == hashlib.sha256(file.read_bytes()).hexdigest()
    with zipfile.ZipFile(file) as opened:
        names = set(opened.namelist())
        listed = opened.read(f"finetune_studio-{studio.__version__}.dist-info/RECORD").decode().splitlines()
        for line in listed:
            name, digest, _ = line.rsplit(",", 2)
            if digest:
                right = base64.urlsafe_b64encode(hashlib.sha256(opened.read(name)).digest()).rstrip(b"=").decode()
                assert digest == f"sha256={right}"
    assert {line.rsplit(",", 2)[0] for line in listed} == names
    assert {"studio/launch/ssh/there.py", "studio/presets/demo/sft.yaml", "studio/docs/jobs.md"} <= names
    assert any(name.startswith("studio/assets/demo/") for name in names)
    assert not any("__pycache__" in name for name in names)


def test_pip_installs_it_and_it_runs_from_there(tmp_path: Path) -> None:
    file = tmp_path / wheel.name()
    wheel.make_wheel(file)
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*command, str(file)], check=True, stdin=subprocess.DEVNULL)
    shown = "import studio, studio.settings as s; print(studio.__file__, s.PRESETS.is_dir() and s.ASSETS.is_dir())"
    done = subprocess.run(
        [sys.executable, "-c", shown], env={"PYTHONPATH": str(target)}, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(target / "studio" / "__init__.py"), "True"], done.stderr


def test_constraints_are_the_versions_of_here() -> None:
    lines = wheel.constraints().splitlines()
    named = {Requirement(line).name for line in lines}
    assert {"torch", "transformers", "peft", "trl"} <= named and "ruff" not in named
    assert all("+" not in line for line in lines)

"""A run that another user of the machine works on, as on a machine where one has another name: by ssh, as root only."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from studio.jobs import find_job
from studio.settings import Settings
from tests.conftest import Measured, run_studio
from tests.launch.conftest import ROOT
from tests.parity.fixtures import tiny
from tests.ranks.made import config
from tests.support.programs.sshd import Sshd, needs_sshd

__all__ = ["tiny"]
NAME = "studio-test"
pytestmark = [
    needs_sshd,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("useradd") is None, reason="only root can make a user for a while"
    ),
]


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """An sshd that signs in a user who is there for this test only."""
    with tempfile.TemporaryDirectory(prefix="studio-user-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        folder.chmod(0o755)  # the user reads the keys that are allowed
        name, home = f"{NAME}-{os.getpid()}", folder / "home of user"
        # A password that nothing matches: one that is locked would lock the account.
        subprocess.run(["useradd", "--create-home", "--home-dir", home, "--password", "*", name], check=True)
        try:
            sshd = Sshd(folder / "sshd", name, home)
            for public in (sshd.folder, sshd.folder / "authorized_keys"):
                public.chmod(0o755)
            monkeypatch.setenv("PATH", f"{sshd.bin}{os.pathsep}{os.environ['PATH']}")
            yield sshd
            sshd.stop()
        finally:
            for process in psutil.process_iter(["username"]):
                if process.info["username"] == name:
                    process.kill()
            subprocess.run(["userdel", "--force", name], check=True, capture_output=True)


def python_for(other: Sshd) -> Path:
    """A Python with this studio that the user may read; a copy where this one lies in a home that is closed."""
    python = other.python(ROOT, sys.executable)
    if not fails(other, python):
        return python
    copied = other.folder / "copied"
    left_out = shutil.ignore_patterns("site-packages", "test", "__pycache__")
    shutil.copytree(sys.base_prefix, copied, symlinks=True, ignore=left_out)
    libraries = f"LD_LIBRARY_PATH={shlex.quote(str(copied / 'lib'))}"
    search = f"PYTHONPATH={shlex.quote(os.pathsep.join((str(ROOT), sysconfig.get_path('purelib'))))}"
    executable = copied / "bin" / Path(sys.executable).resolve().name
    python.write_text(f'#!/bin/sh\n{libraries} {search} exec {shlex.quote(str(executable))} "$@"\n')
    if said := fails(other, python):
        pytest.skip(f"another user cannot read this checkout or its libraries: {said}")
    return python


def fails(other: Sshd, python: Path) -> str:
    """What is said if the user cannot have the studio from a Python; "" if all is well."""
    command = ["runuser", "-u", other.user, "--", python, "-c", "import torch, studio.cli.main"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["nothing"])[-1]


@pytest.mark.long
def test_another_user_trains_it_and_the_result_is_ours(
    other: Sshd, tiny: Path, home: Path, settings: Settings, measured: Measured, tmp_path: Path
) -> None:
    python = python_for(other)
    theirs = other.home / ".finetune-studio-launch" / "home"
    theirs.mkdir(parents=True, mode=0o700)
    measured.tell(theirs)
    owner = pwd.getpwnam(other.user)
    for path in (theirs.parent, *theirs.parent.rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    values = config(tiny, tmp_path)
    values["training"] |= {"epochs": 1}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(values))
    done = run_studio(
        "launch", str(file), "--to", other.url, "--python", str(python), "--with", "poll=0.3", "--json", home=home
    )
    assert done.code == 0, done.stderr
    job = find_job(settings.jobs, done.json["id"])
    assert job.state().status == "completed" and job.request.machine == f"{other.user}@127.0.0.1"
    there = theirs / "jobs" / job.id / "model" / "adapter_model.safetensors"
    ours = job.model / "adapter_model.safetensors"
    assert ours.read_bytes() == there.read_bytes()
    # Rows and model went there for that user alone, and the result is this user's.
    assert there.stat().st_uid == owner.pw_uid and ours.stat().st_uid == os.geteuid()
    assert all(one.stat().st_mode & 0o077 == 0 for one in (theirs, *(theirs.parent / "files").iterdir()))
    assert str(other.home) not in job.environment_path.read_text()

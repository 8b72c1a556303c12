"""A machine that is reached by ssh: this one, by an sshd of its own and with another home."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Measured
from tests.support.prepared import link_model
from tests.support.programs.sshd import SSHD, Sshd

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """The machine, and `ssh` on PATH that knows how to reach it."""
    if SSHD is None:
        pytest.skip("sshd is missing: apt-get install openssh-server")
    sshd = Sshd(tmp_path / "sshd")
    monkeypatch.setenv("PATH", f"{sshd.bin}{os.pathsep}{os.environ['PATH']}")
    yield sshd
    sshd.stop()


@pytest.fixture
def python_there(there: Sshd) -> Path:
    """A Python there that has this very studio."""
    return there.python(ROOT, sys.executable)


@pytest.fixture
def home_there(there: Sshd, model_path: Path, measured: Measured) -> Path:
    """The STUDIO_HOME there, with the prepared model and the machine's speed."""
    home = there.home / ".finetune-studio-launch" / "home"
    measured.tell(home)
    link_model(model_path, home)
    return home

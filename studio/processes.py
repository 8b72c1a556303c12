"""Child processes that run a module of this very package.

Python puts the folder a child starts in before all others (`python -m`), so a `json.py` beside somebody's rows would be
run. `-P` leaves that folder out, and the package is named instead, wherever it lies.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import psutil

# How threads of torch and llama.cpp wait for their next product, where the person says nothing of it. By OpenMP's
# default they spin for milliseconds, and take the processor from whoever else computes. Where they sleep at once,
# waking them takes a virtual machine longer than most products do. So they spin for some microseconds.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "500"}

# torch's library for bfloat16 compiles each product for the number of rows that it has, and by default keeps 1,024 of
# them in each of two caches. Micro-batches of different lengths make that a gigabyte, of which a step needs some dozen.
KEPT = {"LRU_CACHE_CAPACITY": "128", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128"}

_PACKAGE_PARENT = Path(__file__).resolve().parent.parent


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of the studio."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_of(command: Sequence[str]) -> tuple[str, list[str]] | None:
    """Module and arguments of a command line that `module_command` made; None for any other."""
    *start, _ = module_command("")
    if list(command[: len(start)]) != start or len(command) == len(start):
        return None
    module, *arguments = command[len(start) :]
    return module, arguments


def waiting() -> dict[str, str]:
    """What the environment lacks of `WAITING`: all of it, or nothing where the person has set one of them."""
    return {} if WAITING.keys() & os.environ.keys() else WAITING


def for_libraries() -> dict[str, str]:
    """What the environment lacks for the libraries that compute: how threads wait, and what is kept of products."""
    return waiting() | {name: value for name, value in KEPT.items() if name not in os.environ}


def child_environment(**more: str) -> dict[str, str]:
    """This process's environment with what such a child needs to find the package and to compute well, and `more`."""
    search = os.pathsep.join(filter(None, (str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH"))))
    return {**for_libraries(), **os.environ, "PYTHONPATH": search, **more}


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used; 0 where it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def kill(process: subprocess.Popen[bytes], *pipes: IO[Any] | None) -> None:
    """End a process that holds nothing, and close what leads to it; a request that it did not read is lost."""
    process.kill()
    process.wait()
    for pipe in pipes:
        with contextlib.suppress(BrokenPipeError):
            if pipe is not None:
                pipe.close()

"""The page's cold start, measured from outside: seconds to HTTP 200, memory, and whether torch got in."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class PageStart:
    """What a start cost.

    Attributes:
        seconds: from the start of the process to the first HTTP 200.
        megabytes: resident memory of the web process after that (1e6 bytes).
        has_torch: its loaded libraries include torch's.
    """

    seconds: float
    megabytes: float
    has_torch: bool


@contextmanager
def served(home: Path, limit: float = 60.0) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """Start the page in a process of its own; yields its address, the process, and the seconds to its first answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "studio", "ui", "--port", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "STUDIO_HOME": str(home)},
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}/"
    try:
        while True:
            try:
                with urllib.request.urlopen(address, timeout=5) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                if time.monotonic() - began > limit or process.poll() is not None:
                    raise
                time.sleep(0.02)
        yield address, process, time.monotonic() - began
    finally:
        process.terminate()
        process.wait(20)


def cold_start(home: Path) -> PageStart:
    """Start the page, wait for its first answer, measure it and end it."""
    with served(home) as (_, process, seconds):
        time.sleep(2)  # what it loads right after its first answer counts too
        watched = psutil.Process(process.pid)
        libraries = [mapped.path for mapped in watched.memory_maps()]
        return PageStart(seconds, watched.memory_info().rss / 1e6, any("/torch/" in path for path in libraries))

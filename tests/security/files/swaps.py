"""A process that swaps a file with a link all the time, and what is read of both meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.errors import InputError

INSIDE, OUTSIDE = "INSIDE-0815", "OUTSIDE-4711"
SECONDS = 1.5
# Names change places by rename, so that there always is one: file, link, file, link.
SWAPPER = """
import os, sys
name, file, link = sys.argv[1:]
while True:
    os.rename(link, name + ".new"); os.rename(name, file); os.rename(name + ".new", name)
    os.rename(file, name + ".new"); os.rename(name, link); os.rename(name + ".new", name)
"""


@contextmanager
def swapped(path: Path, outside: Path) -> Iterator[None]:
    """`path` is itself and a link to `outside` in turn, thousands of times a second."""
    link = path.with_name(f".{path.name}.link")
    link.symlink_to(outside)
    command = [sys.executable, "-c", SWAPPER, str(path), str(path.with_name(f".{path.name}.file")), str(link)]
    swapper = subprocess.Popen(command)
    try:
        yield
    finally:
        swapper.kill()
        swapper.wait()
        for left in path.parent.glob(f".{path.name}.*"):
            left.unlink() if left.is_symlink() or left.is_file() else None


def tried(read: Callable[[], object], seconds: float = SECONDS) -> tuple[int, int]:
    """How often what is inside was read, and what is outside."""
    inside = outside = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found = str(read())
        except (InputError, OSError) as error:
            found = str(error)
        inside, outside = inside + (INSIDE in found), outside + (OUTSIDE in found)
    return inside, outside


def rows(text: str) -> str:
    return json.dumps({"prompt": text, "completion": text}) + "\n"

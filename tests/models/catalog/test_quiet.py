"""What libraries say when a process ends is in no log; what the studio says last, and the exit status, stay."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import atexit, os, sys
from studio.models.catalog.quiet import quiet_imports

quiet_imports()
atexit.register(lambda: print("the last words", file=sys.stderr))
quiet_imports()  # as a job does that comes from a warm process

class Late:
    def __del__(self, write=os.write):
        write(2, b"leaked 4 instances")

kept = Late()
print("before", file=sys.stderr)
sys.exit(3)
"""


def test_only_what_comes_after_the_end_is_dropped() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.split("\n") == ["before", "the last words", ""]


def test_it_would_be_said() -> None:
    program = _PROGRAM.replace("quiet_imports()", "")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "leaked 4 instances" in done.stderr

"""What tests do with processes that they left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.processes import end_jobs


def test_jobs_of_one_home_are_ended_and_no_other_process(tmp_path: Path) -> None:
    def started(home: Path, module: str) -> subprocess.Popen[bytes]:
        code = "import sys; print(flush=True); sys.stdin.read()"
        return subprocess.Popen(
            [sys.executable, "-c", code, module], env={**os.environ, "STUDIO_HOME": str(home)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    mine, elsewhere = tmp_path / "home", tmp_path / "other"
    all_of_them = [
        started(mine, "studio.jobs.run.warm"),
        started(elsewhere, "studio.jobs.run.warm"),
        started(mine, "app.py"),
    ]
    try:
        for process in all_of_them:
            assert process.stdout is not None and process.stdout.readline()
        end_jobs(mine)
        assert all_of_them[0].wait(10) < 0
        assert [process.poll() for process in all_of_them[1:]] == [None, None]
    finally:
        for process in all_of_them:
            process.kill()
            process.communicate()

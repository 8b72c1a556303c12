"""Finding processes of a home."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil


def supervisors(home: Path) -> list[psutil.Process]:
    """Processes that supervise this home."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "studio.jobs.run.supervisor" in (process.info["cmdline"] or []):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("STUDIO_HOME") == str(home):
                    found.append(process)
    return found

"""The line on this machine at the foot of the left column: processor, memory, disk.

It shows the measured speed once `studio.models.device` has measured it; it starts no measurement itself.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

import psutil

from studio.settings import Settings
from studio.ui.text import gigabytes


def device_line(settings: Settings) -> dict[str, Any]:
    """Return {"first", "second"}: two short lines of text."""
    memory = psutil.virtual_memory()
    folder = settings.home if settings.home.exists() else settings.home.parent
    disk = shutil.disk_usage(folder).free if folder.exists() else 0
    return {
        "first": f"CPU · {os.cpu_count()} cores",
        "second": f"memory {gigabytes(memory.total - memory.available)} of {gigabytes(memory.total)} GB"
        f" · disk {disk / 1e9:.0f} GB",
    }

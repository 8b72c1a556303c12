"""Which tests run in one worker, one after the other: those that share what takes long to make.

A module's tests stay together (its server, its loaded model), the tests of a folder that shares more than that too. The
groups that take longest begin first, so that no worker is left with one of them at the end.
"""

from __future__ import annotations

import pytest

FOLDERS = ("tests/chat", "tests/export")
# Fixture -> group: what the whole session shares.
SHARED = {"demo_result": "demo", "trained_run": "demo", "exported_job": "demo", "clicked_runs": "demo"}
SHARED |= {"short_run": "short", "short_export": "short"}
FIRST = ("demo", "short", "tests/browser", "tests/parity", "tests/export", "tests/train", "tests/chat")


def group_of(item: pytest.Item) -> str:
    """Name of the group that a test belongs to."""
    for fixture in getattr(item, "fixturenames", ()):
        if fixture in SHARED:
            return SHARED[fixture]
    path = item.path.relative_to(item.config.rootpath).as_posix()
    return next((folder for folder in FOLDERS if path.startswith(f"{folder}/")), path)


def arrange(items: list[pytest.Item]) -> None:
    """Give each test its group and put the long groups first; the order within a group stays."""
    place = {}
    for item in items:
        group = group_of(item)
        item.add_marker(pytest.mark.xdist_group(group))
        place[item] = next((at for at, name in enumerate(FIRST) if group.startswith(name)), len(FIRST))
    items.sort(key=place.__getitem__)

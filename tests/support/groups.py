"""Which tests run in one worker, one after the other: those that share what takes long to make.

A module's tests stay together (its server, its loaded model), the tests of some folders and those of the trained runs
too. What takes longest begins first, so that no worker is left with it at the end.

By paths, not by xdist's marks: with pytest 9.2 a mark no longer reaches the name by which xdist 3.8 groups.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

FOLDERS = ("tests/chat", "tests/export")
# The session's short run, its export and the demo (`tests/conftest.py`) are made in the worker that has these.
# So is the web process that the everyday tests of `tests/browser` share.
TRAINED = (
    "tests/browser/results/test_chain.py", "tests/browser/results/test_chat.py", "tests/browser/setup/test_data_tab.py",
    "tests/browser/setup/test_setup_tabs.py", "tests/browser/training/test_training_tab.py", "tests/cli/test_chain.py",
    "tests/cli/test_demo.py", "tests/evaluate/test_answers.py", "tests/models/plan/test_peak.py",
    "tests/security/test_other_users.py", "tests/test_readme.py",
)  # fmt: skip
FIRST = ("trained", "tests/families", "tests/browser", "tests/parity", "tests/export", "tests/train", "tests/chat")


def group_of(nodeid: str) -> str:
    """Name of the group that a test belongs to."""
    path = nodeid.partition("::")[0]
    if path in TRAINED:
        return "trained"
    return next((folder for folder in FOLDERS if path.startswith(f"{folder}/")), path)


def arrange(items: list[pytest.Item]) -> None:
    """Put the long groups first; the order within a group stays."""

    def place(item: pytest.Item) -> int:
        group = group_of(item.nodeid)
        return next((at for at, name in enumerate(FIRST) if group.startswith(name)), len(FIRST))

    items.sort(key=place)


class Groups(LoadScopeScheduling):
    """xdist's scheduler over our groups."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

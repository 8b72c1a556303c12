"""The config of a run that is started once more, with some options changed."""

from __future__ import annotations

import copy
from typing import Any


def changed_config(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a config with options changed, by dotted name; the given one stays as it is."""
    changed = copy.deepcopy(config)
    for path, value in changes.items():
        *sections, name = path.split(".")
        target = changed
        for section in sections:
            target = target.setdefault(section, {})
        target[name] = value
    return changed

"""A job's config with some options changed, as the start of another job."""

from __future__ import annotations

import copy
from typing import Any

from studio.errors import InputError


def changed_config(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a config with some options changed.

    Args:
        config: sections and options, as job.yaml has them.
        changes: new values by dotted name, such as `training.epochs`.

    Raises:
        InputError: a name goes on below an option.
    """
    changed = copy.deepcopy(config)
    for path, value in changes.items():
        target = changed
        *sections, name = path.split(".")
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise InputError(f"there is no option '{path}'", where=path, fix="docs/config.md lists them")
        target[name] = value
    return changed

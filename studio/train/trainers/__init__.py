"""How each method is trained: a module with `build(setup)` for each, on TRL's trainers where there is one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studio.train.setup import Setup


def build(setup: Setup) -> Any:
    """Make the trainer of a run; TRL is imported here."""
    return importlib.import_module(f"studio.train.trainers.{setup.config.method.kind.trainer}").build(setup)

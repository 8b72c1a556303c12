"""Presets: runs that ship with the studio as YAML files and load by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from studio.config.load import load_run
from studio.config.run import RunConfig
from studio.errors import InputError
from studio.settings import PRESETS

DEMO = "demo/sft"


def preset_names() -> list[str]:
    """Names of all presets: the path below presets/ without .yaml."""
    return sorted(str(path.relative_to(PRESETS).with_suffix("")) for path in PRESETS.rglob("*.yaml"))


def load_named(name: str, sets: list[str] | None = None) -> RunConfig:
    """Load a preset by name, or a YAML file by path.

    Raises:
        InputError: neither exists (the nearest preset is named), or the content is wrong.
    """
    if name in preset_names():
        return load_run(PRESETS / f"{name}.yaml", sets)
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or path.exists():
        return load_run(path, sets)
    near = difflib.get_close_matches(name, preset_names(), n=1, cutoff=0.4)
    fix = f"Did you mean '{near[0]}'?" if near else f"Presets are: {', '.join(preset_names())}"
    raise InputError(f"there is no preset or file '{name}'", fix=fix)

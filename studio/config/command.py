"""A run as one command: the nearest preset, and `--set` for what differs from it."""

from __future__ import annotations

import json
import shlex
from operator import attrgetter
from typing import Any

from studio.config.describe import OptionSpec, options_of, value_at
from studio.config.presets import DEMO, METHOD, TUNING, demo_of, load_named
from studio.config.run import RunConfig


def train_command(config: RunConfig) -> str:
    """Return the command line that trains this run: `studio train demo/sft --set training.epochs=3`."""
    values = config.model_dump(mode="json")
    preset = demo_of(value_at(values, METHOD)) or DEMO
    named = [f"{path}={value_at(values, path)}" for path in (METHOD, TUNING)]
    # What a preset has for another tuning goes back to the default: so does the line that is compared with.
    usual = load_named(preset).model_dump(mode="json")
    differ = [value_at(usual, path) != value_at(values, path) for path in (METHOD, TUNING)]
    sets = [item for item, other in zip(named, differ, strict=True) if other]
    base = load_named(preset, sets).model_dump(mode="json")
    for spec in options_of(RunConfig):
        if spec.path in (METHOD, TUNING) or value_at(values, spec.path) == value_at(base, spec.path):
            continue
        value = value_at(values, spec.path)
        if spec.kind == "list":  # of mappings, of which only what was said is shown
            value = [one.model_dump(mode="json", exclude_defaults=True) for one in attrgetter(spec.path)(config)]
        sets.append(f"{spec.path}={_text(spec, value)}")
    return " ".join(["studio train", preset, *(f"--set {shlex.quote(item)}" for item in sets)])


def _text(spec: OptionSpec, value: Any) -> str:
    """A value as `--set` reads it."""
    plain = isinstance(value, str) and value.strip() == value and value[:1] not in ("'", '"')
    if plain and spec.only_text and value not in ("", "~", "null"):
        return str(value)
    if isinstance(value, str) and value.isidentifier() and value.lower() not in ("true", "false", "null"):
        return value
    return json.dumps(value, ensure_ascii=False)

"""What had another name before: the old one is still read wherever a config comes in.

YAML files, `--set`, `--sweep`, job.yaml of old runs and drafts that a browser kept go through here. Nothing is written
under an old name. Where an option is given under both, the old one stays, and is refused as one that does not exist.
"""

from __future__ import annotations

from typing import Any

from studio.methods import METHODS

# TRL's `packing` fills rows up to the limit; what this option does is called `padding_free` there.
RENAMED = {"training.packing": "training.padding_free"}


def current_name(path: str) -> str:
    """The name of today for a dotted name."""
    return RENAMED.get(path, path)


def by_current_name(values: dict[str, Any]) -> dict[str, Any]:
    """Values by dotted name, each under its name of today; one that is there under both keeps that of today."""
    values = {current_name(path): value for path, value in values.items() if path in RENAMED} | {
        path: value for path, value in values.items() if path not in RENAMED
    }
    return _own_method(values, "method.")[0]


def with_current_names(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a config by sections under the names of today, and a sentence for each old name; `raw` stays as it is."""
    notes = []
    for old, new in RENAMED.items():
        section, _, name = old.rpartition(".")
        values, today = raw.get(section), new.rpartition(".")[2]
        if isinstance(values, dict) and name in values and today not in values:
            raw = {**raw, section: {today if key == name else key: value for key, value in values.items()}}
            notes.append(f"{old} is called {new} now")
    if isinstance(raw.get("method"), dict):
        method, more = _own_method(raw["method"], "")
        raw, notes = {**raw, "method": method}, notes + more
    return raw, notes


def _own_method(values: dict[str, Any], prefix: str) -> tuple[dict[str, Any], list[str]]:
    """Take out words of an option that are methods by themselves now, which the method that had them becomes."""
    notes = []
    for method in METHODS.values():
        owner, option, word = method.formerly or ("", "", "")
        if word and values.get(f"{prefix}{option}") == word:
            values = {path: value for path, value in values.items() if path != f"{prefix}{option}"}
            if values.get(f"{prefix}name") == owner:
                values = {**values, f"{prefix}name": method.name}
                notes.append(f"method.{option} {word} is the method {method.name} now")
    return values, notes

"""What had another name before: the old one is still read wherever a config comes in.

YAML files, `--set`, `--sweep`, job.yaml of old runs and drafts that a browser kept go through here as they come in, so
that all else knows the names of today only. Nothing is written under an old name. Where an option is given under both,
the old one stays, and is refused as one that does not exist.
"""

from __future__ import annotations

from typing import Any

from studio.methods import METHODS

# TRL's `packing` fills rows up to the limit; what this option does is called `padding_free` there.
RENAMED = {"training.packing": "training.padding_free"}


def current_name(path: str) -> str:
    """The name of today for a dotted name."""
    return RENAMED.get(path, path)


def with_current_names(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a config by sections under the names of today, and a sentence for each old name; `raw` stays as it is."""
    notes = []
    for old, new in RENAMED.items():
        section, _, name = old.rpartition(".")
        values, today = raw.get(section), new.rpartition(".")[2]
        if isinstance(values, dict) and name in values and today not in values:
            raw = {**raw, section: {today if key == name else key: value for key, value in values.items()}}
            notes.append(f"{old} is called {new} now")
    for method in METHODS.values():
        # A word of another method's option that is a method by itself now; beside a third one it had no effect.
        owner, option, word = method.formerly or ("", "", "")
        values = raw.get("method")
        if word and isinstance(values, dict) and values.get(option) == word:
            values = {name: value for name, value in values.items() if name != option}
            if values.get("name") == owner:
                values["name"] = method.name
                notes.append(f"method.{option} {word} is the method {method.name} now")
            raw = {**raw, "method": values}
    return raw, notes


def by_current_name(values: dict[str, Any]) -> dict[str, Any]:
    """The same for values by dotted name, as a browser keeps them."""
    raw: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        section, _, name = path.partition(".")
        raw.setdefault(section, {})[name] = value
    return {
        f"{section}.{name}": value for section, own in with_current_names(raw)[0].items() for name, value in own.items()
    }

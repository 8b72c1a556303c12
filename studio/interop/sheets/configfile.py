"""A command line that names a config: `axolotl train run.yml --learning-rate 1e-4`, `trl sft --config run.yaml`."""

from __future__ import annotations

from typing import Any

from studio.errors import InputError
from studio.foreign import as_path
from studio.interop.reading import Given, read_file
from studio.interop.values import number
from studio.reach import page


def with_file(given: Given, tool: str) -> Given:
    """Return what a command line says over the file that it names; anything else as it is.

    `--trl.beta` and `--trl__beta` are keys of the mapping `trl`.

    Args:
        given: a file, a text or a command line.
        tool: its title, for the error.

    Raises:
        InputError: the file that is named is not there, or is no config.
    """
    command = given.command
    if command is None:
        return given
    named = given.values.get("config") or next((word for word in command.words if _is_config(word)), None)
    values = _nested({key: value for key, value in given.values.items() if key != "config"})
    lines = {key: given.lines.get(key, 0) for key in values}
    given = Given(values, lines, given.where, given.kind, given.text, given.folder, command)
    if named is None:
        return given
    if not isinstance(named, str) or str(named).startswith(("http://", "https://")):
        raise InputError(
            f"its config is at an address ({named!s:.60}), and nothing is downloaded", where=given.where,
            fix=f"Download it, and give the file to {tool} or to the studio",
        )  # fmt: skip
    path = as_path(named)
    if page() is not None:
        raise InputError(
            f"the command reads {path.name:.60}, which is not here", where=given.where,
            fix="Import that file, and change what the command changes",
        )  # fmt: skip
    if given.folder is not None and not path.is_absolute() and not path.exists():
        path = given.folder / path
    under = read_file(path)
    if under.kind != "mapping":
        raise InputError("this is not YAML or JSON", where=str(path), fix="Name the config")
    for key, value in values.items():
        before = under.values.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            values[key] = {**before, **value}
    return given.merged(under)


def _is_config(word: str) -> bool:
    return word.lower().endswith((".yml", ".yaml", ".json"))


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        section, dot, name = key.replace("__", ".").partition(".")
        if not dot or not name:
            found[key] = value
        elif isinstance(inner := found.setdefault(section, {}), dict):
            inner[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    """A number of a mapping, which YAML would have read as one."""
    try:
        return number(value) if isinstance(value, str) else value
    except ValueError:
        return value

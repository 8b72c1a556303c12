"""Presets: runs that ship with the studio as YAML files and load by name.

What a preset sets belongs to its method and its tuning. With another one of them it goes back to the default, which is
`auto` wherever there is one, unless a person has set it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from studio.config.describe import OptionSpec, options_of
from studio.config.load import apply_set, load_run, load_yaml, run_of
from studio.config.run import RunConfig
from studio.errors import InputError
from studio.foreign import as_path
from studio.settings import PRESETS

DEMO = "demo/sft"
METHOD, TUNING = "method.name", "tuning.name"
_SECTIONS = ("method", "tuning", "training")


def preset_names() -> list[str]:
    """Names of all presets: the path below presets/ without .yaml."""
    return sorted(str(path.relative_to(PRESETS).with_suffix("")) for path in PRESETS.glob("*/*.yaml"))


def preset_title(name: str) -> str:
    """What a preset is for, in one line: the first comment of its file."""
    with (PRESETS / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()


def load_named(name: str, sets: list[str] | None = None, tell: Callable[[str], None] | None = None) -> RunConfig:
    """Load a preset by name, or a YAML file by path.

    Args:
        name: of the preset, or a path.
        sets: values of single options, `a.b=c`. With another method or tuning than the preset's they are the only ones
            that hold; a file of a person's own is theirs in all that it says.
        tell: told in a sentence what of a preset went back because of that, and which options have another name now.

    Raises:
        InputError: neither exists (the nearest preset is named), or the content is wrong.
    """
    if name in preset_names():
        return _preset(name, sets or [], tell or (lambda text: None))
    path = as_path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return load_run(path, sets, tell)
    near = difflib.get_close_matches(name, preset_names(), n=1, cutoff=0.4)
    fix = f"Did you mean '{near[0]}'?" if near else f"Presets are: {', '.join(preset_names())}"
    raise InputError(f"there is no preset or file '{name}'", fix=fix)


def belongs(spec: OptionSpec, *, method: bool) -> bool:
    """Whether an option that a preset sets goes back with another method, or (`method` False) with another tuning.

    With another tuning the settings of the method stay, and those of the training that have no `auto`, such as epochs.
    """
    if spec.path in (METHOD, TUNING) or spec.section not in _SECTIONS:
        return False
    return method or spec.section == "tuning" or (spec.section == "training" and spec.auto)


def demo_of(method: str) -> str:
    """Name of the preset with a method's demo data; "" if it has none."""
    name = f"demo/{method}"
    return name if name in preset_names() else ""


def _preset(name: str, sets: list[str], tell: Callable[[str], None]) -> RunConfig:
    file = PRESETS / f"{name}.yaml"
    raw = load_yaml(file)
    wanted: dict[str, Any] = {}
    given = {apply_set(wanted, item) for item in sets}
    method, tuning = (_at(raw, path) for path in (METHOD, TUNING))
    new_method, new_tuning = _at(wanted, METHOD) or method, _at(wanted, TUNING) or tuning
    if (method, tuning) == (new_method, new_tuning):
        return run_of(raw, sets, str(file), tell)
    other = demo_of(str(new_method)) if name.startswith("demo/") and new_method != method else ""
    if other and not any(path.startswith("data.train") for path in given):
        tell(f"{name} is for {method}, so the data and settings of {other} are taken")
        raw = load_yaml(PRESETS / f"{other}.yaml")
        method, tuning = new_method, _at(raw, TUNING)
    went = []
    for spec in options_of(RunConfig):
        value = _at(raw, spec.path)
        if value is None or spec.path in given or not belongs(spec, method=new_method != method):
            continue
        if new_method == method and new_tuning == tuning:
            continue
        del raw[spec.section][spec.name]
        if value != spec.default:
            went.append(f"{spec.path} ({value})")
    if went:
        meant, now = f"{method} with {tuning}", f"{new_method} with {new_tuning}"
        tell(f"{name} is for {meant}; with {now} these of it go back to their defaults: {', '.join(went)}")
    return run_of(raw, sets, str(file), tell)


def _at(raw: dict[str, Any], path: str) -> Any:
    section, _, name = path.rpartition(".")
    values = raw.get(section) if section else raw
    return values.get(name) if isinstance(values, dict) else None

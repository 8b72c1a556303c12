"""Which options the run reads as the form stands, and which values that were set it leaves out.

By method, by tuning, and by the value of the option that one needs (`OptionSpec.needs`). assets/form/form.js hides what
is not read by the same rules, at once; the plan line names the values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from studio.config.describe import OptionSpec
from studio.config.presets import METHOD, TUNING
from studio.errors import InputError
from studio.methods import METHODS
from studio.tunings import title_of
from studio.ui.form.fields import SWITCH, from_field, to_field

Specs = Mapping[str, OptionSpec]
_LONGEST = 40


def reads(specs: Specs, path: str, values: Mapping[str, Any]) -> bool:
    """Whether the run reads an option.

    Args:
        specs: all options by dotted name.
        path: dotted name of the option.
        values: by option, as the fields hold them.
    """
    spec = specs[path]
    if not spec.applies(str(values.get(METHOD)), str(values.get(TUNING))):
        return False
    return spec.needs is None or spec.needs[0] not in values or _fits(spec, specs[spec.needs[0]], values)


def _fits(spec: OptionSpec, needed: OptionSpec, values: Mapping[str, Any]) -> bool:
    try:
        value = from_field(needed, values[needed.path])
    except InputError:
        return True  # it is being typed
    return spec.is_read_with(re.split(r"\s*,\s*", value) if needed.kind == "text" and value else value)


def rules(specs: Specs, field_id: Any) -> dict[str, Any]:
    """For the page: of each option that needs another one the place of that one among the values, and its words.

    Args:
        specs: all options by dotted name, in the order in which the page has their values.
        field_id: what gives the id of an option's component.
    """
    places = {path: at for at, path in enumerate(specs)}
    return {field_id(path): [places[spec.needs[0]], list(spec.needs[1])] for path, spec in specs.items() if spec.needs}


def left_out(specs: Specs, values: Mapping[str, Any]) -> str:
    """Name the values that were set and are not read, with what reads them, in a sentence; "" if there are none.

    Args:
        specs: all options by dotted name.
        values: by option, as the fields hold them.
    """
    told = [
        f"{spec.title} {_shown(values[path])} ({_reader(specs, spec, values)})"
        for path, spec in specs.items()
        if path in values and not reads(specs, path, values) and _is_set(spec, values[path])
    ]
    return f"Set, but not used with the other settings of this run: {'; '.join(told)}." if told else ""


def _is_set(spec: OptionSpec, value: Any) -> bool:
    try:
        return bool(from_field(spec, value) != from_field(spec, to_field(spec, spec.default)))
    except InputError:
        return value not in ("", None, [])


def _shown(value: Any) -> str:
    text = {True: "on", False: "off"}.get(value, "") if isinstance(value, bool) else ""
    text = text or (", ".join(map(str, value)) if isinstance(value, list) else str(value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _reader(specs: Specs, spec: OptionSpec, values: Mapping[str, Any]) -> str:
    """What would read it: "for DPO or SimPO", "for LoRA", "needs RoPE scaling linear or yarn"."""
    if spec.methods and values.get(METHOD) not in spec.methods:
        return f"for {_either([METHODS[word].title for word in spec.methods])}"
    if spec.tunings and values.get(TUNING) not in spec.tunings:
        return f"for {_either([title_of(word) for word in spec.tunings])}"
    if spec.needs is None:
        raise ValueError(f"{spec.path} is read")
    needed = specs[spec.needs[0]]
    words = list(spec.needs[1]) or ([word for word in SWITCH if SWITCH[word]] if needed.kind == "flag" else [])
    return f"needs {needed.title} {_either(words)}".rstrip()


def _either(words: list[str]) -> str:
    """The words with "or" before the last one."""
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))

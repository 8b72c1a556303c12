"""One value of a recipe tried in several ways: a recipe for each, all checked before the first is queued."""

from __future__ import annotations

import copy
import difflib
from typing import Any

from ruamel.yaml.error import YAMLError

from studio.errors import InputError
from studio.foreign import parse_yaml
from studio.merge.recipe import read_recipe, write_recipe

WHERE = "--sweep"
_MOST = 20


def variants(text: str, item: str, where: str) -> list[tuple[float, str]]:
    """Return each value with the recipe that has it.

    Args:
        text: of the recipe.
        item: PLACE=VALUE,VALUE, such as models.0.parameters.weight=0.2,0.5,0.8.
        where: file of the recipe, for errors.

    Raises:
        InputError: the recipe has no such place, or a value is no number.
    """
    place, equals, given = item.partition("=")
    if not equals or not place.strip():
        raise InputError(
            f"'{item:.100}' is not PLACE=VALUES", where=WHERE, fix="Write it like models.0.parameters.weight=0.2,0.8"
        )
    numbers = _numbers(given)
    raw = read_recipe(text, where).renamed({})
    return [(number, write_recipe(_changed(raw, place.strip(), number))) for number in numbers]


def _numbers(given: str) -> list[float]:
    try:
        values = parse_yaml(f"[{given}]")
    except (YAMLError, ValueError):
        values = []
    numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) != len(values) or not 2 <= len(numbers) <= _MOST or len(set(numbers)) < len(numbers):
        raise InputError(
            f"'{given:.100}' is not a list of 2 to {_MOST} different numbers", where=WHERE,
            fix="Write the values like 0.2,0.5,0.8",
        )  # fmt: skip
    return [float(one) for one in numbers]


def _changed(raw: dict[str, Any], place: str, number: float) -> dict[str, Any]:
    changed = copy.deepcopy(raw)
    target: Any = changed
    parts = place.split(".")
    for at, part in enumerate(parts):
        known = [str(one) for one in (range(len(target)) if isinstance(target, list) else target)]
        last = at == len(parts) - 1
        new = last and isinstance(target, dict) and at and parts[at - 1] == "parameters"
        if part not in known and not new:
            near = difflib.get_close_matches(part, known, n=1, cutoff=0.5)
            raise InputError(
                f"the recipe has no '{part:.60}' in '{'.'.join(parts[:at]) or 'it'}'", where=WHERE,
                fix=f"Did you mean '{near[0]}'?" if near else f"There are {', '.join(known) or 'none'}",
            )  # fmt: skip
        key: Any = int(part) if isinstance(target, list) else part
        if last:
            target[key] = number
        else:
            target = target[key]
            if not isinstance(target, list | dict):
                raise InputError(f"'{part:.60}' holds a value and no places", where=WHERE, fix="Name the value itself")
    return changed

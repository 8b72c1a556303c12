"""One value of a recipe tried in several ways: a recipe for each, all checked before the first is queued."""

from __future__ import annotations

import copy
import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml.error import YAMLError

from studio.config.jobs import MergeConfig
from studio.errors import InputError
from studio.export.files import in_words as disk_words
from studio.export.files import require_space
from studio.foreign import parse_yaml
from studio.jobs import JobFolder, submit
from studio.merge.asking import Asked, disk_of, prepare
from studio.merge.recipe import Recipe, Values, read_recipe, write_recipe
from studio.merge.rules import require_sense
from studio.settings import Settings

WHERE = "sweep"
MOST = 20


@dataclass(frozen=True)
class Sweep:
    """Merges that can be queued, one for each value.

    Attributes:
        first: what was found of the first of them; the others differ in one number.
        place: in the recipe.
        configs: of the merges, by value.
        seconds: that all of them should take; None while a model is not here yet.
        bytes: that their children take on the disk; None while a model is not here yet.
    """

    first: Asked
    place: str
    configs: dict[float, MergeConfig]

    @property
    def seconds(self) -> float | None:
        """See the class."""
        return None if self.first.seconds is None else self.first.seconds * len(self.configs)

    @property
    def bytes(self) -> int | None:
        """See the class."""
        return None if self.first.bytes is None else self.first.bytes * len(self.configs)


def prepare_sweep(
    text: str, place: str, values: Sequence[float], settings: Settings, where: str, **options: Any
) -> Sweep:
    """Check the merges of a sweep, the disk for all of their children included.

    Args:
        text: of the recipe.
        place: of the varied value in it, such as models.0.parameters.weight.
        values: that it gets.
        settings: whose runs and models; home for the children.
        where: file of the recipe, for errors.
        options: of the merges, and light, as in `prepare`.

    Raises:
        InputError: there are no rows to compare the children on, the recipe has no such place, or one of the recipes
            cannot be merged.
        StudioError: memory or disk is too small.
    """
    if options.get("evaluate") is None:
        raise InputError("a sweep compares its children on rows", where=WHERE, fix="Name a file of rows (--evaluate)")
    recipes = variants(text, place, values, where)
    (value, written), *rest = recipes
    first = prepare(written, settings, where, **options, varied={place: value})
    configs = {value: first.config}
    for value, written in rest:
        # The models are the same, and so is what was found of them.
        require_sense(read_recipe(written, where), where)
        changed = {"recipe": written, "varied": {place: value}, "compare": False}
        configs[value] = first.config.model_copy(update=changed)
    sweep = Sweep(first, place, configs)
    if sweep.bytes is not None:
        require_space(disk_of(settings), sweep.bytes, f"a sweep of {len(configs)} merges")
    return sweep


def in_a_line(sweep: Sweep) -> str:
    """Return what a sweep will do and take: 'Linear, 2 merges with weight of b = 0.2, 0.8.', disk, and time."""
    recipe = sweep.first.recipe
    title, values = places(recipe).get(sweep.place, sweep.place), ", ".join(f"{value:g}" for value in sweep.configs)
    line = f"{recipe.method.title}, {len(sweep.configs)} merges with {title} = {values}."
    if sweep.bytes is None or sweep.seconds is None:
        return line
    seconds = sweep.seconds
    took = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"{line} The children take {disk_words(sweep.bytes)} of disk in all, the merges about {took}."


def queue_sweep(sweep: Sweep, settings: Settings, name: str) -> list[JobFolder]:
    """Queue the merges of a sweep, as jobs of one group; the first also asks the models.

    Args:
        sweep: that was checked.
        settings: of the home.
        name: what the names of the children begin with.
    """
    group, jobs = f"{name}-sweep-{time.strftime('%Y%m%d-%H%M%S')}", list[JobFolder]()
    for value, config in sweep.configs.items():
        asked = config.model_copy(update={"asked_by": jobs[0].id if jobs else None})
        jobs.append(submit(settings, "merge", f"{name}-{value:g}", asked.model_dump(mode="json"), group))
    return jobs


def split_item(item: str) -> tuple[str, list[float]]:
    """Return place and values of what a terminal's --sweep has.

    Args:
        item: PLACE=VALUE,VALUE, such as models.0.parameters.weight=0.2,0.5,0.8.

    Raises:
        InputError: it is not of this form, or a value is no number.
    """
    place, equals, given = item.partition("=")
    if not equals or not place.strip():
        raise InputError(
            f"'{item:.100}' is not PLACE=VALUES", where=WHERE, fix="Write it like models.0.parameters.weight=0.2,0.8"
        )
    try:
        values = parse_yaml(f"[{given}]")
    except (YAMLError, ValueError):
        values = []
    numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) != len(values) or not 2 <= len(numbers) <= MOST or len(set(numbers)) < len(numbers):
        raise InputError(
            f"'{given:.100}' is not a list of 2 to {MOST} different numbers", where=WHERE,
            fix="Write the values like 0.2,0.5,0.8",
        )  # fmt: skip
    return place.strip(), [float(one) for one in numbers]


def spread(first: str, last: str, count: str) -> list[float]:
    """Return values at equal distances.

    Args:
        first, last: the ends, both included, as typed.
        count: of the values, as typed.

    Raises:
        InputError: they are no numbers, or there would be too few values or too many.
    """
    begin, end = (_number(text, title) for text, title in ((first, "From"), (last, "To")))
    points = _number(count, "Merges")
    if points != int(points) or not 2 <= points <= MOST:
        raise InputError(f"a sweep has 2 to {MOST} merges", where="Merges", fix="Write a whole number like 5")
    if begin == end:
        raise InputError("both ends are the same value", where="To", fix="Write another one")
    step = (end - begin) / (int(points) - 1)
    return [float(f"{begin + step * at:.6g}") for at in range(int(points))]


def places(recipe: Recipe) -> dict[str, str]:
    """Return what can be varied of a recipe: what each number of it is called, by its place."""
    found: dict[str, str] = {}
    shared = {one.name: recipe.parameters[one.name] for one in recipe.method.parameters
              if one.each and one.name in recipe.parameters}  # fmt: skip
    for at, source in enumerate(recipe.models or []):
        if source.model == recipe.base_model and recipe.method.base != "none":
            continue  # the base has no weight: all children would be the same
        found |= _numbers(shared | source.parameters, f"models.{at}.parameters", f" of {source.model}")
    for at, one in enumerate(recipe.slices or []):
        found |= _numbers(one.parameters, f"slices.{at}.parameters", f" of slice {at + 1}")
        for number, source in enumerate(one.sources):
            named = f" of {source.model} in slice {at + 1}"
            found |= _numbers(source.parameters, f"slices.{at}.sources.{number}.parameters", named)
    return found | _numbers(recipe.parameters, "parameters", "")


def variants(text: str, place: str, values: Sequence[float], where: str) -> list[tuple[float, str]]:
    """Return each value with the recipe that has it.

    Args:
        text: of the recipe.
        place: of the varied value in it.
        values: that it gets.
        where: file of the recipe, for errors.

    Raises:
        InputError: the recipe cannot be read, or has no such place.
    """
    raw = read_recipe(text, where).renamed({})
    return [(value, write_recipe(_changed(raw, place, value))) for value in values]


def _numbers(values: Values, place: str, of: str) -> dict[str, str]:
    return {
        f"{place}.{name}": f"{name}{of}"
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number - number != 0:
        raise InputError(f"'{text.strip():.40}' is not a number", where=where, fix="Write it like 0.5")
    return number


def _changed(raw: dict[str, Any], place: str, number: float) -> dict[str, Any]:
    changed = copy.deepcopy(raw)
    target: Any = changed
    parts = place.split(".")
    for at, part in enumerate(parts):
        if part == "parameters" and at == len(parts) - 2 and isinstance(target, dict):
            target.setdefault(part, {})
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
                raise InputError(
                    f"'{part:.60}' holds a value, so it has no parts", where=WHERE, fix="Name the value itself"
                )
    return changed

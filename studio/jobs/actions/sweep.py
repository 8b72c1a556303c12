"""Several runs from one: a list of values for any option makes a run for each, several lists a grid.

Pure but for the two last functions: all runs are made and checked before the first one is queued, so that a wrong value
queues nothing.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml.error import YAMLError

from studio.config import RunConfig
from studio.config.describe import OptionSpec, options_of
from studio.config.load import build
from studio.config.renamed import current_name
from studio.errors import InputError, InputErrors, StudioError
from studio.foreign import parse_yaml
from studio.jobs.actions.client import submit
from studio.jobs.store.folder import JobFolder, folder_name, taken_names
from studio.jobs.store.request import changed_config
from studio.settings import Settings

# More than these are hardly meant, and each is checked before the first is queued.
MOST_RUNS = 64
_NAME_LENGTH = 60
Result = TypeVar("Result")


@dataclass(frozen=True)
class Variant:
    """One run of a sweep.

    Attributes:
        name: the sweep's name and the values that differ.
        changes: those values by dotted name.
        config: the whole run.
    """

    name: str
    changes: dict[str, Any]
    config: RunConfig


def parse_values(path: str, text: str) -> list[Any]:
    """Read values separated by commas; each is read as YAML, as `--set` does.

    Raises:
        InputError: it is no such list, or it is empty.
    """
    try:
        found = parse_yaml(f"[{text}]")
    except (YAMLError, ValueError) as error:
        why = "" if isinstance(error, YAMLError) else f": {error}"
        raise InputError(
            f"'{text:.100}' is not a list of values{why}", where=path, fix="Write them like 1e-4, 2e-4"
        ) from error
    if not found:
        raise InputError("there are no values to try", where=path, fix="Write them like 1e-4, 2e-4")
    return list(found)


def expand(base: RunConfig, name: str, values: dict[str, list[Any]]) -> list[Variant]:
    """Make the runs of a sweep.

    Args:
        base: the run whose options are changed.
        name: what the runs' names begin with.
        values: for each option (dotted name) the values to try; several options make a grid.

    Raises:
        InputErrors: all that is wrong: an unknown option, a value that it does not take, one that is there twice, an
            option that the run does not use, too many runs.
    """
    count = 1
    for listed in values.values():
        count *= len(listed)
    if count > MOST_RUNS:
        raise InputErrors([
            InputError(f"these values make {count} runs, but at most {MOST_RUNS} are "
            f"allowed", where="sweep", fix="Try fewer")
        ])  # fmt: skip
    values = {current_name(path): tried for path, tried in values.items()}
    specs = {spec.path: spec for spec in options_of(RunConfig)}
    document = base.model_dump(mode="json")
    variants: list[Variant] = []
    errors: dict[str, InputError] = {}  # by sentence: a wrong value is in many runs of a grid
    for chosen in itertools.product(*values.values()):
        changes = dict(zip(values, chosen, strict=True))
        try:
            config = build(RunConfig, changed_config(document, changes))
            _require_difference(config, changes, variants, specs)
        except InputError as error:
            for one in error.errors if isinstance(error, InputErrors) else [error]:
                errors.setdefault(one.sentence, one)
        else:
            variants.append(Variant(_named(name, changes, variants), changes, config))
    if errors:
        raise InputErrors(list(errors.values()))
    return variants


def _require_difference(
    config: RunConfig, changes: dict[str, Any], before: list[Variant], specs: dict[str, OptionSpec]
) -> None:
    method, tuning = config.method.name, config.tuning.name
    for path in changes:
        if path in specs and not specs[path].applies(method, tuning):
            raise InputError(f"{method} with {tuning} does not use it", where=path, fix="Try another option's values")
    same = next((one for one in before if one.config == config), None)
    if same is not None:
        shown = ", ".join(f"{path} {value}" for path, value in changes.items())
        raise InputError(f"two of the runs are the same ({shown})", where="sweep", fix="Give each value once")


def _named(name: str, changes: dict[str, Any], before: list[Variant]) -> str:
    short = [path.rpartition(".")[2] for path in changes]
    words = [
        f"{path.replace('.', '-') if short.count(last) > 1 else last}-{_shown(value)}"
        for last, (path, value) in zip(short, changes.items(), strict=True)
    ]
    tail = "-".join(words)[: _NAME_LENGTH - 12]
    taken, number = {one.name for one in before}, 2
    found = f"{name[: _NAME_LENGTH - 1 - len(tail)]}-{tail}"
    while found in taken:
        end = f"-{number}"
        found, number = f"{found[: _NAME_LENGTH - len(end)]}{end}", number + 1
    return found


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:20] or "none"


def free_variants(jobs: Path, base: RunConfig, name: str, values: dict[str, list[Any]]) -> list[Variant]:
    """Make the runs of a sweep under names that no job has.

    Args:
        jobs: folder of all jobs.
        base: the run to vary.
        name: of the sweep; numbered where a variant's name is taken.
        values: to try, by dotted option name; every combination is made.

    Raises:
        InputErrors: as `expand`.
    """
    taken, number = taken_names(jobs), 2
    variants = expand(base, name, values)
    while any(folder_name(one.name) in taken for one in variants):
        variants, number = expand(base, f"{name}-{number}", values), number + 1
    return variants


def check_all(variants: list[Variant], check: Callable[[RunConfig], Result]) -> list[Result]:
    """Check every run.

    Args:
        variants: the runs.
        check: the check of one; raises StudioError.

    Returns:
        what it returned for each.

    Raises:
        InputErrors: at least one is wrong; each error's `where` begins with the run's name.
    """
    found: list[Result] = []
    errors: list[InputError] = []
    for variant in variants:
        try:
            found.append(check(variant.config))
        except StudioError as error:
            for one in error.errors if isinstance(error, InputErrors) else [error]:
                where = f"{variant.name}: {one.where}" if one.where else variant.name
                errors.append(InputError(one.what, where=where, fix=one.fix))
    if errors:
        raise InputErrors(errors)
    return found


def submit_all(settings: Settings, name: str, runs: list[tuple[str, RunConfig]]) -> list[JobFolder]:
    """Queue the checked runs of a sweep, in order and as one group.

    Args:
        settings: of the home.
        name: of the sweep; with the time it becomes the group.
        runs: (name, configuration) of each, checked.
    """
    group = f"{name}-sweep-{time.strftime('%Y%m%d-%H%M%S')}"
    return [submit(settings, "train", one, config.model_dump(mode="json"), group) for one, config in runs]

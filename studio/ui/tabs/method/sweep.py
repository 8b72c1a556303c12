"""Several runs at once: values to try for any option, typed in the Method tab; Start queues a run for each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gradio as gr

from studio.config import RunConfig
from studio.config.describe import OptionSpec
from studio.errors import InputError, InputErrors
from studio.jobs.actions.sweep import Variant, check_all, free_variants, parse_values, submit_all
from studio.settings import Settings
from studio.ui.components.choices import piece

# While the form is typed in, plans of a sweep are made for so long; the others are guessed from these.
PLAN_SECONDS = 3.0
SWEEP = """
<div class="studio sweep">
  <p class="muted small">Name an option and the values to try, separated by commas: Start queues a run for each.
    Several options give a run for each combination.</p>
  <ul class="sweep-rows"></ul>
  <div class="row-flex wrap-flex">
    <button type="button" class="sweep-add btn small">Try values of an option</button>
    <b class="sweep-said num" role="status"></b></div>
  <datalist id="sweep-options"></datalist>
</div>
"""


def sweep_rows(specs: dict[str, OptionSpec]) -> gr.HTML:
    """Make the rows; event `input`: they changed. The values travel with the form's meta (assets/form/sweep.js)."""
    options = [
        {"path": path, "title": spec.title, "example": ", ".join(spec.choices[:3])}
        for path, spec in specs.items()
        if spec.kind != "list"
    ]
    return piece(SWEEP, "sweep", constants={"options": options}, elem_id="sweep")


def variants_of(settings: Settings, config: RunConfig, name: str, typed: dict[str, str]) -> list[Variant]:
    """Make the runs that were typed.

    Args:
        settings: of the home, whose jobs' names are taken.
        config: the run to vary.
        name: of the sweep.
        typed: values to try by option, as text.

    Raises:
        InputErrors: all that is wrong with the options and values.
    """
    values, errors = {}, []
    for path, text in typed.items():
        try:
            values[path] = parse_values(path, text)
        except InputError as error:
            errors.append(error)
    if errors:
        raise InputErrors(errors)
    return free_variants(settings.jobs, config, name, values)


def estimate(
    settings: Settings,
    config: RunConfig,
    name: str,
    typed: dict[str, str],
    seconds_of: Callable[[RunConfig], float | None],
) -> dict[str, Any]:
    """Return what is shown before Start: how many runs, their names, and how long they take one after the other.

    Args:
        settings: whose jobs.
        config: the run that the form shows.
        name: what the runs' names begin with.
        typed: the values by option, as they were typed.
        seconds_of: checks a run and says how long it takes, None where that is not known.

    Raises:
        InputErrors: all that is wrong.
    """
    variants = variants_of(settings, config, name, typed)
    until = time.monotonic() + PLAN_SECONDS
    found = check_all(variants, lambda one: seconds_of(one) if time.monotonic() < until else None)
    known = [seconds for seconds in found if seconds is not None]
    whole = sum(known) / len(known) * len(variants) if known else None
    return {"count": len(variants), "names": [variant.name for variant in variants], "seconds": whole}


def start(
    settings: Settings, config: RunConfig, name: str, typed: dict[str, str], ready: Callable[[RunConfig], RunConfig]
) -> str:
    """Check all runs, then queue them; returns the id of the first.

    Args:
        settings: of the home.
        config: the run to vary.
        name: of the sweep.
        typed: values to try by option, as text.
        ready: checks one run and returns it with paths resolved.

    Raises:
        InputErrors: at least one is wrong; nothing was queued.
    """
    variants = variants_of(settings, config, name, typed)
    configs = check_all(variants, ready)
    names = [variant.name for variant in variants]
    return submit_all(settings, name, list(zip(names, configs, strict=True)))[0].id

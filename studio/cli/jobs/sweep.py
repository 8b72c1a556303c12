"""`studio train … --sweep OPTION=VALUES`: a run for each value, all checked before the first is queued."""

from __future__ import annotations

import contextlib
from typing import Any

from studio.cli.output import answer, say, stderr, table
from studio.config import RunConfig
from studio.data.worker.client import DataWorker
from studio.errors import InputError
from studio.jobs.actions.sweep import check_all, free_variants, parse_values, submit_all
from studio.settings import read_settings
from studio.train.preflight import Checked, check


def queue_sweep(base: RunConfig, name: str, sweeps: list[str], as_json: bool) -> None:
    """Queue the runs of a sweep and print them.

    Args:
        base: the run whose options are changed.
        name: what the runs' names begin with.
        sweeps: `OPTION=VALUE,VALUE`, each for one option; several make a grid.
        as_json: one JSON object instead of a table.

    Raises:
        InputError, StudioError: one of the runs cannot be started; nothing was queued.
    """
    settings = read_settings()
    variants = free_variants(settings.jobs, base, name, _values(sweeps))
    done = 0
    with stderr.status("checking …") as status, contextlib.closing(DataWorker(settings)) as worker:

        def checked(config: RunConfig) -> Checked:
            nonlocal done
            done += 1
            status.update(f"checking run {done} of {len(variants)}")
            return check(config, settings, worker, fetch=True)

        found = check_all(variants, checked)
    runs = [(variant.name, one.config) for variant, one in zip(variants, found, strict=True)]
    jobs = submit_all(settings, name, runs)
    rows, values = [], []
    for job, variant, one in zip(jobs, variants, found, strict=True):
        values.append({"id": job.id, "changes": variant.changes, "seconds": one.plan.seconds})
        rows.append((job.id, *map(str, variant.changes.values()), one.plan.line()))
    warnings = list(dict.fromkeys(warning for one in found for warning in one.warnings))
    for warning in warnings:
        say(f"warning: {warning}")
    options = [path.rpartition(".")[2] for path in variants[0].changes]
    answer(
        as_json,
        {"group": jobs[0].request.group, "runs": values, "warnings": warnings},
        table("id", *options, "plan", rows=rows),
    )


def _values(sweeps: list[str]) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    for item in sweeps:
        path, equals, text = item.partition("=")
        if not equals or not path.strip():
            raise InputError(f"'{item}' is not OPTION=VALUES", where="--sweep", fix="Write it like tuning.rank=8,16")
        if path.strip() in values:
            raise InputError(
                f"--sweep names {path.strip()} twice", where="--sweep", fix="Give all its values at once: a,b"
            )
        values[path.strip()] = parse_values(path.strip(), text)
    return values

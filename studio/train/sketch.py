"""A plan for a model whose weights are not here, from what is: `studio plan` before a download or a copy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.data.sources.locate import fetch_sources
from studio.data.worker.client import DataCalls
from studio.models.catalog.names import resolve_model
from studio.models.inspect.outline import Outline, outline
from studio.models.plan.fit import Lengths
from studio.settings import Settings
from studio.train import checks, preflight
from studio.train.preflight import Progress

ASSUMED = 1024  # tokens of a row of which nobody knows how long it is


def sketch(config: RunConfig, settings: Settings, data: DataCalls, on_progress: Progress) -> preflight.Checked | None:
    """Plan a run of a model without its weights; None where they are here, so that `preflight.check` can tell all.

    The checks of the model and the method are made. Without a tokenizer each row counts as `data.max_length` long, or
    as `ASSUMED`.

    Args:
        config: the run; its model may be a Hub id that was never downloaded.
        settings: home and readable folders.
        data: the data worker, for the row lengths.
        on_progress: called while sources are fetched and rows counted.

    Raises:
        InputError, StudioError: as `preflight.check`; or the model's size cannot be told.
    """
    found = outline(config.model, settings)
    if found is None:
        return None
    config = preflight.with_absolute_paths(config, settings)
    folder = found.folder or Path(config.model.path)
    known = checks.Known(config, folder, found.shape, found.config, found.tensors, settings)
    checks.check_model(known)
    checks.check_method(known)
    fetch_sources(config.data, settings, on_progress)
    told = [_info(f"{config.model.path} is planned without its weights: its size is read from {found.source}")]
    with preflight.takeaway(known) as obstacles:
        lengths, findings = row_lengths(config, settings, data, found, on_progress)
        checks.check_method(replace(known, lengths=lengths))
        return preflight.planned(config, found.shape, lengths, settings, told + findings + obstacles())


def row_lengths(
    config: RunConfig, settings: Settings, data: DataCalls, found: Outline, on_progress: Progress
) -> tuple[Lengths, list[dict[str, Any]]]:
    """Count the tokens of the rows of a model whose weights are not here, or estimate them; with what is told of that.

    Args:
        config: the run, with absolute paths.
        settings: of the home.
        data: the data worker.
        found: what is known of the model.
        on_progress: called while rows are counted.

    Raises:
        InputError, StudioError: rows that cannot be read or used.
    """
    if found.folder is not None:
        return preflight.counted(config, data, found.folder, on_progress)
    if found.tokens_by:
        lender = resolve_model(found.tokens_by, settings, on_progress=on_progress)
        lengths, findings = preflight.counted(config, data, lender.path, on_progress)
        text = f"the model's tokenizer is not here: the rows' lengths are estimated with that of {found.tokens_by}"
        return lengths, [_info(text), *findings]
    rows = 0
    for source in config.data.train:
        options = source.model_dump(exclude={"path", "format"})
        method = config.method.model_dump()
        rows += data.call("inspect", path=source.path, format=source.format, options=options, method=method)["rows"]
    limit, share = config.data.max_length, config.data.validation
    each = ASSUMED if limit == "auto" else limit
    kept = round(rows * share) if isinstance(share, float) else 0
    train = max(1, rows - kept)
    text = f"there is no tokenizer, so each of {rows:,} rows is assumed to have {each:,} tokens"
    return Lengths(train, train * each, each, train * each, kept, validation_max=each if kept else 0), [_info(text)]


def _info(text: str) -> dict[str, Any]:
    return {"level": "info", "count": 0, "text": text, "fix": ""}

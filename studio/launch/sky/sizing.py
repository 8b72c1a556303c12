"""The smallest GPU that a run fits on, by the memory plan. Nothing is measured, and the weights need not be here."""

from __future__ import annotations

from studio.config import RunConfig
from studio.config.model import EMBEDDED_MODEL
from studio.data.sources.locate import fetch_sources
from studio.data.worker.client import DataCalls
from studio.errors import InputError
from studio.models.catalog.names import resolve_model
from studio.models.inspect.outline import outline
from studio.models.plan.cards import CARDS, card_of
from studio.models.plan.making import Plan, make_plan
from studio.settings import Settings
from studio.train import checks
from studio.train.preflight import Progress, counted, with_absolute_paths
from studio.train.sketch import row_lengths

#: GPUs that compute in bfloat16, by SkyPilot's names, with their GB of 2³⁰ bytes.
GPUS = {
    "L4": 24, "A10G": 24, "A10": 24, "RTX4090": 24, "A6000": 48, "L40": 48, "L40S": 48, "A100-80GB": 80, "H100": 80,
}  # fmt: skip


def size(config: RunConfig, settings: Settings, data: DataCalls, on_progress: Progress) -> tuple[RunConfig, Plan, int]:
    """Find the smallest card that is rented and that a run fits on.

    Args:
        config: the run.
        settings: home and readable folders.
        data: the data worker, for the row lengths.
        on_progress: called while sources are fetched and rows counted.

    Returns:
        the run with absolute paths, its plan there, and the card's GB of 2³⁰ bytes.

    Raises:
        InputError, StudioError: the run cannot be trained, or on no single GPU.
    """
    config = with_absolute_paths(config, settings)
    found = outline(config.model, settings)
    if found is None:
        fetch = config.model.path == EMBEDDED_MODEL
        model = resolve_model(config.model.path, settings, revision=config.model.revision, fetch=fetch)
        known = checks.Known.of(config, model.path, settings)
        checks.check_model(known)
        shape = known.shape
        fetch_sources(config.data, settings, on_progress)
        lengths, _ = counted(config, data, model.path, on_progress)
    else:
        shape = found.shape
        fetch_sources(config.data, settings, on_progress)
        lengths, _ = row_lengths(config, settings, data, found, on_progress)
    plan = None
    for gigabytes in CARDS:
        if gigabytes in GPUS.values():
            plan = make_plan(config, shape, lengths, card_of(gigabytes))
            if plan.fits:
                return config, plan, gigabytes
    assert plan is not None
    raise InputError(
        f"this run needs {plan.total_bytes / 1e9:.0f} GB of memory, more than a GPU of {max(GPUS.values())} GB has",
        where="training", fix=" ".join(plan.advice),
    )  # fmt: skip

"""Every check that can be made before a device is touched, in one place for page, command line and scripts.

Light: the tokenizing is done by the data worker, so that neither the page nor `studio plan` imports torch.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.data.client import DataWorker
from studio.data.sources import resolve_path
from studio.errors import InputError, StudioError
from studio.models.catalogue import resolve_model
from studio.models.device import device_info
from studio.models.plan import Lengths, Plan, make_plan
from studio.models.shape import ModelShape
from studio.settings import ASSETS, Settings

# Room for logs, events and one temporary copy beside what the plan counts.
_SPARE_BYTES = 200 * 1000**2


@dataclass(frozen=True)
class Checked:
    """What is known of a run before it starts.

    Attributes:
        plan: steps, memory, time, and every `auto` resolved.
        lengths: counts of the tokenized data.
        findings: what the data worker noticed (dropped, cut, duplicate rows …), as it gave them.
        disk_bytes: what the run will write at most at one time.
        config: the run with absolute paths; this is what is submitted.
    """

    config: RunConfig
    plan: Plan
    lengths: Lengths
    disk_bytes: int
    findings: list[dict[str, Any]] = field(default_factory=list)


def check(config: RunConfig, settings: Settings, data: DataWorker) -> Checked:
    """Check model, data, memory and disk of a run.

    Raises:
        InputError: something that was asked for cannot be done; the sentence says what to change.
        StudioError: the computer lacks something (disk, memory).
    """
    config = with_absolute_paths(config, settings)
    model = resolve_model(config.model.path, settings, revision=config.model.revision, fetch=False)
    counted = data.call("lengths", config=config.model_dump(mode="json"), model=str(model.path))
    lengths = Lengths(**counted["lengths"])
    plan = make_plan(config, ModelShape.from_folder(model.path), lengths, device_info(settings))
    disk = _disk_bytes(config, plan)
    _require_disk(settings, disk)
    _require_memory(plan)
    return Checked(config, plan, lengths, disk, counted.get("findings", []))


def _disk_bytes(config: RunConfig, plan: Plan) -> int:
    """Checkpoints hold weights and two moments in float32; the result holds the weights once more."""
    weights = 4 * plan.trainable
    return (3 * weights) * config.training.save_total_limit + weights


def _require_disk(settings: Settings, needed: int) -> None:
    place = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed + _SPARE_BYTES:
        raise StudioError(
            f"the disk has {free / 1e9:.1f} GB free and this run needs {(needed + _SPARE_BYTES) / 1e9:.1f} GB",
            where=str(settings.home),
            fix="Free some space, or point STUDIO_HOME to another disk",
        )


def _require_memory(plan: Plan) -> None:
    if not plan.fits:
        raise InputError(
            f"this run needs {plan.total_bytes / 1e9:.1f} GB of memory and {plan.available_bytes / 1e9:.1f} GB are free",
            where="training",
            fix=" ".join(plan.advice),
        )


def with_absolute_paths(config: RunConfig, settings: Settings) -> RunConfig:
    """Return the run with paths that mean the same in every process.

    A job runs in its own folder; the studio's demo set keeps its short name, so that the run is portable.

    Raises:
        InputError: a data file does not exist.
    """
    raw = config.model_dump()
    for source in raw["data"]["train"]:
        source["path"] = _absolute(source["path"], settings)
    if isinstance(config.data.validation, str):
        raw["data"]["validation"] = _absolute(config.data.validation, settings)
    folder = Path(config.model.path).expanduser()
    if folder.is_dir():
        raw["model"]["path"] = str(folder.absolute())
    return RunConfig.model_validate(raw)


def _absolute(path: str, settings: Settings) -> str:
    found = resolve_path(path, settings)
    return path if found.is_relative_to(ASSETS) else str(found)

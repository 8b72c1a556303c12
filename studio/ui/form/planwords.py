"""A plan in words and in numbers for the page, and why one must wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.config.model import EMBEDDED_MODEL
from studio.data.sources.locate import absent_set
from studio.models.catalog import embedded, hub
from studio.models.plan.making import Plan
from studio.ui.server.services import Services


def waits_for(config: RunConfig, services: Services) -> str:
    """Say why the plan must wait for model or data ("" if it need not): such a run may be started all the same."""
    path = config.model.path.strip()
    if path == EMBEDDED_MODEL and not embedded.is_ready(services.settings):
        return "the model is prepared first (once, about half a minute); then the plan appears here"
    if hub.is_hub_id(path) and not Path(path).exists():
        folder = hub.hub_folder(services.settings, path, config.model.revision)
        if hub.hub_name(folder) is None:
            return f"{path} is downloaded when the run starts, and the plan is made then"
    if name := absent_set(config.data, services.settings):
        return f"{name} is downloaded when the run starts, and the plan is made then"
    return ""


def values_of(config: RunConfig, path: str) -> Any:
    """Return the value of an option by its dotted name."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value


def memory_value(plan: Plan) -> dict[str, Any]:
    """Parts of the plan's memory, in bytes, for the bar."""
    parts = [{"name": name, "bytes": value} for name, value in plan.memory.items()]
    return {"parts": parts, "total": plan.total_bytes, "available": plan.available_bytes, "fits": plan.fits}


def cost(plan: Plan) -> str:
    """How many parameters are trained, and the memory that takes."""
    share = "all " if plan.trainable == plan.parameters else f"{millions(plan.trainable)} of "
    return f"{share}{millions(plan.parameters)} parameters · {plan.total_bytes / 1e9:.1f} GB"


def millions(count: int) -> str:
    """A number of parameters in the unit that fits."""
    if count >= 1_000_000_000:
        return f"{count / 1e9:.2f} B"
    return f"{count / 1e6:.1f} M" if count < 100_000_000 else f"{count / 1e6:.0f} M"


def plain(value: Any) -> str:
    """A value of an option in words."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)

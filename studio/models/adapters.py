"""Adapters on disk, read without torch: their config, and whether they fit a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio.errors import InputError
from studio.models.shape import ModelShape


def adapter_config(folder: Path) -> dict[str, Any] | None:
    """Return adapter_config.json of a PEFT adapter, None where the folder has none or it is no JSON object."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def require_adapter(folder: Path, shape: ModelShape, where: str) -> dict[str, Any]:
    """Return the config of an adapter that fits a model.

    Raises:
        InputError: the folder holds none, or one whose layers the model does not have.
    """
    config = adapter_config(folder)
    if config is None or not (folder / "adapter_model.safetensors").is_file():
        raise InputError(
            "there is no adapter", where=f"{where}: {folder}", fix="Name a run with an adapter, or a PEFT folder"
        )
    if config.get("peft_type") != "LORA":
        raise InputError(
            f"adapters of type {config.get('peft_type')} cannot be gone on with", where=f"{where}: {folder}",
            fix="Use a LoRA or DoRA adapter",
        )  # fmt: skip
    wanted = config.get("target_modules")
    for name in wanted if isinstance(wanted, list) else []:
        if not any(linear.name == name or linear.name.endswith(f".{name}") for linear in shape.linears):
            raise InputError(
                f"the adapter has layers '{name}' that this model does not have", where=f"{where}: {folder}",
                fix="Use it with the base model that it was trained on",
            )  # fmt: skip
    return config

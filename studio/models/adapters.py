"""Adapters on disk, read without torch: their config, and whether each of their matrices fits a model.

PEFT passes over matrices that it finds no layer for, and fills layers that it finds no matrices for with new ones.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from studio.errors import InputError
from studio.models.headers import Tensor, read_header
from studio.models.shape import ModelShape
from studio.reach import read_text

WEIGHTS = "adapter_model.safetensors"
_MATRIX = re.compile(r"^base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight$")
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)$")
_HEAD = re.compile(r"\.(?:score|classifier)\.(?:modules_to_save\.default\.)?weight$")
# In a mixture of experts these are parameters, whose matrices PEFT shapes in another way.
_STACKED = ("experts", "gate", "router", "base_layer")
_OTHER_BASE = "Use it with the base model that it was trained on"


def adapter_config(folder: Path) -> dict[str, Any] | None:
    """Return adapter_config.json of a PEFT adapter, None where the folder has none or it is no JSON object."""
    try:
        config = json.loads(read_text(folder / "adapter_config.json"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def require_adapter(folder: Path, shape: ModelShape, where: str) -> dict[str, Any]:
    """Return the config of an adapter that fits a model.

    Args:
        folder: the adapter.
        shape: of the base model.
        where: the option that names it, for errors.

    Raises:
        InputError: the folder holds none, its file is broken, or it has layers that the model does not have.
    """
    config, where = adapter_config(folder), f"{where}: {folder}"
    if config is None or not (folder / WEIGHTS).is_file():
        raise InputError("there is no adapter", where=where, fix="Name a run with an adapter, or a PEFT folder")
    if config.get("peft_type") != "LORA":
        raise InputError(
            f"adapters of type {config.get('peft_type')} cannot be gone on with", where=where,
            fix="Use a LoRA or DoRA adapter",
        )  # fmt: skip
    try:
        tensors = read_header(folder / WEIGHTS)
    except InputError as error:
        raise InputError(f"the adapter's weights: {error.what}", where=where, fix="Copy the adapter again") from error
    matrices = {
        (found[1], found[2]): tensor.shape for tensor in tensors if (found := _MATRIX.match(tensor.name))
    }  # fmt: skip
    if not matrices:
        raise InputError("the adapter's file holds no LoRA weights", where=where, fix="Copy the adapter again")
    layers = sorted({name for name, _ in matrices})
    _require_targets(config, layers, where)
    for layer in layers:
        _require_layer(layer, matrices.get((layer, "A"), ()), matrices.get((layer, "B"), ()), config, shape, where)
    if config.get("task_type") == "SEQ_CLS":
        _require_score(tensors, shape, where)
    else:
        _require_whole(config, tensors, where)
    return config


def _require_whole(config: dict[str, Any], tensors: list[Tensor], where: str) -> None:
    """Each layer that was trained whole is in the file."""
    there = {part for tensor in tensors for part in tensor.name.split(".")}
    lacking = [name for name in config.get("modules_to_save") or [] if str(name).rpartition(".")[2] not in there]
    if lacking:
        raise InputError(
            f"the adapter's file lacks {lacking[0]}, which its config says was trained whole", where=where,
            fix="Copy the adapter again",
        )  # fmt: skip


def _require_targets(config: dict[str, Any], layers: list[str], where: str) -> None:
    """The config names every layer that the file has: PEFT makes those that it names, and no others."""
    targets = config.get("target_modules")
    if isinstance(targets, list):
        unnamed = [one for one in layers if not any(one == name or one.endswith(f".{name}") for name in targets)]
    elif isinstance(targets, str):
        try:
            unnamed = [one for one in layers if targets != "all-linear" and not re.fullmatch(targets, one)]
        except re.error as error:
            raise InputError(
                f"target_modules '{targets}' of adapter_config.json is no regular expression ({error})", where=where,
                fix="Copy the adapter again",
            ) from error  # fmt: skip
    else:
        unnamed = layers
    parameters = config.get("target_parameters") or []
    unnamed = [one for one in unnamed if not parameters and not _stacked(one)]
    if unnamed:
        raise InputError(
            f"target_modules of adapter_config.json does not name {unnamed[0]}, which the adapter has", where=where,
            fix="Copy the adapter again; config and weights must come from the same run",
        )  # fmt: skip


def _require_layer(
    layer: str, a: tuple[int, ...], b: tuple[int, ...], config: dict[str, Any], shape: ModelShape, where: str
) -> None:
    """One layer of the adapter: A is (rank, inputs) and B is (outputs, rank)."""
    found = _BLOCK.search(layer)
    if _stacked(layer) or found is None:
        return
    block, name = int(found[1]), layer.rpartition(".")[2]
    if block >= shape.layers:
        raise InputError(
            f"the adapter has a block {block}, and the model has {shape.layers}, from 0", where=where, fix=_OTHER_BASE
        )
    # A file may leave out the first words of a name that the loaded model has (GPT-2).
    there = [
        one for one in shape.linears
        if one.suffix == name and (place := _BLOCK.search(one.name)) and int(place[1]) == block
    ]  # fmt: skip
    if not there:
        raise InputError(f"the adapter has layers '{name}' that this model does not have", where=where, fix=_OTHER_BASE)
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        raise InputError(f"the adapter's matrices of {layer} are broken", where=where, fix="Copy the adapter again")
    if not any((one.inputs, one.outputs) == (a[1], b[0]) for one in there):
        one = there[0]
        raise InputError(
            f"the adapter's {name} goes from {a[1]:,} to {b[0]:,} numbers, and the model's from {one.inputs:,} to "
            f"{one.outputs:,}",
            where=where,
            fix=_OTHER_BASE,
        )
    said = _rank(config, layer)
    if a[0] != said:
        raise InputError(
            f"adapter_config.json says rank {said} for {layer}, and its weights have {a[0]}", where=where,
            fix="Copy the adapter again; config and weights must come from the same run",
        )  # fmt: skip


def fits_pattern(pattern: str, layer: str) -> bool:
    """PEFT's rule for a pattern of ranks or alphas: the whole name of a layer, or its end at a dot.

    Raises:
        re.error: it is no regular expression.
    """
    return re.fullmatch(rf"(.*\.)?({pattern})", layer) is not None


def _rank(config: dict[str, Any], layer: str) -> Any:
    """The rank that PEFT makes a layer with: of the first pattern that fits it, else `r`."""
    for pattern, rank in (config.get("rank_pattern") or {}).items():
        if fits_pattern(pattern, layer):
            return rank
    return config.get("r")


def _stacked(layer: str) -> bool:
    return any(part in _STACKED for part in layer.split("."))


def _require_score(tensors: list[Tensor], shape: ModelShape, where: str) -> None:
    heads = [tensor.shape for tensor in tensors if _HEAD.search(tensor.name)]
    if heads != [(1, shape.hidden)]:
        what = f"one of the shape {heads[0]}" if heads else "none"
        raise InputError(
            f"a reward model's adapter has a head of the shape {(1, shape.hidden)} beside it, and this has {what}",
            where=where,
            fix=_OTHER_BASE if heads else "Copy the adapter again",
        )

"""Adapters on disk, read without torch: their config, and whether each of their matrices fits a model.

PEFT passes over matrices that it finds no layer for, and fills layers that it finds no matrices for with new ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from studio.errors import InputError
from studio.foreign import TooMuchError, read_json_file
from studio.models.inspect.headers import Tensor, read_header
from studio.models.inspect.shape import Linear, ModelShape, block_of, ends_of
from studio.patterns import PatternError, Patterns, peft_expressions, require_quick

WEIGHTS = "adapter_model.safetensors"
_MATRIX = re.compile(r"^base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight$")
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)$", re.ASCII)
_HEAD = re.compile(r"\.(?:score|classifier)\.(?:modules_to_save\.default\.)?weight$")
# In a mixture of experts these are parameters, whose matrices PEFT shapes in another way.
_STACKED = ("experts", "gate", "router", "base_layer")
_OTHER_BASE = "Use it with the base model that it was trained on"


# What PEFT's own config has in the options that are read here; None is no value in all of them.
_KINDS: dict[str, tuple[type, ...]] = {
    "r": (int,), "lora_alpha": (int, float), "lora_dropout": (int, float), "target_modules": (str, list),
    "modules_to_save": (list,), "rank_pattern": (dict,), "alpha_pattern": (dict,), "layers_to_transform": (int, list),
    "target_parameters": (list, str), "layers_pattern": (str, list), "exclude_modules": (str, list),
}  # fmt: skip
_MOST_LISTED, _LARGEST_RANK = 10_000, 2**20


def adapter_config(folder: Path) -> dict[str, Any] | None:
    """Return adapter_config.json of a PEFT adapter, None where the folder has none or it is no JSON object.

    Raises:
        InputError: a value in it is none that PEFT writes, or a pattern cannot be matched in linear time.
    """
    file = folder / "adapter_config.json"
    try:
        config = read_json_file(file)
    except TooMuchError as error:
        raise _unsound(str(error), file) from error
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    for key, kinds in _KINDS.items():
        value = config.get(key)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise _unsound(f"{key} is {value!r:.60}", file)
        if isinstance(value, list | dict) and len(value) > _MOST_LISTED:
            raise _unsound(f"{key} has {len(value):,} values, and at most {_MOST_LISTED:,} are allowed", file)
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    if not all(one is None or (type(one) is int and 0 < one <= _LARGEST_RANK) for one in ranks):
        raise _unsound("a rank is not a number of 1 or more", file)
    for key, kind in (("target_modules", str), ("modules_to_save", str), ("layers_to_transform", int)):
        value = config.get(key)
        if isinstance(value, list) and not all(isinstance(one, kind) for one in value):
            raise _unsound(f"{key} contains something other than {'names' if kind is str else 'numbers'}", file)
    try:
        peft_expressions(config)
    except PatternError as error:
        raise _unsound(f"a pattern in it is not accepted: {error}", file) from error
    return config


def highest_rank(config: dict[str, Any]) -> int:
    """Highest rank of an adapter's layers, as a server has to be told it.

    Args:
        config: of `adapter_config`.
    """
    ranks: list[int] = [config.get("r") or 1, *(config.get("rank_pattern") or {}).values()]
    return max(ranks)


def require_quick_adapter(folder: Path, model: Any) -> None:
    """See that PEFT, which matches patterns by Python's engine, gets through an adapter's soon.

    Args:
        folder: the adapter.
        model: the loaded model that it is for.

    Raises:
        InputError: it does not, or as `adapter_config`.
    """
    require_quick(
        adapter_config(folder) or {}, [name for name, _ in model.named_modules()], str(folder / "adapter_config.json")
    )


def _unsound(what: str, file: Path) -> InputError:
    return InputError(
        f"adapter_config.json is not a valid PEFT config: {what}", where=str(file), fix="Copy the adapter again"
    )


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
        raise InputError("there is no adapter", where=where, fix="Give a run with an adapter, or a PEFT folder")
    if config.get("peft_type") != "LORA":
        raise InputError(
            f"adapters of type {config.get('peft_type')} cannot be continued", where=where,
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
        raise InputError("the adapter file has no LoRA weights", where=where, fix="Copy the adapter again")
    layers = sorted({name for name, _ in matrices})
    _require_targets(config, layers, where)
    there: dict[tuple[int, str], list[Linear]] = {}
    for one in shape.linears:  # a file may leave out the first words of a name that the loaded model has (GPT-2)
        if place := _BLOCK.search(one.name):
            there.setdefault((block_of(place[1]), one.suffix), []).append(one)
    try:
        ranks = Patterns().first(config.get("rank_pattern") or {}, layers, config.get("r"))
    except PatternError as error:
        raise InputError(f"rank_pattern of adapter_config.json: {error}", where=where, fix="Copy it again") from error
    for layer, rank in zip(layers, ranks, strict=True):
        _require_layer(layer, matrices.get((layer, "A"), ()), matrices.get((layer, "B"), ()), rank, shape, there, where)
    require_quick(config, [one.name for one in shape.linears], where)
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
            f"the adapter file lacks {lacking[0]}, which its config lists in modules_to_save", where=where,
            fix="Copy the adapter again",
        )  # fmt: skip


def _require_targets(config: dict[str, Any], layers: list[str], where: str) -> None:
    """The config names every layer that the file has: PEFT makes those that it names, and no others."""
    targets = config.get("target_modules")
    if isinstance(targets, list):
        named = set(targets)
        unnamed = [one for one in layers if named.isdisjoint(ends_of(one))]
    elif isinstance(targets, str):
        patterns = Patterns()
        try:
            unnamed = [one for one in layers if targets != "all-linear" and not patterns.fits_whole(targets, one)]
        except PatternError as error:
            raise InputError(
                f"target_modules of adapter_config.json: {error}", where=where, fix="Copy the adapter again"
            ) from error
    else:
        unnamed = layers
    parameters = config.get("target_parameters") or []
    unnamed = [one for one in unnamed if not parameters and not _stacked(one)]
    if unnamed:
        raise InputError(
            f"target_modules of adapter_config.json lacks {unnamed[0]}, which the adapter has", where=where,
            fix="Copy the adapter again; config and weights must come from the same run",
        )  # fmt: skip


def _require_layer(
    layer: str,
    a: tuple[int, ...],
    b: tuple[int, ...],
    said: int | None,
    shape: ModelShape,
    linears: dict[tuple[int, str], list[Linear]],
    where: str,
) -> None:
    """One layer of the adapter: A is (rank, inputs) and B is (outputs, rank); the config says the rank `said`."""
    found = _BLOCK.search(layer)
    if _stacked(layer) or found is None:
        return
    block, name = block_of(found[1]), layer.rpartition(".")[2]
    if block >= shape.layers:
        raise InputError(
            f"the adapter has a block {block}, but the model has {shape.layers} blocks, counted from 0",
            where=where,
            fix=_OTHER_BASE,
        )
    there = linears.get((block, name), [])
    if not there:
        raise InputError(f"the adapter has layers '{name}' that this model does not have", where=where, fix=_OTHER_BASE)
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        raise InputError(f"the adapter's matrices of {layer} are invalid", where=where, fix="Copy the adapter again")
    if not any((one.inputs, one.outputs) == (a[1], b[0]) for one in there):
        one = there[0]
        raise InputError(
            f"the adapter's {name} maps {a[1]:,} to {b[0]:,} features, but the model's maps {one.inputs:,} to "
            f"{one.outputs:,}",
            where=where,
            fix=_OTHER_BASE,
        )
    if a[0] != said:
        raise InputError(
            f"adapter_config.json has rank {said} for {layer}, but its weights have {a[0]}", where=where,
            fix="Copy the adapter again; config and weights must come from the same run",
        )  # fmt: skip


def _stacked(layer: str) -> bool:
    return any(part in _STACKED for part in layer.split("."))


def _require_score(tensors: list[Tensor], shape: ModelShape, where: str) -> None:
    heads = [tensor.shape for tensor in tensors if _HEAD.search(tensor.name)]
    if heads != [(1, shape.hidden)]:
        what = f"shape {heads[0]}" if heads else "none"
        raise InputError(
            f"a reward-model adapter has a score head of shape {(1, shape.hidden)}, but this one has {what}",
            where=where,
            fix=_OTHER_BASE if heads else "Copy the adapter again",
        )

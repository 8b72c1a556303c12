"""How a run is spread over several devices: what each of them has, and why it is so many, in this way.

Every rank computes its part of an update's rows (`train.trainers.grouped`), so batch, steps and rate stay as they are.
What is divided beside the rows is the stage of `ZERO`; FSDP2 divides all of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from studio.config import RunConfig
from studio.models.device.machine import DeviceInfo
from studio.models.inspect.shape import ModelShape
from studio.models.plan.batches import Batching, by_length
from studio.models.plan.fit import GIVEN, Choice, Fitted, Lengths, fit, fits
from studio.models.plan.memory import Load
from studio.models.plan.saying import weights
from studio.tunings import title_of

DEVICES, PARALLEL = "training.devices", "training.parallel"
# Stages of DeepSpeed's ZeRO: 1 divides the optimizer's states, 2 gradients too, 3 weights too.
ZERO = {"zero1": 1, "zero2": 2, "zero3": 3}
_FSDP2 = "fsdp2"
# Optimizers whose states have the shape of the weight, so that they are divided as it is.
_ELEMENTWISE = ("adamw_torch", "adamw_torch_fused")


def part_of(config: RunConfig, device: DeviceInfo) -> tuple[RunConfig, DeviceInfo]:
    """What each process of a run has: its part of the batch, and of a processor's memory; a GPU has it to itself.

    Args:
        config, device: of the whole run.
    """
    ranks = config.training.ranks
    if ranks == 1:
        return config, device
    if device.kind == "cpu":
        device = replace(device, available_bytes=device.available_bytes // config.training.ranks_here)
    return _changed(config, batch_size=max(1, config.training.batch_size // ranks)), device


def spread(config: RunConfig, device: DeviceInfo) -> dict[str, Choice]:
    """On how many devices a run computes and how they share it, with the reasons."""
    training = config.training
    if training.devices != "auto":
        devices = Choice(training.devices, "as set", GIVEN)
    elif device.kind == "cpu":
        devices = Choice(1, "one process uses all cores; several would share them", "rule")
    else:
        devices = Choice(1, "the other GPUs stay free for other runs", "rule")
    if training.parallel != "auto":
        parallel = Choice(training.parallel, "as set", GIVEN)
    elif training.ranks == 1:
        parallel = Choice("none", "there is one device", DEVICES)
    else:
        parallel = Choice("ddp", "each device computes a part of the rows", "memory plan")
    return {DEVICES: devices, PARALLEL: parallel}


def divided(config: RunConfig, parallel: str) -> RunConfig:
    """The run as it is computed where something is divided: layers are the libraries' own.

    Args:
        config: what one process computes.
        parallel: none, ddp, fsdp2 or a stage of `ZERO`.
    """
    return _changed(config, kernels="off") if parallel == _FSDP2 or parallel in ZERO else config


def shared(load: Load, parallel: str, ranks: int) -> Load:
    """What one of several processes holds.

    Args:
        load: of a single process.
        parallel: as in `divided`.
        ranks: how many there are.
    """
    stage = 3 if parallel == _FSDP2 else ZERO.get(parallel, 0)
    if not stage:
        return replace(load, buckets=parallel == "ddp")
    own = replace(load, fused=False, unpadded=False, shares_prefixes=False)
    return replace(own, shards=ranks, stage=stage, deepspeed=parallel in ZERO)


def fit_shared(
    own: RunConfig,
    shape: ModelShape,
    lengths: Lengths,
    device: DeviceInfo,
    load: Load,
    choices: dict[str, Choice],
    begun: Batching | None = None,
) -> tuple[str, RunConfig, Fitted]:
    """Fit a run into the memory of each device, divided where `auto` may and it does not fit whole.

    Args:
        own: what one process computes (`part_of`).
        shape, lengths: of the model and the rows.
        device: with what is free for one process.
        load: of a single process, but for what is chosen here.
        choices: those of `spread`; receives the others, with their reasons.
        begun: micro-batches of a run that resumes; None for a new run.

    Returns:
        how the devices share it, the run as one of them computes it, and what is in its memory.
    """
    parallel, ranks = str(choices[PARALLEL].value), own.training.ranks
    found = divided(own, parallel)
    best = fit(found, shape, lengths, device, shared(load, parallel, ranks), choices, begun)
    if own.training.parallel == "auto" and ranks > 1:
        what, places = _what(own, shape, load), f"{ranks} {'processes' if device.kind == 'cpu' else 'GPUs'}"
        needs, free = sum(best[1].values()) / 1e9, device.available_bytes / 1e9
        too_much = f"{what} needs {needs:.1f} GB, too much for the {free:.1f} GB that each of {places} has free"
        reason = f"{what} fits on each of {places}"
        if not fits(best[1], device):
            reason = f"{too_much}; fsdp2, which would divide it, does not go with these options"
        if not fits(best[1], device) and shardable(own):
            parts, part_choices = divided(own, _FSDP2), dict(choices)
            tried = fit(parts, shape, lengths, device, shared(load, _FSDP2, ranks), part_choices, begun)
            each = f"{sum(tried[1].values()) / 1e9:.1f} GB on each"
            reason = f"{too_much}, and sharded across them it needs {each}, too much as well"
            if fits(tried[1], device):
                parallel, found, best = _FSDP2, parts, tried
                reason = f"{too_much}; sharded across them it needs {each}"
                choices.update(part_choices)
        choices[PARALLEL] = Choice(parallel, reason, "memory plan")
    return parallel, found, best


def _what(config: RunConfig, shape: ModelShape, load: Load) -> str:
    """What is trained, in words: "8.03 B in bfloat16 with LoRA"."""
    size, tuning = weights(shape.parameters), config.tuning
    if not tuning.kind.adapter:
        return f"full fine-tuning of {size}"
    bits = f"{tuning.bits} bits" if load.weight_bits else "bfloat16" if load.dtype_bytes == 2 else "float32"
    return f"{size} in {bits} with {title_of(tuning.name)}"


def _changed(config: RunConfig, **training: Any) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


def shardable(config: RunConfig) -> bool:
    """Whether a run's weights can be divided over several devices (`train.trainers.sharded`)."""
    tuning, method = config.tuning, config.method
    if tuning.reads("lora_plus_ratio") and tuning.lora_plus_ratio:
        return False
    return _divisible(config) and (by_length(config) or method.kind.deals(method))


def zeroable(config: RunConfig) -> bool:
    """Whether DeepSpeed can divide a run (`train.zero`): one loss of one sequence, with no model beside it."""
    method = config.method
    alone = method.kind.cost.sequences == 1 and method.kind.cost.reference == "never" and not method.kind.online
    return _divisible(config) and alone and by_length(config) and not config.tuning.uses_dora


def _divisible(config: RunConfig) -> bool:
    """Whether method, tuning and optimizer go with weights of which each device has a part, whoever divides them."""
    tuning = config.tuning
    plain = not tuning.kind.adapter or (tuning.init == "default" and not tuning.modules_to_save and not tuning.adapter)
    able = tuning.kind.shards and config.method.kind.shards
    return bool(able and plain and config.training.optimizer in _ELEMENTWISE)

"""How a run is spread over several devices: what each of them has, and why it is so many, in this way.

Every rank computes its part of an update's rows (`train.trainers.grouped`), so batch, steps and rate stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from studio.config import RunConfig
from studio.models.device.machine import DeviceInfo
from studio.models.plan.batches import by_length
from studio.models.plan.fit import GIVEN, Choice

DEVICES, PARALLEL = "training.devices", "training.parallel"
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
        device = replace(device, available_bytes=device.available_bytes // ranks)
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
        parallel = Choice("ddp", f"the model fits in each of the {training.ranks} processes", "memory plan")
    return {DEVICES: devices, PARALLEL: parallel}


def divided(config: RunConfig) -> RunConfig:
    """The run as it is computed with divided weights: activations are kept, and layers are the libraries'."""
    return _changed(config, activation_checkpointing=False, kernels="off")


def _changed(config: RunConfig, **training: Any) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


def shardable(config: RunConfig) -> bool:
    """Whether a run's weights can be divided over several devices (`train.trainers.sharded`)."""
    tuning = config.tuning
    if config.model.dtype != "float32" or config.training.optimizer not in _ELEMENTWISE:
        return False
    if config.training.activation_checkpointing is True:
        return False
    if tuning.reads("lora_plus_ratio") and tuning.lora_plus_ratio:
        return False
    plain = not tuning.kind.adapter or (tuning.init == "default" and not tuning.modules_to_save and not tuning.adapter)
    able = tuning.kind.shards and config.method.kind.shards and not tuning.kind.uses_dora(tuning)
    return bool(able and plain and (by_length(config) or config.method.kind.deals(config.method)))

"""How long a training run takes: its floating-point operations over the measured speed of the device.

The operations are counted; the share of the peak that a real step reaches is measured (EFFICIENCY). An estimate
for the plan's line, good to perhaps 30 %: the page replaces it by the real pace after a few steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from studio.models.device import DeviceInfo
from studio.models.memory import Load, adapter_parameters
from studio.models.shape import ModelShape

# Share of the measured matrix speed that a whole training step reaches; see docs/models.md for the measurements.
EFFICIENCY = {("cpu", True): 0.35, ("cpu", False): 0.60, ("cuda", True): 0.35, ("cuda", False): 0.50}
_OTHER = 0.30


@dataclass(frozen=True)
class Work:
    """What is to be computed.

    Attributes:
        tokens: training tokens in all, without padding.
        examples: training examples in all.
        mean_length, max_length: tokens of an example.
        supervised_share: share of tokens that the loss counts.
        validation_tokens: tokens of all validations together.
    """

    tokens: int
    examples: int
    mean_length: float
    max_length: int
    supervised_share: float
    validation_tokens: int


def training_seconds(shape: ModelShape, load: Load, work: Work, device: DeviceInfo) -> float | None:
    """Seconds of training with validation, without loading and saving; None if the device is not measured."""
    peak = device.gflops.get("bfloat16" if load.autocast else "float32")
    if not peak:
        return None
    share = EFFICIENCY.get((device.kind, load.autocast), _OTHER)
    padded = padded_length(work, load.micro_batch) / max(1.0, work.mean_length)
    train = work.tokens * padded * step_flops_per_token(shape, load, work)
    validate = work.validation_tokens * padded * forward_flops_per_token(shape, load, work)
    return (train + validate) / (peak * 1e9 * share)


def padded_length(work: Work, micro_batch: int) -> float:
    """Expected tokens per row of a micro-batch of mixed lengths, which is padded to its longest row.

    For lengths spread evenly around the mean up to the maximum, the longest of m is at m / (m + 1) of the range.
    """
    low = max(1.0, 2 * work.mean_length - work.max_length)
    longest = low + (work.max_length - low) * micro_batch / (micro_batch + 1)
    return max(work.mean_length, longest)


def forward_flops_per_token(shape: ModelShape, load: Load, work: Work) -> float:
    """Operations of one token forward: 2 a weight, the head at supervised tokens only, attention over the row."""
    linear = sum(layer.inputs * layer.outputs for layer in shape.linears)
    adapter = adapter_parameters(load.adapter, load.rank) if load.adapter else 0
    head = shape.vocab * shape.hidden * work.supervised_share
    attention = 2 * shape.layers * shape.heads * shape.head_dim * padded_length(work, load.micro_batch)
    return 2 * (linear + adapter + head) + 2 * attention


def step_flops_per_token(shape: ModelShape, load: Load, work: Work) -> float:
    """Operations of one token forward and backward.

    Backward needs the gradient of the input (as much as forward) and of each trained weight (as much again).
    Checkpointing adds a second forward pass.
    """
    forward = forward_flops_per_token(shape, load, work)
    linear = sum(layer.inputs * layer.outputs for layer in shape.linears)
    trained = adapter_parameters(load.adapter, load.rank) if load.adapter is not None else linear
    return forward * (3 if load.checkpointing else 2) + 2 * trained

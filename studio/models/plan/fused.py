"""Which runs the plan expects the fused kernels to compute (`studio.train.engine.fused`), so that it counts theirs.

A run of any other model may still have some of them; its plan then promises too little, never too much.
"""

from __future__ import annotations

from studio.config import RunConfig
from studio.models.device.machine import DeviceInfo
from studio.models.inspect.adapted import adapted
from studio.models.inspect.shape import ModelShape

# Families, as transformers calls them, all of whose layers were found to be replaced (tests/train/engine).
FAMILIES = frozenset({
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text", "phi3", "olmo2", "granite", "smollm3", "glm",
})  # fmt: skip


def fused(config: RunConfig, shape: ModelShape, device: DeviceInfo) -> bool:
    """Whether LoRA layers, norms, gates, attention and the loss are the engine's.

    ppo has several adapters on one model, whose layers stay PEFT's.

    Args:
        config: the run.
        shape: of its model.
        device: where it computes.
    """
    bits = config.tuning.kind.weight_bits(config.tuning)
    return shape.family in FAMILIES and _may(config, device) and bits < 8 and not config.method.kind.cost.value


def unpadded(config: RunConfig, shape: ModelShape, device: DeviceInfo) -> bool:
    """Whether the model computes padded batches without their padding.

    Args:
        config: the run.
        shape: of its model.
        device: where it computes.
    """
    return shape.family in FAMILIES and may_leave_out_padding(config, device)


def shares_prefixes(config: RunConfig, shape: ModelShape, device: DeviceInfo, longest: int) -> bool:
    """Whether a prefix that rows share is computed once: where padding is left out, and every row would compute it
    alike.

    Args:
        config: the run.
        shape: of its model.
        device: where it computes.
        longest: tokens of its longest row, which a window must not end in.
    """
    if not unpadded(config, shape, device) or config.padding_free:
        return False
    if shape.window is not None and longest > shape.window:
        return False
    adapter = adapted(shape, config.tuning)
    return adapter is None or not adapter.dropout


def may_leave_out_padding(config: RunConfig, device: DeviceInfo) -> bool:
    """Whether a run does so if its model is of `FAMILIES`. Noise on embeddings depends on how long a row is with it."""
    method = config.method
    return _may(config, device) and not (method.reads("neftune_noise_alpha") and method.neftune_noise_alpha)


def _may(config: RunConfig, device: DeviceInfo) -> bool:
    wanted = config.training.fuses and config.model.attention == "auto"
    return wanted and device.kind != "cuda" and device.compiled

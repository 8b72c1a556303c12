"""How long a training run takes: its floating-point operations over the measured speed of the device.

The operations are counted; the share of the peak that a real step reaches is measured (EFFICIENCY). An estimate
for the plan's line, good to perhaps 30 %: the page replaces it by the real pace after a few steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from studio.models.device.machine import DeviceInfo
from studio.models.inspect.shape import ModelShape
from studio.models.plan.memory import Load

# Share of the measured matrix speed that the linear layers of a training step reach, by (device, autocast), and
# that attention reaches. CPU, bfloat16: solved from two runs of SmolLM2-135M on a quiet machine of 900 GFLOP/s,
# 610 tokens/s in batches of 8 × 100 tokens and 307 tokens/s in 2 × 1,024 (docs/models.md). CPU, float32: from a
# run of 5.4 s for 512 tokens on one thread. GPU: not measured; what such models usually reach.
LINEAR = {("cpu", True): 0.38, ("cpu", False): 0.65, ("cuda", True): 0.35, ("cuda", False): 0.50}
ATTENTION = {("cpu", True): 0.13, ("cpu", False): 0.20, ("cuda", True): 0.25, ("cuda", False): 0.25}
_OTHER = 0.25
# The same with the fused kernels on a CPU in bfloat16: from a step of 3,709 tokens without padding, 7.9 s on a quiet
# machine of 408 GFLOP/s, and 5 % for what a run does between its steps. In float32 they are taken to change nothing.
FUSED = (0.66, 0.38)
# And what each micro-batch takes besides, however few its tokens are: seconds a layer, forward and backward. At 429
# GFLOP/s rows like Alpaca's went at 485 tokens/s in micro-batches of about 1,700 (0.51 GFLOP a token), the demo's at
# 482 in those of 545 (0.45 GFLOP).
FUSED_SECONDS = 0.007
# Share of the matrix speed that writing answers reaches, by (device, autocast): 16 answers of 24 tokens by SmolLM2-135M
# with an adapter took 2.0 to 2.5 s at 429 GFLOP/s in bfloat16, 2.8 to 3.3 s at 160 in float32. Not measured on a GPU.
WRITING = {("cpu", True): 0.1, ("cpu", False): 0.2}
_WRITING_ELSEWHERE = 0.02


@dataclass(frozen=True)
class Work:
    """What is to be computed.

    Attributes:
        tokens: training tokens in all, without padding.
        examples: training examples in all.
        mean_length, max_length: tokens of an example.
        supervised_share: share of tokens that the loss counts.
        validation_tokens: tokens of all validations together.
        written: tokens of the answers that are written in training.
        passes: how often the tokens go forward and backward (ppo: policy and value, for each update of a batch).
    """

    tokens: int
    examples: int
    mean_length: float
    max_length: int
    supervised_share: float
    validation_tokens: int
    written: int = 0
    passes: int = 1


def training_seconds(shape: ModelShape, load: Load, work: Work, device: DeviceInfo) -> float | None:
    """Seconds of training with validation, without loading and saving; None if the device is not measured.

    Args:
        shape: of the model.
        load: micro-batch, length, adapter and checkpointing as planned.
        work: tokens of the whole run.
        device: with its measured speed in GFLOP/s for each number format.
    """
    peak = device.gflops.get("bfloat16" if load.autocast else "float32")
    if not peak:
        return None
    kind = (device.kind, load.autocast)
    linear, attention = LINEAR.get(kind, _OTHER), ATTENTION.get(kind, _OTHER)
    besides = 0.0
    if load.fused and load.autocast:
        linear, attention = FUSED
        together = load.micro_batch * work.mean_length
        together = min(together, load.token_limit) if load.token_limit else together
        passed = work.passes * work.tokens + work.validation_tokens / 3  # which goes forward only
        besides = FUSED_SECONDS * shape.layers * passed / together
    train, validate = step_flops(shape, load, work), forward_flops(shape, load, work)
    per_token = [flops[0] / linear + flops[1] / attention for flops in (train, validate)]
    computed = _computed(work, load)
    total = work.passes * work.tokens * per_token[0] + work.validation_tokens * per_token[1]
    written = work.written * validate[0] / WRITING.get(kind, _WRITING_ELSEWHERE)
    return besides + (total * computed + written) / (peak * 1e9)


def padded_length(mean: float, longest: int, rows: int) -> float:
    """Expected tokens per row of a micro-batch of mixed lengths, which is padded to its longest row.

    For lengths spread evenly around the mean up to the maximum, the longest of m is at m / (m + 1) of the range.

    Args:
        mean, longest: tokens per row of the data.
        rows: in a micro-batch.
    """
    low = max(1.0, 2 * mean - longest)
    return max(mean, low + (longest - low) * rows / (rows + 1))


def _computed(work: Work, load: Load) -> float:
    """Tokens that are computed for each token of the rows."""
    return load.waste or padded_length(work.mean_length, work.max_length, load.micro_batch) / max(1.0, work.mean_length)


def forward_flops(shape: ModelShape, load: Load, work: Work) -> tuple[float, float]:
    """Operations of one computed token forward: (in linear layers, in attention).

    2 a weight, the head at the rows' supervised tokens only, however many are computed; attention multiplies a token's
    query with the whole padded row and the weights with the values, since the causal half that is not needed is not
    skipped everywhere. A token that is computed once for several rows has a row before it as any other.

    Args:
        shape: of the model.
        load: its adapter counts as linear layers; its micro-batch decides the padded length.
        work: row lengths in tokens and the supervised share, 0 to 1.
    """
    linear = sum(layer.inputs * layer.outputs for layer in shape.linears)
    adapter = load.adapter.low_rank if load.adapter else 0
    computed = _computed(work, load)
    head = shape.vocab * shape.hidden * work.supervised_share / computed
    attention = 4 * shape.layers * shape.heads * shape.head_dim * work.mean_length * max(1.0, computed)
    return 2 * (linear + adapter + head), attention


def step_flops(shape: ModelShape, load: Load, work: Work) -> tuple[float, float]:
    """Operations of one computed token forward and backward: (in linear layers, in attention).

    Backward needs the gradient of the input (as much as forward) and of each trained weight (as much again); in
    attention of both factors. Checkpointing adds a second forward pass.

    Args:
        shape: of the model.
        load: as for `forward_flops`; without an adapter every weight is trained.
        work: row lengths in tokens and the supervised share, 0 to 1.
    """
    linear, attention = forward_flops(shape, load, work)
    weights = sum(layer.inputs * layer.outputs for layer in shape.linears)
    if load.adapter is not None:
        trained: float = load.adapter.parameters
    else:
        trained = weights + shape.vocab * shape.hidden * work.supervised_share / _computed(work, load)
    again = 1 if load.checkpointing else 0
    return linear * (2 + again) + 2 * trained, attention * (3 + again)

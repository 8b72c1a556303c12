"""How much memory a training run takes, part by part, from a model's shape. Pure arithmetic, no device is asked.

Activations are counted tensor by tensor for a Llama-like block: what PyTorch keeps from the forward pass for the
backward pass. Nothing is fitted but the runtime; docs/memory.md has the table of plan against measured peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from studio.models.device import IMPORT_BYTES
from studio.models.shape import Linear, ModelShape

PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "runtime")
LOGIT_CHUNK = 1024  # Supervised tokens whose logits exist at a time (studio.train.engine.loss).

# What a whole training job on a CPU takes beside its imports and what is counted below: threads, rows, and memory that
# the allocator keeps between batches of other lengths. 0.45 GB in two whole demo runs with validations (torch 2.13
# CPU build, torch 2.15 CUDA build), 0.1 to 0.3 GB in runs of a few steps.
JOB_BYTES = 420_000_000
# The CUDA context and the workspaces of cuBLAS on the GPU: an assumption, not measured here.
RUNTIME_CUDA = 900_000_000
# Bytes per logit while a chunk's loss and gradient are made: bf16 and fp32 logits, log-softmax, both gradients.
LOGIT_BYTES = {True: 16, False: 12}


@dataclass(frozen=True)
class MethodCost:
    """What a method computes for an example, beside one pass of the model over one sequence.

    Attributes:
        sequences: sequences of an example that are computed together (chosen and rejected).
        reference: a frozen reference is asked: a second model with full tuning, the adapter off otherwise.
        logits: where logits are made: at supervised positions in chunks, at every position in chunks, at every
            position at once, or nowhere (a score).
        generates: answers are written in training, which needs a cache of keys and values.
        value: a value head is trained beside the policy.
    """

    sequences: int = 1
    reference: bool = False
    logits: Literal["supervised", "every", "full", "none"] = "supervised"
    generates: bool = False
    value: bool = False


@dataclass(frozen=True)
class Load:
    """What decides the memory of a run besides the model.

    Attributes:
        adapter: the layers that get an adapter; None when every weight is trained.
        rank: of the adapter.
        dtype_bytes: bytes of one frozen weight in memory (2 or 4).
        autocast: products are computed in bfloat16.
        optimizer: `training.optimizer`.
        micro_batch: examples computed at a time.
        length: tokens of the longest of them, to which the others are padded.
        supervised: tokens of a micro-batch that the loss counts.
        checkpointing: blocks keep only their input and are computed again in the backward pass.
        cuda: on a GPU, where memory is counted there.
        import_bytes: resident memory of a process with the libraries imported.
        cost: what the method computes for an example.
        weight_bits: bits of a quantised weight of the linear layers with its share of the scales; 0 for none.
        dora: the adapter also learns the length of each row.
        written: tokens of an answer that is written in training, which `length` includes.
        batch: examples of an update, whose answers are all written before it.
        accumulates: an update has several micro-batches, so that gradients lie beside the next one's activations.
    """

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch with padding, all sequences of an example counted."""
        return self.micro_batch * self.cost.sequences * self.length

    adapter: tuple[Linear, ...] | None
    rank: int
    dtype_bytes: int
    autocast: bool
    optimizer: str
    micro_batch: int
    length: int
    supervised: int
    checkpointing: bool
    cuda: bool = False
    import_bytes: int = IMPORT_BYTES
    cost: MethodCost = MethodCost()
    weight_bits: float = 0.0
    dora: bool = False
    written: int = 0
    batch: int = 1
    accumulates: bool = True


def adapter_parameters(targets: tuple[Linear, ...], rank: int, dora: bool = False) -> int:
    """Parameters of an adapter: A is (rank, inputs), B is (outputs, rank), and with DoRA a length for each output."""
    return sum(rank * (linear.inputs + linear.outputs) + (linear.outputs if dora else 0) for linear in targets)


def estimate(shape: ModelShape, load: Load) -> dict[str, int]:
    """Return the bytes of each of `PARTS`. Their sum is the expected peak of the training process."""
    trainable = shape.parameters if load.adapter is None else adapter_parameters(load.adapter, load.rank, load.dora)
    if load.cost.value:
        trainable += trainable if load.adapter is not None else shape.hidden
    linear = sum(layer.inputs * layer.outputs for layer in shape.linears)
    if load.adapter is None:
        # Float32 masters; autocast keeps a bfloat16 copy of every matrix for the length of a step.
        weights = 4 * trainable + (2 * (linear + shape.vocab * shape.hidden) if load.autocast else 0)
    else:
        quantised = linear if load.weight_bits else 0
        weights = load.dtype_bytes * (shape.parameters - quantised) + 4 * trainable
        weights += round(load.weight_bits / 8 * quantised)
    if load.adapter is None and load.cost.reference:
        weights += 4 * shape.parameters
    activations = round(load.tokens * activation_bytes_per_token(shape, load)) + cache_bytes(shape, load)
    logits = logit_rows(load) * shape.vocab * LOGIT_BYTES[load.autocast]
    # With one micro-batch an update, gradients come while activations and logits go, in the memory these leave.
    gradients = 4 * trainable if load.accumulates else max(0, 4 * trainable - activations - logits)
    return {
        "weights": weights,
        "gradients": gradients,
        "optimizer": optimizer_bytes(shape, load),
        "activations": activations,
        "logits": logits,
        "runtime": RUNTIME_CUDA if load.cuda else load.import_bytes + JOB_BYTES,
    }


def logit_rows(load: Load) -> int:
    """Tokens whose logits exist at one time."""
    if load.cost.logits == "none":
        return 0
    if load.cost.logits == "full":
        return load.tokens
    return min(LOGIT_CHUNK, load.supervised if load.cost.logits == "supervised" else load.tokens)


def cache_bytes(shape: ModelShape, load: Load) -> int:
    """Keys and values of the answers of an update while they are written."""
    if not load.cost.generates:
        return 0
    return load.batch * load.length * shape.layers * 2 * shape.kv_heads * shape.head_dim * (2 if load.autocast else 4)


def optimizer_bytes(shape: ModelShape, load: Load) -> int:
    """AdamW holds two float32 moments a parameter, Adafactor a row and a column a matrix, SGD nothing."""
    if load.optimizer == "sgd":
        return 0
    if load.adapter is None:
        count, sides = shape.parameters, sum(layer.inputs + layer.outputs for layer in shape.linears)
        sides += shape.vocab + shape.hidden
    else:
        count = adapter_parameters(load.adapter, load.rank)
        sides = sum(layer.inputs + layer.outputs + 2 * load.rank for layer in load.adapter)
    return 4 * sides if load.optimizer == "adafactor" else 8 * count


def activation_bytes_per_token(shape: ModelShape, load: Load) -> float:
    """Bytes that one token of a micro-batch keeps until the backward pass, over all layers."""
    block = _block_bytes(shape, load)
    if not load.checkpointing:
        return shape.layers * block + _transient_bytes(shape, load)
    stream = 2 if load.autocast and load.adapter is not None else 4
    return shape.layers * stream * shape.hidden + block + _transient_bytes(shape, load)


def _block_bytes(shape: ModelShape, load: Load) -> float:
    """Bytes a token keeps in one block (H hidden, Q query width, K key/value width, I intermediate width).

    c is the bytes of a computed number: 2 under autocast, else 4.

    - Each of the two norms keeps its input in float32 (4 H). A trained norm also keeps its normalized output.
    - A linear layer keeps its input only when its weight is trained, or an adapter's. PEFT casts the input anew
      for every adapter, so q, k, v (and gate, up) each keep a copy of the same input; full tuning shares one.
    - Attention keeps q, k, v after the rotation, k and v repeated to the query heads, the output, and a
      float32 log-sum per head.
    - SwiGLU keeps gate, silu(gate) and up (3 c I); the down projection keeps its input (c I).
    """
    c = 2 if load.autocast else 4
    hidden, inner = shape.hidden, shape.intermediate
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms = 2 * 4 * hidden
    attention = c * (query + 2 * key + query) + 4 * shape.heads
    if key != query:
        attention += 2 * c * query
    swiglu = 3 * c * inner
    if load.adapter is None:
        inputs = c * (hidden + query + hidden + inner)
        return norms + 2 * c * hidden + attention + swiglu + inputs
    layers = max(1, shape.layers)
    # Without autocast the adapter takes the very tensor that the block computed, so copies cost nothing more.
    copies = sum(linear.inputs for linear in load.adapter) / layers
    shared = 0.0 if load.autocast else max(0.0, copies - 2 * hidden - query - inner)
    low_rank = c * load.rank * len(load.adapter) / layers
    # DoRA scales what the layer and the adapter give, and keeps both for the gradient of the scale.
    scaled = 2 * c * sum(linear.outputs for linear in load.adapter) / layers if load.dora else 0.0
    return norms + attention + swiglu + c * (copies - shared) + low_rank + scaled


def _transient_bytes(shape: ModelShape, load: Load) -> float:
    """What one block needs besides, at the moment of its backward pass: gradients of its widest tensors."""
    c = 2 if load.autocast else 4
    return 3 * c * shape.intermediate + 4 * shape.intermediate

"""How much memory a training run takes, part by part, from a model's shape. Pure arithmetic, no device is asked.

Activations are counted tensor by tensor for a Llama-like block (`plan.activations`). Nothing is fitted but the runtime;
docs/memory.md has the table of plan against measured peak.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from studio.methods import MethodCost
from studio.models.device.machine import IMPORT_BYTES
from studio.models.inspect.adapted import Adapted, is_embedding
from studio.models.inspect.shape import ModelShape
from studio.models.plan.activations import block_bytes
from studio.models.plan.states import state_bytes, trained

PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "runtime")
LOGIT_CHUNK = 1024  # Supervised tokens projected at a time by our loss: × 49,152 logits in float32 are 0.2 GB.

# Where the engine's head computes it, so many tokens at a time, whose logits become their own gradient.
FUSED_LOGITS = 512

# What a job on a CPU takes beside its imports and what is counted below: threads, rows, workspaces and the pages of
# libraries that it touches, and of what comes and goes in a step the share that the allocator cannot use again, since
# batches have other lengths. Measured: 0.1 to 0.2 GB with an adapter, 0.5 GB in full (docs/memory.md).
JOB_BYTES = 190_000_000
LOST_SHARE = 0.15
# In full tuning without padding it is more: the optimizer's states come to lie in what the first step left.
LOST_SHARE_FULL = 0.3
# What torch's library for bfloat16 compiles and keeps of a run's products (`processes.KEPT`), measured.
PRODUCT_BYTES = 100_000_000
# Inputs of blocks that a GPU holds where they are offloaded: the one that is computed, and one on its way.
FETCHED = 2
# The CUDA context and the workspaces of cuBLAS on the GPU: an assumption, not measured here.
RUNTIME_CUDA = 900_000_000
# Bytes per logit while a chunk's loss and gradient are made: bf16 and fp32 logits, log-softmax, both gradients.
LOGIT_BYTES = {True: 16, False: 12}
# The same of ppo, which also takes their entropy: the logits over the temperature, their softmax, and three gradients;
# measured.
ANSWER_LOGIT_BYTES = 20
# The tiles of TRL's fused head (`trl.kernels.chunked_logprob`), tokens × logits. In torch its backward pass holds the
# product and seven float32 tensors and a mask of the same size; with Triton the product only, 4,096 tokens at a time.
TILE_TOKENS = 1024
TILE_LOGITS = 32768
TILE_BYTES = {True: 2 + 7 * 4 + 1, False: 4 + 7 * 4 + 1}
TILE_TOKENS_CUDA = 4096
TILE_BYTES_CUDA = {True: 2, False: 4}

# Numbers that DeepSpeed sends at a time (`train.zero` writes it into its config).
BUCKET = 100_000_000


@dataclass(frozen=True)
class Load:
    """What decides the memory of a run besides the model.

    Attributes:
        adapter: what is trained beside the weights; None when every weight is trained.
        dtype_bytes: bytes of one frozen weight in memory (2 or 4).
        autocast: products are computed in bfloat16.
        optimizer: `training.optimizer`.
        micro_batch: examples computed at a time.
        length: tokens of the longest of them, to which the others are padded.
        supervised: tokens of a micro-batch that the loss counts.
        checkpointing: blocks keep only their input and are computed again in the backward pass.
        offloads: and these inputs lie in the computer's memory (`train.engine.offload`).
        cuda: on a GPU, where memory is counted there.
        import_bytes: memory of its own that a process holds with the libraries imported.
        cost: what the method computes for an example.
        weight_bits: bits of a quantised weight of the linear layers with its share of the scales; 0 for none.
        reference: a second model is held as the reference.
        scorer: weights of a reward model beside it.
        validation: tokens of the longest validation example with what is written after it; 0 without validation.
        written: tokens of an answer that is written in training, which `length` includes.
        batch: examples of an update, whose answers are all written before it.
        accumulates: an update has several micro-batches, so that gradients lie beside the next one's activations.
        padded: tokens of the largest micro-batch, all sequences counted; 0 where each has `micro_batch` of the longest.
        scored: and with those that are computed once for several rows, as the head has them, counted for each.
        token_limit: tokens computed at a time at most, where rows of like length are put together; 0 for no limit.
        waste: tokens of all micro-batches as they are computed over those of their rows: above 1 with padding, below
            where some are computed once for several rows; 0 where that is not known.
        fused: the engine's layers compute it.
        unpadded: and leave padding out.
        shares_prefixes: and compute a prefix that several rows share once.
        buckets: gradients are copied to be averaged over several processes (torch's DistributedDataParallel).
        shards: processes over which something is divided; 1 where each has everything.
        stage: what is divided: 1 the optimizer's states, 2 gradients too, 3 weights too, of which one block is whole at
            a time (ZeRO, Rajbhandari et al. 2020, arXiv:1910.02054).
        deepspeed: by DeepSpeed, which computes with weights in bfloat16 and counts float32 ones to the states; by torch
            otherwise (FSDP2), which keeps float32 weights and gathers them in bfloat16, but for embeddings.
    """

    adapter: Adapted | None
    dtype_bytes: int
    autocast: bool
    optimizer: str
    micro_batch: int
    length: int
    supervised: int
    checkpointing: bool
    offloads: bool = False
    cuda: bool = False
    import_bytes: int = IMPORT_BYTES
    cost: MethodCost = field(default_factory=MethodCost)
    weight_bits: float = 0.0
    reference: bool = False
    scorer: int = 0
    validation: int = 0
    written: int = 0
    batch: int = 1
    accumulates: bool = True
    padded: int = 0
    scored: int = 0
    token_limit: int = 0
    waste: float = 0.0
    fused: bool = False
    unpadded: bool = False
    shares_prefixes: bool = False
    buckets: bool = False
    shards: int = 1
    stage: int = 0
    deepspeed: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of the largest micro-batch as they are computed, all sequences of an example counted."""
        return self.padded or self.micro_batch * self.cost.sequences * self.length

    def resized(self, rows: int, length: int) -> Load:
        """The same with micro-batches of at most so many examples, of at most so many tokens."""
        row = self.cost.sequences * length

        def fewer(tokens: int) -> int:
            return max(min(tokens, row), min(tokens, tokens * length // self.length, rows * row))

        padded, scored = fewer(self.padded), fewer(self.scored)
        return replace(self, micro_batch=min(rows, self.micro_batch), length=length, padded=padded, scored=scored)


def estimate(shape: ModelShape, load: Load) -> dict[str, int]:
    """Return the bytes of each of `PARTS`. Their sum is the expected peak of the training process.

    Where a validation of longer rows takes more than a step does, the parts are those of the validation.
    """
    step = _step(shape, load)
    if not load.validation:
        return step
    # No gradients, and a block's tensors go before the next one's come; the optimizer's stay.
    share = load.supervised * load.validation // load.length
    row = load.cost.sequences * load.validation
    padded = max(row, min(load.token_limit, load.batch * row)) if load.token_limit else 0
    looked = replace(load, length=load.validation, supervised=share, batch=load.micro_batch, padded=padded, scored=0)
    block = round(looked.tokens * (_block_bytes(shape, looked) + _transient_bytes(shape, looked)))
    validation = step | {
        "gradients": 0, "activations": block + cache_bytes(shape, looked), "logits": _logit_bytes(shape, looked)
    }  # fmt: skip
    return max(step, validation, key=lambda parts: sum(parts.values()))


def _step(shape: ModelShape, load: Load) -> dict[str, int]:
    adapter = load.adapter
    trainable = shape.parameters if adapter is None else adapter.parameters
    if load.cost.value:
        trainable += shape.hidden if adapter is None else adapter.low_rank
    linear = sum(layer.inputs * layer.outputs for layer in shape.linears)
    if adapter is None:
        # Float32 masters; autocast keeps a bfloat16 copy of every matrix for the length of a step.
        held, copies = 4 * trainable, (2 * (linear + shape.vocab * shape.hidden) if load.autocast else 0)
    else:
        quantised = linear if load.weight_bits else 0
        held = load.dtype_bytes * (shape.parameters - quantised) + 4 * trainable
        held += round(load.weight_bits / 8 * quantised)
        whole = sum(one.inputs * one.outputs for one in adapter.whole if not is_embedding(one))
        copies = 2 * whole if load.autocast else 0
    reference = 4 * shape.parameters if adapter is None and load.reference else 0
    # Answers are written before they are learned from, so their cache is gone by then.
    activations = max(round(load.tokens * activation_bytes_per_token(shape, load)), cache_bytes(shape, load))
    logits = _logit_bytes(shape, load)
    gradients = 4 * trainable
    share = LOST_SHARE_FULL if adapter is None and load.unpadded else LOST_SHARE
    lost = round(share * activations + LOST_SHARE * gradients)
    kept = PRODUCT_BYTES if load.autocast else 0
    states = state_bytes(load.optimizer, trained(shape, adapter, load.cost.value))
    if load.shards > 1:
        copies = 0  # what is computed with is bfloat16 itself: gathered so, or held so
        if load.deepspeed and load.autocast:
            held, states, gradients = held - 2 * trainable, states + 4 * trainable, 2 * trainable
        states = states // load.shards
        gradients = gradients // load.shards if load.stage > 1 else gradients
        held, reference = (one // load.shards if load.stage > 2 else one for one in (held, reference))
    # With one micro-batch an update, gradients come while activations and logits go, in the memory these leave.
    if not load.accumulates:
        gradients = max(0, gradients - activations - logits)
    weights = held + copies + reference + load.dtype_bytes * load.scorer + gathered_bytes(shape, load)
    gradients += communication_bytes(shape, load)
    return {
        "weights": weights,
        "gradients": gradients,
        "optimizer": states,
        "activations": activations,
        "logits": logits,
        "runtime": RUNTIME_CUDA if load.cuda else load.import_bytes + JOB_BYTES + kept + lost,
    }


def gathered_bytes(shape: ModelShape, load: Load) -> int:
    """Divided weights that are whole for a moment: the block that is computed, the one that is fetched meanwhile, and
    what stands outside of blocks; all of them while answers are written.
    """
    if load.shards == 1 or load.stage < 3:
        return 0
    outside = _outside(shape, load)
    if load.cost.generates:  # answers are written with whole weights
        return outside + _computed(load) * max(0, shape.parameters - _outside_count(shape))
    each = load.weight_bits / 8 if load.weight_bits else _computed(load)
    copied = _wider_embedding(shape, load) if shape.tied else 0  # autocast's, in bfloat16 for the head
    return round(2 * each * _block(shape)) + outside + copied


def communication_bytes(shape: ModelShape, load: Load) -> int:
    """What is sent and received lies in buffers of its own.

    DDP copies every gradient. FSDP2 receives a block before its weights lie in their places, and has the gradients of a
    block twice, in float32 and to be added up; those outside of blocks stay until the end of the step.
    DeepSpeed has two buckets of gradients, and one of weights.
    """
    adapter = load.adapter
    trainable = shape.parameters if adapter is None else adapter.parameters
    if load.buckets:
        return 4 * trainable
    if load.shards == 1:
        return 0
    each = _computed(load)
    if load.deepspeed:
        return 2 * each * min(BUCKET, trainable) + each * min(BUCKET, shape.parameters)
    received = round((load.weight_bits / 8 or each) * _block(shape))
    block = _block(shape) if adapter is None else trainable // max(1, shape.layers)
    return received + (4 + 4) * block + (_outside(shape, load) if adapter is None else 0)


def _computed(load: Load) -> int:
    return 2 if load.autocast else 4


def _block(shape: ModelShape) -> int:
    return sum(layer.inputs * layer.outputs for layer in shape.linears) // max(1, shape.layers)


def _outside_count(shape: ModelShape) -> int:
    return shape.vocab * shape.hidden * (1 if shape.tied else 2)


def _wider_embedding(shape: ModelShape, load: Load) -> int:
    """Bytes more of an embedding that FSDP2 gathers in float32, since what it gives is added to
    (`train.trainers.sharded`); 0 where it is gathered as blocks are.
    """
    return 2 * shape.vocab * shape.hidden if load.autocast and load.adapter is None and not load.deepspeed else 0


def _outside(shape: ModelShape, load: Load) -> int:
    """Bytes of embedding and head as they are gathered."""
    return _computed(load) * _outside_count(shape) + _wider_embedding(shape, load)


def _logit_bytes(shape: ModelShape, load: Load) -> int:
    copied = load.adapter is not None and bool(load.adapter.whole)  # a head beside the model's is PEFT's
    if load.fused and load.cost.logits != "none" and not copied:
        # The head's gradient, and what the tokens at hand add to it.
        learned = (4 + _computed(load)) * shape.vocab * shape.hidden if load.adapter is None else 0
        rows = load.supervised if load.cost.logits == "supervised" else load.scored or load.tokens
        return min(FUSED_LOGITS, rows) * shape.vocab * (2 if load.autocast else 4) + learned
    if load.cost.logits != "tiles":
        bytes_each = ANSWER_LOGIT_BYTES if load.cost.value else LOGIT_BYTES[load.autocast]
        return logit_rows(load) * shape.vocab * bytes_each
    each = TILE_BYTES_CUDA if load.cuda else TILE_BYTES
    return logit_rows(load) * min(TILE_LOGITS, shape.vocab) * each[load.autocast]


def logit_rows(load: Load) -> int:
    """Tokens whose logits exist at one time."""
    if load.cost.logits == "none":
        return 0
    tokens = load.scored or load.tokens
    if load.cost.logits == "full":
        # Where answers are written, those of prompts are not made.
        return load.micro_batch * (load.written + 1) if load.written else tokens
    if load.cost.logits == "tiles":
        return min(TILE_TOKENS_CUDA if load.cuda else TILE_TOKENS, tokens)
    return min(LOGIT_CHUNK, load.supervised)


def cache_bytes(shape: ModelShape, load: Load) -> int:
    """Keys and values of the answers of an update while they are written."""
    if not load.cost.generates:
        return 0
    return load.batch * load.length * shape.layers * 2 * shape.kv_heads * shape.head_dim * (2 if load.autocast else 4)


def activation_bytes_per_token(shape: ModelShape, load: Load) -> float:
    """Bytes that one token of a micro-batch keeps until the backward pass, over all layers."""
    block = _block_bytes(shape, load)
    if not load.checkpointing:
        return shape.layers * block + _transient_bytes(shape, load)
    inputs = min(shape.layers, FETCHED) if load.offloads else shape.layers
    return inputs * _input_bytes(shape, load) + block + _transient_bytes(shape, load)


def offloaded_bytes(shape: ModelShape, load: Load) -> int:
    """What the computer's memory holds of a micro-batch whose blocks' inputs are moved there."""
    return load.tokens * shape.layers * _input_bytes(shape, load) if load.offloads else 0


def _input_bytes(shape: ModelShape, load: Load) -> int:
    """What one token of a block's input takes."""
    return (2 if load.autocast and load.adapter is not None else 4) * shape.hidden


def _block_bytes(shape: ModelShape, load: Load) -> float:
    return block_bytes(shape, load.adapter, autocast=load.autocast, fused=load.fused)


def _transient_bytes(shape: ModelShape, load: Load) -> float:
    """What one block needs besides, at the moment of its backward pass: gradients of its widest tensors."""
    c = 2 if load.autocast else 4
    return 3 * c * shape.intermediate + (0 if load.fused else 4 * shape.intermediate)

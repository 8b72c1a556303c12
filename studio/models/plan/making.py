"""What a run will be before it starts: steps, memory, time, and every `auto` resolved with its reason.

A pure function of the run's config, the model's shape, the data's lengths and the device. The page shows it, the
worker follows it, the job keeps it beside the measured peak. Of files it looks at the adapter and the reward model that
the run names, to count them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from studio.config import RunConfig
from studio.methods import Method, Rate
from studio.models.catalog.available import ATTENTION, best_attention
from studio.models.device import speed
from studio.models.device.machine import DeviceInfo
from studio.models.inspect.adapted import adapted, reward_parameters
from studio.models.inspect.shape import ModelShape
from studio.models.plan.batches import Batching
from studio.models.plan.cures import Cure, advice, cures
from studio.models.plan.fit import GIVEN, Choice, Lengths, fits
from studio.models.plan.fused import fused, shares_prefixes, unpadded
from studio.models.plan.memory import Load, communication_bytes, gathered_bytes
from studio.models.plan.saying import line_of
from studio.models.plan.spread import fit_shared, part_of, spread

EVALUATIONS = 8
RATE = "training.learning_rate"


@dataclass(frozen=True)
class Plan:
    """What will happen. Bytes are bytes, `seconds` is training with validation, without loading; None if unknown.

    Attributes:
        parameters, trainable: of the model; and how many of them (or of the adapter) change.
        adapter_bytes: size of the saved adapter, 0 for full tuning.
        steps: updates in all; `steps_per_epoch` of them go once through the data.
        tokens: training tokens gone through in all, without padding.
        micro_batch: examples computed at a time; about so many where `micro_tokens` decides.
        accumulation: micro-batches of an update, likewise.
        micro_tokens: tokens computed at a time at most, by which rows of like length are put together (`batches`); 0
            where the number of examples decides.
        unpadded: micro-batches are computed without their padding.
        dtype: of the weights in memory; `autocast` says whether products are computed in bfloat16.
        attention: transformers' name of the attention code; "auto" leaves the choice to it.
        memory: bytes by part; they sum to `total_bytes`, the expected peak of the training process.
        available_bytes: free memory of the device now; a run `fits` if it needs at most 90 % of it.
        advice: sentences naming the settings to change when it does not fit, the least costly first.
        cures: what would lower the memory, the least costly first, for a run whose memory was full all the same.
        choices: option path → Choice, for every option that can be `auto`.
        ranks: processes that compute the run together. Memory, micro-batch and accumulation are those of each, and
            `available_bytes` is its part of what is free.
        parallel: how they share an update: none, ddp, fsdp2, or a stage of ZeRO.
        gathered, buffers: bytes of `memory` that only several processes need: whole blocks of divided weights (in
            `weights`), and what is sent and received (in `gradients`).
        usual: what `auto` would be for options of which it is known, whatever is set.
    """

    tuning: str
    rank: int
    parameters: int
    trainable: int
    adapter_bytes: int
    steps: int
    steps_per_epoch: int
    epochs: float
    tokens: int
    micro_batch: int
    accumulation: int
    micro_tokens: int
    unpadded: bool
    activation_checkpointing: bool
    activation_offloading: bool
    learning_rate: float
    dtype: str
    autocast: bool
    attention: str
    eval_steps: int
    save_steps: int
    keep_best: bool
    seconds: float | None
    memory: dict[str, int]
    available_bytes: int
    fits: bool
    advice: list[str] = field(default_factory=list)
    cures: list[Cure] = field(default_factory=list)
    choices: dict[str, Choice] = field(default_factory=dict)
    usual: dict[str, Choice] = field(default_factory=dict)
    ranks: int = 1
    parallel: str = "none"
    gathered: int = 0
    buffers: int = 0

    @property
    def batching(self) -> Batching:
        """How many rows are computed at a time."""
        rows = self.micro_batch * (self.accumulation if self.micro_tokens else 1)
        return Batching(rows, self.micro_tokens, padded=not self.unpadded)

    @property
    def saving(self) -> str:
        """How activations save memory: by offloading, which implies checkpointing, by checkpointing alone, or ""."""
        return "offloading" if self.activation_offloading else "checkpointing" if self.activation_checkpointing else ""

    @property
    def total_bytes(self) -> int:
        """Expected peak memory of the training process."""
        return sum(self.memory.values())

    def line(self) -> str:
        """The plan in one line for the page and the log."""
        return line_of(self)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values, with `total_bytes` and `line`."""
        return asdict(self) | {"total_bytes": self.total_bytes, "line": self.line()}


def make_plan(
    config: RunConfig,
    shape: ModelShape,
    lengths: Lengths,
    device: DeviceInfo,
    begun: Batching | None = None,
) -> Plan:
    """Resolve every `auto` and say what the run takes.

    Args:
        config, shape, lengths, device: the run, its model, token counts of its rows, and where it is trained.
        begun: micro-batches of a run that resumes, kept whatever memory is free by now; None for a new run.

    Raises:
        InputError: `tuning.target_modules` names a layer that the model does not have.
        ValueError: there is no training example (the data's checks refuse that before).
    """
    if lengths.count < 1:
        raise ValueError("a plan needs at least one training example")
    training, tuning = config.training, config.tuning
    adapter = adapted(shape, tuning)
    trainable = shape.parameters if adapter is None else adapter.parameters
    written = config.method.max_completion_length if config.method.kind.online else 0
    choices: dict[str, Choice] = {}

    ranks = training.ranks
    own, device = part_of(config, device)
    choices.update(spread(config, device))
    dtype, autocast = _dtype(config, device, choices)
    usual = _usual_rate(config, shape)
    rate = _rate(config, usual, choices)
    cost = config.method.kind.cost
    by_beta = cost.reference == "beta" and config.method.beta not in ("auto", 0)
    load = Load(
        adapter=adapter, dtype_bytes=2 if dtype == "bfloat16" else 4, autocast=autocast,
        optimizer=training.optimizer, micro_batch=1, length=max(1, lengths.max) + written, supervised=0,
        checkpointing=False, cuda=device.kind == "cuda", import_bytes=device.import_bytes, cost=cost, written=written,
        weight_bits=tuning.kind.weight_bits(tuning), batch=own.training.batch_size,
        scorer=reward_parameters(shape, config),
        reference=by_beta or cost.reference == "always",
        validation=lengths.validation_max + written if lengths.validation_max else 0,
        fused=fused(own, shape, device), unpadded=unpadded(own, shape, device),
        shares_prefixes=shares_prefixes(own, shape, device, lengths.max),
    )  # fmt: skip
    parallel, own, (load, memory) = fit_shared(own, shape, lengths, device, load, choices, begun)
    micro, accumulation = load.micro_batch, own.training.batch_size // load.micro_batch
    per_epoch = steps_per_epoch(config, lengths.count, micro, accumulation * ranks)
    steps = training.max_steps or math.ceil(training.epochs * per_epoch)
    epochs = steps / per_epoch if training.max_steps else training.epochs
    plan = Plan(
        tuning=config.tuning.name,
        rank=tuning.rank if adapter is None else adapter.rank,
        parameters=shape.parameters,
        trainable=trainable,
        adapter_bytes=0 if adapter is None else 4 * trainable,
        steps=steps,
        steps_per_epoch=per_epoch,
        epochs=epochs,
        tokens=_tokens(config, lengths, steps, epochs),
        micro_batch=micro,
        accumulation=accumulation,
        micro_tokens=load.token_limit,
        unpadded=load.unpadded,
        activation_checkpointing=load.checkpointing,
        activation_offloading=load.offloads,
        learning_rate=rate,
        dtype=dtype,
        autocast=autocast,
        attention=_attention(config, device, autocast, choices),
        eval_steps=_eval_steps(config, lengths, steps, choices),
        save_steps=_save_steps(config, steps, per_epoch, choices),
        keep_best=_keep_best(config, lengths, choices),
        seconds=None,
        memory=memory,
        available_bytes=device.available_bytes,
        fits=fits(memory, device),
        choices=choices,
        usual={RATE: usual},
        ranks=ranks,
        parallel=parallel,
        gathered=gathered_bytes(shape, load),
        buffers=communication_bytes(shape, load) if memory["gradients"] else 0,
    )
    seconds = speed.training_seconds(shape, load, _work(config, lengths, plan, load), device)
    if seconds is not None and device.kind != "cpu":  # on a CPU the processes share the cores
        seconds /= ranks
    found = cures(own, shape, load)
    told = [] if plan.fits else advice(found, memory, device)
    return replace(plan, seconds=seconds, advice=told, cures=found)


def steps_per_epoch(config: RunConfig, rows: int, micro: int, accumulation: int) -> int:
    """Updates that go once through the rows.

    grpo writes several answers for each prompt, all of them in the batch; ppo makes several updates of each batch.

    Args:
        config, rows, micro, accumulation: rows are training prompts or examples; `micro` is examples per micro-batch.
    """
    method = config.method
    if (updates := method.kind.updates(method)) > 1:
        return max(1, math.ceil(rows / config.training.batch_size)) * updates
    examples = rows * method.kind.completions(method)
    return max(1, math.ceil(math.ceil(examples / micro) / accumulation))


def _tokens(config: RunConfig, lengths: Lengths, steps: int, epochs: float) -> int:
    """Tokens gone through once each; answers that are written count in full length, which they may stay below."""
    method = config.method
    if not method.kind.online:
        return round(lengths.total_tokens * epochs)
    batches = math.ceil(steps / method.kind.updates(method))
    prompt = lengths.total_tokens / lengths.count
    return round(batches * config.training.batch_size * (prompt + method.max_completion_length))


def _dtype(config: RunConfig, device: DeviceInfo, choices: dict[str, Choice]) -> tuple[str, bool]:
    """Return (dtype of the weights in memory, whether products are computed in bfloat16)."""
    asked, full = config.model.dtype, not config.tuning.kind.adapter
    source = "measured on this device" if device.measured else "the CPU flags; not measured yet"
    fast = device.bf16_fast if asked == "auto" else asked == "bfloat16"
    if device.measured:
        ratio = device.gflops.get("bfloat16", 0.0) / max(device.gflops.get("float32", 0.0), 1e-9)
        reason = f"bfloat16 matmuls are {ratio:.1f} times as fast as float32 here"
    else:
        reason = "this device has bfloat16 arithmetic" if fast else "this device only emulates bfloat16"
    if asked != "auto":
        reason, source = "as set", GIVEN
    if full and fast:
        reason += "; full fine-tuning keeps float32 weights, since bfloat16 would round small updates away"
    dtype = "bfloat16" if fast and not full else "float32"
    choices["model.dtype"] = Choice(dtype, reason, source)
    return dtype, fast


def _attention(config: RunConfig, device: DeviceInfo, half: bool, choices: dict[str, Choice]) -> str:
    asked = config.model.attention
    if asked != "auto":
        choices[ATTENTION] = Choice(asked, "as set", GIVEN)
        return asked
    best = best_attention(device, half)
    if best == "auto":
        choices[ATTENTION] = Choice("sdpa", "torch's own where the model supports it, otherwise eager", "transformers")
    else:
        choices[ATTENTION] = Choice(best, "it is installed and this GPU supports it", "this machine")
    return best


def rate_for(method: Method, adapter: bool, parameters: int) -> Rate:
    """The rule for `learning_rate: auto`: the method's own, by tuning and size.

    Args:
        method, adapter, parameters: an adapter or every weight is trained; all parameters of the model.
    """
    return next(rate for rate in method.rates if rate.adapter == adapter and parameters < rate.below)


def _usual_rate(config: RunConfig, shape: ModelShape) -> Choice:
    row = rate_for(config.method.kind, config.tuning.kind.adapter, shape.parameters)
    return Choice(row.value, row.reason, row.source)


def _rate(config: RunConfig, usual: Choice, choices: dict[str, Choice]) -> float:
    asked = config.training.learning_rate
    choices[RATE] = usual if asked == "auto" else Choice(float(asked), "as set", GIVEN)
    return float(choices[RATE].value)


def _eval_steps(config: RunConfig, lengths: Lengths, steps: int, choices: dict[str, Choice]) -> int:
    asked = config.training.eval_steps
    if not lengths.validation_count:
        choice = Choice(0, "there are no validation rows", "data.validation")
    elif asked != "auto":
        choice = Choice(int(asked), "as set", GIVEN)
    else:
        count = EVALUATIONS if config.training.early_stopping else _evaluations(config, lengths, steps)
        many = "one validation" if count == 1 else f"about {count} validations"
        why = "" if count == EVALUATIONS else ": more would take over a third of the time"
        # Rounded up, so that the one at the end does not come right after another.
        choice = Choice(max(1, -(-steps // count)), f"{many} in {steps} steps{why}", "rule")
    choices["training.eval_steps"] = choice
    return int(choice.value)


def _evaluations(config: RunConfig, lengths: Lengths, steps: int) -> int:
    """How often to validate in a third of the training's time: a trained row is worth three (backward is two)."""
    trained = steps * config.training.batch_size
    return min(EVALUATIONS, max(1, trained // lengths.validation_count - 1))


def _save_steps(config: RunConfig, steps: int, per_epoch: int, choices: dict[str, Choice]) -> int:
    asked = config.training.save_steps
    if asked != "auto":
        choice = Choice(int(asked), "as set", GIVEN)
    else:
        choice = Choice(min(steps, per_epoch), "once per epoch", "rule")
    choices["training.save_steps"] = choice
    return int(choice.value)


def _keep_best(config: RunConfig, lengths: Lengths, choices: dict[str, Choice]) -> bool:
    asked = config.training.keep_best
    if not lengths.validation_count:
        choice = Choice(False, "there are no validation rows", "data.validation")
    elif config.training.load_best_model_at_end:
        choice = Choice(True, "its weights are saved at the end", "training.load_best_model_at_end")
    elif asked != "auto":
        choice = Choice(asked, "as set", GIVEN)
    elif not config.tuning.kind.adapter:
        choice = Choice(False, "full fine-tuning checkpoints are large", "rule")
    else:
        choice = Choice(True, "adapter checkpoints are small", "rule")
    choices["training.keep_best"] = choice
    return bool(choice.value)


def _work(config: RunConfig, lengths: Lengths, plan: Plan, load: Load) -> speed.Work:
    evaluations = plan.steps // plan.eval_steps + 1 if plan.eval_steps else 0
    sequences = lengths.count * load.cost.sequences
    mean = lengths.total_tokens / sequences + load.written
    written = round(plan.tokens * load.written / mean) if load.written else 0
    passes = 2 * config.method.kind.updates(config.method) if load.cost.value else 1
    return speed.Work(
        tokens=plan.tokens,
        examples=round(sequences * plan.epochs),
        mean_length=mean,
        max_length=load.length,
        written=written,
        passes=passes,
        supervised_share=lengths.supervised_tokens / max(1, lengths.total_tokens),
        validation_tokens=round(evaluations * lengths.validation_count * load.cost.sequences * mean),
    )

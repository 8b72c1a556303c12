"""What the method cannot do with these options and this data."""

from __future__ import annotations

from importlib.util import find_spec

from studio.config.data import DataConfig
from studio.config.method import ONLINE
from studio.errors import InputError
from studio.train.checks.known import Known
from studio.train.checks.rewards import check_rewards

_EIGHT_BIT = ("adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "lion_8bit", "ademamix_8bit")


def _beta(known: Known) -> None:
    method = known.config.method
    if method.name in ("dpo", "orpo", "kto") and method.beta == 0:
        raise InputError("with 0 nothing is learned from the pairs", where="method.beta", fix="0.1 is usual; try auto")


def _dpo(known: Known) -> None:
    method = known.config.method
    if method.name != "dpo":
        return
    if "exo_pair" in method.dpo_loss and method.label_smoothing == 0:
        raise InputError("exo_pair needs some smoothing", where="method.label_smoothing", fix="Set it to 0.001")
    if method.dpo_loss == ["sft"]:
        raise InputError(
            "the sft loss alone learns nothing from the worse answers", where="method.dpo_loss",
            fix="Mix it in (sigmoid, sft), or set method.name to sft",
        )  # fmt: skip


def _kto(known: Known) -> None:
    if known.config.method.name != "kto":
        return
    training = known.config.training
    if known.config.method.kto_loss == "kto" and 1 in (training.batch_size, training.micro_batch_size):
        option = "training.batch_size" if training.batch_size == 1 else "training.micro_batch_size"
        raise InputError(
            "kto compares the answers of a batch with each other, so one at a time is not enough", where=option,
            fix="Use 2 or more, or method.kto_loss apo_zero_unpaired",
        )  # fmt: skip
    lengths = known.lengths
    if lengths is not None and lengths.good is not None and lengths.good in (0, lengths.count):
        kind = "good" if lengths.good else "bad"
        raise InputError(
            f"all {lengths.count:,} answers are rated {kind}, so there is nothing to tell apart", where="data.train",
            fix="Add rows with the other label",
        )  # fmt: skip


def _groups(known: Known) -> None:
    method, training = known.config.method, known.config.training
    if method.name != "grpo":
        return
    if training.batch_size % method.num_generations:
        low = training.batch_size // method.num_generations * method.num_generations
        nearest = low or method.num_generations
        raise InputError(
            f"a batch of {training.batch_size} answers does not hold whole groups of {method.num_generations}",
            where="training.batch_size",
            fix=f"Set it to {nearest} or {nearest + method.num_generations}, or change method.num_generations",
        )
    lengths = known.lengths
    groups = training.batch_size // method.num_generations
    if lengths is not None and lengths.count < groups:
        raise InputError(
            f"a batch holds {groups} prompts and the data has {lengths.count}", where="training.batch_size",
            fix=f"Set it to {lengths.count * method.num_generations}, or give more rows",
        )  # fmt: skip


def _ppo(known: Known) -> None:
    method = known.config.method
    if method.name == "ppo" and method.kl_target is not None and method.kl_coef == 0:
        raise InputError("a weight of 0 cannot be steered", where="method.kl_coef", fix="0.05 is usual")


def _optimizer(known: Known) -> None:
    training, tuning = known.config.training, known.config.tuning
    if training.optimizer in _EIGHT_BIT and find_spec("bitsandbytes") is None:
        raise InputError(
            f"{training.optimizer} needs the package bitsandbytes", where="training.optimizer",
            fix="Install it (pip install bitsandbytes), or use adamw_torch_fused",
        )  # fmt: skip
    if tuning.name in ("lora", "qlora") and tuning.lora_plus_ratio and "adamw" not in training.optimizer:
        raise InputError(
            f"LoRA+ is made for AdamW, not {training.optimizer}", where="tuning.lora_plus_ratio",
            fix="Leave it empty, or set training.optimizer to adamw_torch",
        )  # fmt: skip


def _context(known: Known) -> None:
    lengths, limit = known.lengths, known.shape.context
    if limit is None:
        return
    model, allowed = known.config.model, known.config.data.max_length
    longest = int(limit * model.rope_factor) if model.rope_scaling != "none" else limit
    # What nobody asked for is held against the rows only: the default is above what a small model was made for.
    if allowed > max(longest, DataConfig.model_fields["max_length"].default):
        raise InputError(
            f"rows of {allowed:,} tokens are allowed; the model was made for {longest:,}", where="data.max_length",
            fix=f"Set it to {longest:,} or less, or stretch the model's context with model.rope_scaling",
        )  # fmt: skip
    if lengths is None:
        return
    written = known.config.method.max_completion_length if known.config.method.name in ONLINE else 0
    validation = lengths.validation_max > lengths.max
    tokens = max(lengths.max, lengths.validation_max)
    if tokens + written > longest:
        what = f"the longest {'prompt' if written else 'example'}{' of the validation' if validation else ''}"
        also = f" and answers up to {written:,}" if written else ""
        raise InputError(
            f"{what} has {tokens:,} tokens{also}; the model was made for {longest:,}",
            where="method.max_completion_length" if written else "data.max_length",
            fix="Set a lower limit, or stretch the model's context with model.rope_scaling",
        )


METHOD_CHECKS = (_beta, _dpo, _kto, _groups, check_rewards, _ppo, _optimizer, _context)

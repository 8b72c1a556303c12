"""What the method cannot do with these options and this data."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

from studio.errors import InputError
from studio.methods import Asked
from studio.train.checks.known import Known
from studio.train.checks.rewards import check_rewards

_FORMER = 1024  # what data.max_length was by default: it stands in files and runs of older versions
_EIGHT_BIT = ("adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "lion_8bit", "ademamix_8bit")


def _own(known: Known) -> None:
    method, training, lengths = known.config.method, known.config.training, known.lengths
    asked = Asked(training.batch_size, training.micro_batch_size)
    if lengths is not None:
        asked = replace(asked, rows=lengths.count, good=lengths.good)
    method.kind.check(method, asked)


def _optimizer(known: Known) -> None:
    training, tuning = known.config.training, known.config.tuning
    if training.optimizer in _EIGHT_BIT and find_spec("bitsandbytes") is None:
        raise InputError(
            f"{training.optimizer} needs the package bitsandbytes", where="training.optimizer",
            fix="Install it (pip install bitsandbytes), or use adamw_torch_fused",
        )  # fmt: skip
    if tuning.reads("lora_plus_ratio") and tuning.lora_plus_ratio and "adamw" not in training.optimizer:
        raise InputError(
            f"LoRA+ needs AdamW, not {training.optimizer}", where="tuning.lora_plus_ratio",
            fix="Leave it empty, or set training.optimizer to adamw_torch",
        )  # fmt: skip


def _noise(known: Known) -> None:
    method = known.config.method
    if known.config.padding_free and method.reads("neftune_noise_alpha") and method.neftune_noise_alpha:
        raise InputError(
            "the noise of NEFTune is scaled by the length of a row, and without padding one row holds all examples of "
            "a micro-batch", where="method.neftune_noise_alpha",
            fix="Set it to 0, or turn training.padding_free off",
        )  # fmt: skip


def _context(known: Known) -> None:
    lengths, longest, allowed = known.lengths, known.context, known.config.data.max_length
    if longest is None:
        return
    # What nobody asked for is held against the rows only.
    if allowed != "auto" and allowed > max(longest, _FORMER):
        raise InputError(
            f"rows of up to {allowed:,} tokens are allowed, but the model's context length is "
            f"{longest:,}", where="data.max_length",
            fix=f"Set it to {longest:,} or less, or extend the context with model.rope_scaling",
        )  # fmt: skip
    if lengths is None:
        return
    written = known.config.method.max_completion_length if known.config.method.kind.online else 0
    validation = lengths.validation_max > lengths.max
    tokens = max(lengths.max, lengths.validation_max)
    if tokens + written > longest:
        what = f"the longest {'prompt' if written else 'example'}{' of the validation data' if validation else ''}"
        also = f" and completions up to {written:,}" if written else ""
        raise InputError(
            f"{what} has {tokens:,} tokens{also}; the model's context length is {longest:,}",
            where="method.max_completion_length" if written else "data.max_length",
            fix="Set a lower limit, or extend the context with model.rope_scaling",
        )


METHOD_CHECKS = (_own, check_rewards, _optimizer, _noise, _context)

"""What cannot be done with an adapter that is there already: to go on with it, or to merge it first.

Going on, PEFT takes everything from the adapter's own config; what is asked for beside it must be what it has.
"""

from __future__ import annotations

from typing import Any

from studio.errors import InputError
from studio.models.inspect.adapters import require_adapter
from studio.train.checks.known import Known
from studio.train.runs import find_model
from studio.tunings import title_of

_ANEW = "or set tuning.merge_adapter to true for a new adapter on top"


def _used(known: Known) -> None:
    tuning = known.config.tuning
    if not tuning.adapter:
        if tuning.merges:
            raise InputError("there is no adapter to merge", where="tuning.merge_adapter", fix="Set tuning.adapter")
        return
    if not tuning.kind.adapter:
        raise InputError(
            "full fine-tuning cannot continue an adapter", where="tuning.adapter",
            fix="Leave it empty and set model.path to the merged model (studio export), or set tuning.name to lora",
        )  # fmt: skip
    if tuning.merge_adapter and not tuning.merges:
        raise InputError(
            "an adapter can only be merged into unquantized weights, but qlora quantizes "
            "them", where="tuning.merge_adapter",
            fix="Turn it off to continue training the adapter, or merge it first (studio export) and set model.path "
            "to the result",
        )  # fmt: skip
    folder = find_model(tuning.adapter, known.settings, "tuning.adapter")
    config = require_adapter(folder, known.shape, "tuning.adapter")
    if (config.get("task_type") == "SEQ_CLS") != known.scores:
        what = "a reward-model" if not known.scores else "a language-model"
        raise InputError(f"this is {what} adapter", where="tuning.adapter", fix="Use an adapter of the same kind")
    if not tuning.merge_adapter:
        _require_kind(known, config)
        _require_same(known, config)


def _require_kind(known: Known, config: dict[str, Any]) -> None:
    tuning, dora = known.config.tuning, bool(config.get("use_dora"))
    if tuning.uses_dora == dora:
        return
    has = "DoRA magnitudes" if dora else "no DoRA magnitudes"
    where, on, off = tuning.kind.dora_switch()
    fix = f"Set it to {on if dora else off}" + (f", {_ANEW}" if tuning.reads("merge_adapter") else "")
    raise InputError(f"the adapter has {has}, but the tuning is {title_of(tuning.name)}", where=where, fix=fix)


def _require_same(known: Known, config: dict[str, Any]) -> None:
    tuning = known.config.tuning
    kept = list(config.get("modules_to_save") or [])
    lacking = [name for name in tuning.modules_to_save or [] if name not in kept]
    if tuning.reads("modules_to_save") and lacking:
        raise InputError(
            f"the adapter has no fully trained {lacking[0]}", where="tuning.modules_to_save",
            fix=f"Remove it, {_ANEW}",
        )  # fmt: skip
    if tuning.rslora and not config.get("use_rslora"):
        raise InputError(
            "the adapter was trained without rsLoRA", where="tuning.rslora", fix=f"Turn it off, {_ANEW}"
        )  # fmt: skip
    if tuning.dropout and tuning.dropout != config.get("lora_dropout"):
        raise InputError(
            f"an existing adapter keeps its dropout, {config.get('lora_dropout', 0)}", where="tuning.dropout",
            fix=f"Leave it at 0, {_ANEW}",
        )  # fmt: skip
    if tuning.alpha != "auto" and not _as_strong(float(tuning.alpha) / tuning.rank, config):
        raise InputError(
            f"an existing adapter keeps its scaling, alpha {config.get('lora_alpha')} at rank {config.get('r')}",
            where="tuning.alpha", fix=f"Set it to auto, {_ANEW}",
        )  # fmt: skip


def _as_strong(asked: float, config: dict[str, Any]) -> bool:
    rank, alpha = config.get("r"), config.get("lora_alpha")
    return isinstance(rank, int) and isinstance(alpha, int | float) and abs(alpha / rank - asked) < 1e-6


CONTINUED_CHECKS = (_used,)

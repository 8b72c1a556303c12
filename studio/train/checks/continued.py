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

_ANEW = "or switch tuning.merge_adapter on for a new adapter on top"


def _used(known: Known) -> None:
    tuning = known.config.tuning
    if not tuning.adapter:
        if tuning.merges:
            raise InputError(
                "there is no adapter to merge", where="tuning.merge_adapter", fix="Name one in tuning.adapter"
            )
        return
    if not tuning.kind.adapter:
        raise InputError(
            "with full tuning there is no adapter to go on from", where="tuning.adapter",
            fix="Leave it empty and name a merged model in model.path (studio export), or set tuning.name to lora",
        )  # fmt: skip
    if tuning.merge_adapter and not tuning.merges:
        raise InputError(
            "an adapter is merged into whole weights, and qlora holds them in few bits", where="tuning.merge_adapter",
            fix="Switch it off to go on with the adapter, or merge first (studio export) and name that model in "
            "model.path",
        )  # fmt: skip
    folder = find_model(tuning.adapter, known.settings, "tuning.adapter")
    config = require_adapter(folder, known.shape, "tuning.adapter")
    if (config.get("task_type") == "SEQ_CLS") != known.scores:
        what = "a reward model's" if not known.scores else "a language model's"
        raise InputError(f"this adapter is {what}", where="tuning.adapter", fix="Name an adapter of the same kind")
    if not tuning.merge_adapter:
        _require_kind(known, config)
        _require_same(known, config)


def _require_kind(known: Known, config: dict[str, Any]) -> None:
    tuning, dora = known.config.tuning, bool(config.get("use_dora"))
    if tuning.uses_dora == dora:
        return
    has = "lengths of DoRA" if dora else "no lengths of DoRA"
    where, on, off = tuning.kind.dora_switch()
    fix = f"Set it to {on if dora else off}" + (f", {_ANEW}" if tuning.reads("merge_adapter") else "")
    raise InputError(f"the adapter has {has}, and {title_of(tuning.name)} was asked for", where=where, fix=fix)


def _require_same(known: Known, config: dict[str, Any]) -> None:
    tuning = known.config.tuning
    kept = list(config.get("modules_to_save") or [])
    lacking = [name for name in tuning.modules_to_save or [] if name not in kept]
    if tuning.reads("modules_to_save") and lacking:
        raise InputError(
            f"the adapter has no {lacking[0]} that is trained whole", where="tuning.modules_to_save",
            fix=f"Leave it out, {_ANEW}",
        )  # fmt: skip
    if tuning.rslora and not config.get("use_rslora"):
        raise InputError(
            "the adapter was made without rsLoRA", where="tuning.rslora", fix=f"Switch it off, {_ANEW}"
        )  # fmt: skip
    if tuning.dropout and tuning.dropout != config.get("lora_dropout"):
        raise InputError(
            f"the adapter keeps its own dropout, {config.get('lora_dropout', 0)}", where="tuning.dropout",
            fix=f"Leave it at 0, {_ANEW}",
        )  # fmt: skip
    if tuning.alpha != "auto" and not _as_strong(float(tuning.alpha) / tuning.rank, config):
        raise InputError(
            f"the adapter keeps its own strength, alpha {config.get('lora_alpha')} at rank {config.get('r')}",
            where="tuning.alpha", fix=f"Set it to auto, {_ANEW}",
        )  # fmt: skip


def _as_strong(asked: float, config: dict[str, Any]) -> bool:
    rank, alpha = config.get("r"), config.get("lora_alpha")
    return isinstance(rank, int) and isinstance(alpha, int | float) and abs(alpha / rank - asked) < 1e-6


CONTINUED_CHECKS = (_used,)

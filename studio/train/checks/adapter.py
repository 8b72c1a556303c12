"""What an adapter cannot do on this model."""

from __future__ import annotations

import re

from studio.errors import InputError
from studio.models.adapters import require_adapter
from studio.train.checks.known import Known
from studio.train.methods import METHODS
from studio.train.runs import find_model


def _has_adapter(known: Known) -> bool:
    return known.config.tuning.name != "full"


def _targets(known: Known) -> None:
    if not _has_adapter(known):
        return
    wanted = known.config.tuning.target_modules
    for name in wanted if isinstance(wanted, list) else []:
        if name.rpartition(".")[2] in ("lm_head", "embed_tokens", "embed_out", "wte", "score"):
            tied = ", which shares its weights with the embedding here" if known.shape.tied else ""
            raise InputError(
                f"'{name}' cannot get an adapter: it is the model's head or embedding{tied}",
                where="tuning.target_modules",
                fix="Train it whole: name it in tuning.modules_to_save",
            )
    known.shape.targets(wanted)


def _experts(known: Known) -> None:
    tuning = known.config.tuning
    if tuning.uses_dora and known.shape.experts and tuning.target_modules == "all-linear":
        raise InputError(
            "dora cannot be used on the experts of this model, which are one fused parameter",
            where="tuning.target_modules",
            fix="Name the attention layers (q_proj, k_proj, v_proj, o_proj), or set tuning.name to lora",
        )


def _patterns(known: Known) -> None:
    if not _has_adapter(known):
        return
    for option in ("rank_pattern", "alpha_pattern"):
        for name, value in dict(getattr(known.config.tuning, option) or {}).items():
            where = f"tuning.{option}"
            if not any(_fits(linear.name, name) for linear in known.shape.linears):
                fix = f"Use some of: {', '.join(sorted({linear.suffix for linear in known.shape.linears}))}"
                raise InputError(f"the model has no linear layer named '{name}'", where=where, fix=fix)
            if value < 1:
                raise InputError(f"{name} has {value}", where=where, fix="Give a number from 1")


def _fits(linear: str, name: str) -> bool:
    return re.fullmatch(rf"(.*\.)?({name})", linear) is not None


def _blocks(known: Known) -> None:
    blocks = known.config.tuning.layers_to_transform
    if _has_adapter(known) and isinstance(blocks, list) and max(blocks) >= known.shape.layers:
        raise InputError(
            f"there is no block {max(blocks)}; the model has {known.shape.layers}, from 0",
            where="tuning.layers_to_transform",
            fix=f"Use numbers from 0 to {known.shape.layers - 1}",
        )


def _whole(known: Known) -> None:
    tuning = known.config.tuning
    if tuning.name not in ("lora", "dora") or not tuning.modules_to_save:
        return
    names = {"lm_head", "embed_tokens"} | {linear.suffix for linear in known.shape.linears}
    for name in tuning.modules_to_save:
        if name not in names:
            raise InputError(
                f"the model has no layer '{name}'", where="tuning.modules_to_save",
                fix="Use lm_head, embed_tokens or a linear layer's name",
            )  # fmt: skip
        if isinstance(tuning.target_modules, list) and name in tuning.target_modules:
            raise InputError(
                f"'{name}' gets an adapter and is to be trained whole", where="tuning.modules_to_save",
                fix="Take it out of one of the two lists",
            )  # fmt: skip


def _ranks(known: Known) -> None:
    if not _has_adapter(known):
        return
    tuning = known.config.tuning
    targets = known.shape.targets(tuning.target_modules)
    # A gate with one output (the shared expert's) gets an adapter of no use and no harm.
    smallest = min((side for one in targets if (side := min(one.inputs, one.outputs)) > 1), default=tuning.rank)
    if tuning.rank > smallest:
        raise InputError(
            f"rank {tuning.rank} is more than the smallest layer has, {smallest}, so it would save nothing",
            where="tuning.rank",
            fix=f"Use at most {smallest}",
        )


def _start(known: Known) -> None:
    tuning = known.config.tuning
    if tuning.name not in ("lora", "dora") or tuning.init in ("default", "gaussian"):
        return
    others = [name for name in ("rslora", "rank_pattern", "alpha_pattern", "adapter") if getattr(tuning, name)]
    if tuning.name == "dora":
        raise InputError(
            f"{tuning.init} changes the base weights, and dora measures their length", where="tuning.init",
            fix="Set it to default, or tuning.name to lora",
        )  # fmt: skip
    if others:
        raise InputError(
            f"{tuning.init} cannot be turned back into a plain adapter together with {', '.join(others)}",
            where="tuning.init",
            fix=f"Set it to default, or leave {others[0]} out",
        )


def _adapter(known: Known) -> None:
    tuning = known.config.tuning
    if not _has_adapter(known):
        return
    if not tuning.adapter:
        if tuning.name in ("lora", "dora") and tuning.merge_adapter:
            raise InputError(
                "there is no adapter to merge", where="tuning.merge_adapter", fix="Name one in tuning.adapter"
            )
        return
    folder = find_model(tuning.adapter, known.settings, "tuning.adapter")
    config = require_adapter(folder, known.shape, "tuning.adapter")
    scorer = METHODS[known.config.method.name].result == "scorer"
    if (config.get("task_type") == "SEQ_CLS") != scorer:
        what = "a reward model's" if not scorer else "a language model's"
        raise InputError(f"this adapter is {what}", where="tuning.adapter", fix="Name an adapter of the same kind")


ADAPTER_CHECKS = (_targets, _experts, _patterns, _blocks, _whole, _ranks, _start, _adapter)

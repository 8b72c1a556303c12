"""What a new adapter cannot do on this model."""

from __future__ import annotations

from studio.errors import InputError
from studio.models.inspect.adapted import in_blocks
from studio.models.inspect.families import family_of
from studio.models.inspect.shape import HEADS, Linear
from studio.patterns import PatternError, Patterns, require_quick
from studio.train.checks.known import Known
from studio.train.checks.weights import BLOCK


def _has_adapter(known: Known) -> bool:
    return known.config.tuning.kind.adapter


def _targets(known: Known) -> None:
    if not _has_adapter(known):
        return
    wanted = known.config.tuning.target_modules
    for name in wanted if isinstance(wanted, list) else []:
        if name.rpartition(".")[2] in ("lm_head", "embed_tokens", "embed_out", "wte", "score"):
            tied = ", which shares its weights with the embedding here" if known.shape.tied else ""
            raise InputError(
                f"'{name}' cannot have an adapter: it is the model's head or embedding{tied}",
                where="tuning.target_modules",
                fix="Train it fully: add it to tuning.modules_to_save",
            )
    known.shape.targets(wanted)


def _experts(known: Known) -> None:
    """PEFT adapts the experts of a mixture as fused parameters, with which not everything goes."""
    tuning = known.config.tuning
    if not _has_adapter(known) or not known.shape.experts or tuning.target_modules != "all-linear":
        return
    switch, _, off = tuning.kind.dora_switch()
    asked = [
        ("dora", switch, f"set it to {off}", tuning.uses_dora),
        ("dropout", "tuning.dropout", "set it to 0", tuning.dropout > 0),
        (tuning.init, "tuning.init", "set it to default", tuning.reads("init") and tuning.init != "default"),
    ]
    for what, where, otherwise, used in asked:
        if used:
            raise InputError(
                f"{what} cannot be used on the experts of this model, which are one fused parameter", where=where,
                fix=f"Set tuning.target_modules to attention layers ({_attention(known)}), or {otherwise}",
            )  # fmt: skip


def _attention(known: Known) -> str:
    family = family_of(known.raw)
    return ", ".join(family.targets if family else ("q_proj", "k_proj", "v_proj", "o_proj"))


def _adapted(known: Known) -> list[Linear]:
    """The layers that get an adapter; experts, which patterns do not reach, are none."""
    tuning = known.config.tuning
    chosen = in_blocks(known.shape.targets(tuning.target_modules), tuning.layers_to_transform)
    return [linear for linear in chosen if linear not in known.shape.experts]


def _patterns(known: Known) -> None:
    if not _has_adapter(known):
        return
    tuning = known.config.tuning
    targets, patterns = _adapted(known), Patterns()
    for option in ("rank_pattern", "alpha_pattern"):
        for name, value in dict(getattr(tuning, option) or {}).items():
            where = f"tuning.{option}"
            try:
                fitting = [linear for linear in targets if patterns.fits(name, linear.name)]
            except PatternError as error:
                raise InputError(
                    f"'{name:.100}' is not a layer, and as a pattern: {error}", where=where,
                    fix="Give a layer name, such as q_proj",
                ) from error  # fmt: skip
            if not fitting:
                fix = f"Use some of: {', '.join(sorted({linear.suffix for linear in targets}))}"
                raise InputError(f"there is no adapted layer '{name}'", where=where, fix=fix)
            if value < 1:
                raise InputError(f"{name} has {value}", where=where, fix="Use 1 or more")
            smallest = min(min(linear.inputs, linear.outputs) for linear in fitting)
            if option == "rank_pattern" and value > smallest:
                raise InputError(
                    f"rank {value} exceeds the smaller dimension of {name}, {smallest}, so it would save "
                    f"nothing", where=where,
                    fix=f"Use at most {smallest}",
                )  # fmt: skip
        require_quick({option: getattr(tuning, option)}, [linear.name for linear in targets], f"tuning.{option}")


def _blocks(known: Known) -> None:
    blocks = known.config.tuning.layers_to_transform
    if not _has_adapter(known) or not isinstance(blocks, list):
        return
    where, last = "tuning.layers_to_transform", known.shape.layers - 1
    if max(blocks) > last:
        raise InputError(
            f"there is no block {max(blocks)}; the model has {known.shape.layers} blocks, counted from 0", where=where,
            fix=f"Use numbers from 0 to {last}",
        )  # fmt: skip


def _whole(known: Known) -> None:
    tuning = known.config.tuning
    if not tuning.reads("modules_to_save") or not tuning.modules_to_save:
        return
    outside = _outside(known)
    names = outside + sorted({linear.suffix for linear in known.shape.linears})
    for name in tuning.modules_to_save:
        if name in HEADS and known.scores:
            raise InputError(
                f"a reward model has no '{name}'", where="tuning.modules_to_save",
                fix="Remove it: the score head is always trained and saved",
            )  # fmt: skip
        if name not in names:
            raise InputError(
                f"the model has no layer '{name}'", where="tuning.modules_to_save",
                fix=f"Use some of: {', '.join(outside)}; or a linear layer's name",
            )  # fmt: skip
        if isinstance(tuning.target_modules, list) and name in tuning.target_modules:
            raise InputError(
                f"'{name}' is in both tuning.target_modules and tuning.modules_to_save", where="tuning.modules_to_save",
                fix="Remove it from one of the two lists",
            )  # fmt: skip


def _outside(known: Known) -> list[str]:
    """The matrices outside the blocks as the files name them, and the head: transformers 5 names it lm_head in all."""
    stored = {
        tensor.name.split(".")[-2]
        for tensor in known.tensors
        if tensor.name.endswith(".weight") and len(tensor.shape) == 2 and not BLOCK.search(tensor.name)
    }
    return sorted((stored - set(HEADS)) | {"lm_head"})


def _ranks(known: Known) -> None:
    if not _has_adapter(known):
        return
    tuning = known.config.tuning
    targets = known.shape.targets(tuning.target_modules)
    # A gate with one output (the shared expert's) gets an adapter of no use and no harm.
    smallest = min((side for one in targets if (side := min(one.inputs, one.outputs)) > 1), default=tuning.rank)
    if tuning.rank > smallest:
        raise InputError(
            f"rank {tuning.rank} exceeds the smallest layer dimension, {smallest}, so it would save nothing",
            where="tuning.rank",
            fix=f"Use at most {smallest}",
        )


def _start(known: Known) -> None:
    tuning = known.config.tuning
    if not tuning.reads("init") or tuning.init in ("default", "gaussian"):
        return
    others = [name for name in ("rslora", "rank_pattern", "alpha_pattern", "adapter") if getattr(tuning, name)]
    if tuning.uses_dora:
        raise InputError(
            f"{tuning.init} changes the base weights, and DoRA depends on their magnitude", where="tuning.init",
            fix="Set it to default, or tuning.name to lora",
        )  # fmt: skip
    if others:
        raise InputError(
            f"{tuning.init} cannot be converted back to a plain adapter together with {', '.join(others)}",
            where="tuning.init",
            fix=f"Set it to default, or reset {others[0]}",
        )
    if tuning.init == "orthogonal" and tuning.rank % 2:
        raise InputError(
            f"orthogonal halves the rank, and {tuning.rank} is odd", where="tuning.rank",
            fix=f"Set it to {tuning.rank + 1}, or tuning.init to default",
        )  # fmt: skip
    narrow = [one for one in known.shape.targets(tuning.target_modules) if min(one.inputs, one.outputs) < tuning.rank]
    if tuning.init != "orthogonal" and narrow:
        raise InputError(
            f"{tuning.init} takes {tuning.rank} directions from each layer, and {narrow[0].suffix} has fewer",
            where="tuning.init",
            fix=f"Set it to default, or name layers without it in tuning.target_modules ({_attention(known)})",
        )


ADAPTER_CHECKS = (_targets, _experts, _patterns, _blocks, _whole, _ranks, _start)

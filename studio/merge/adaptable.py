"""Whether adapters can be combined by PEFT, read from their configs alone.

PEFT's `add_weighted_adapter` looks at A and B and at the first adapter's config: whatever else an adapter holds, or
where another one differs, it passes over without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from studio.errors import InputError, InputErrors
from studio.merge.parents import Parent
from studio.merge.recipe import Recipe
from studio.models.inspect.adapters import WEIGHTS, adapter_config
from studio.models.inspect.headers import read_header

# Beside A and B, by option of PEFT's config.
_BESIDE = {
    "use_dora": "the lengths of DoRA", "modules_to_save": "fully trained layers",
    "trainable_token_indices": "trained tokens", "target_parameters": "adapted parameters",
    "layer_replication": "repeated layers", "lora_bias": "biases of its matrices",
    **dict.fromkeys(
        ("use_qalora", "alora_invocation_tokens", "arrow_config", "use_bdlora", "velora_config", "kasa_config",
         "monteclora_config"),
        "a variant of LoRA",
    ),
}  # fmt: skip
# Of the first adapter alone.
_ALIKE = ("layers_to_transform", "layers_pattern", "exclude_modules", "fan_in_fan_out", "task_type")
_SHARED = re.compile(r"\.(lm_head|embed_out|embed_tokens|embed_in|wte|word_embeddings)\.lora_")
_WHOLE = "Merge the runs as whole models instead, for example with merge_method: linear"


def require_adapters(recipe: Recipe, parents: Sequence[Parent], where: str) -> None:
    """Refuse what PEFT cannot combine, or would combine wrongly.

    Args:
        recipe: of adapters.
        parents: its models.
        where: its file, for errors.

    Raises:
        InputErrors: with every problem.
    """
    whole = [one for one in parents if one.adapter is None]
    if whole:
        raise InputErrors([
            InputError(f"'{one.name}' has no adapter: all of its weights were trained", where=where, fix=_WHOLE)
            for one in whole
        ])  # fmt: skip
    configs = [(adapter_config(one.adapter) if one.adapter else None) or {} for one in parents]
    wrong = list(_problems(recipe, parents, configs, where))
    if wrong:
        raise InputErrors(wrong)


def require_own_head(parent: Parent, where: str) -> Iterator[InputError]:
    """Refuse to merge an adapter of embedding or head into a base model that has one tensor for both.

    The run adapts one of the two; in the merged model both would change.

    Args:
        parent: whose base model has them tied.
        where: the recipe's file, for errors.
    """
    config = (adapter_config(parent.adapter) if parent.adapter else None) or {}
    if parent.adapter is None or config.get("ensure_weight_tying"):
        return
    adapted = next(
        (found[1] for one in read_header(parent.adapter / WEIGHTS) if (found := _SHARED.search(one.name))), ""
    )
    if adapted:
        yield InputError(
            f"the adapter of '{parent.name}' changes {adapted} alone, and its base model has one tensor for embedding "
            "and output head: merged, both would change",
            where=where, fix="Use the adapter as it is, or combine it with others by adapter_cat",
        )  # fmt: skip


def _problems(
    recipe: Recipe, parents: Sequence[Parent], configs: Sequence[dict[str, Any]], where: str
) -> Iterator[InputError]:
    first = parents[0]
    for parent, config in zip(parents, configs, strict=True):
        name = f"'{parent.name}'"
        if config.get("peft_type") != "LORA":
            yield InputError(f"{name} is an adapter of type {config.get('peft_type')}", where=where, fix=_WHOLE)
        beside = [what for key, what in _BESIDE.items() if config.get(key)]
        if str(config.get("bias") or "none") != "none":
            beside.append("biases")
        if config.get("init_lora_weights") not in (True, False, None, "gaussian", "orthogonal"):
            beside.append(f"a part of the base model (init_lora_weights: {config['init_lora_weights']})")
        if beside:
            yield InputError(f"{name} also has {beside[0]}, which PEFT would leave out", where=where, fix=_WHOLE)
        if recipe.merge_method != "adapter_cat" and config.get("rank_pattern"):
            yield InputError(
                f"{name} has ranks of its own for some layers",
                where=where,
                fix="Use adapter_cat, or merge whole models",
            )
    for parent, config in zip(parents[1:], configs[1:], strict=True):
        names = f"'{first.name}' and '{parent.name}'"
        if parent.weights.resolve() != first.weights.resolve():
            yield InputError(
                f"the adapters have different base models: {first.weights} for '{first.name}', {parent.weights} for "
                f"'{parent.name}'",
                where=where, fix="Merge adapters of one base model, or whole models",
            )  # fmt: skip
        different = [key for key in _ALIKE if (configs[0].get(key) or None) != (config.get(key) or None)]
        if different:
            yield InputError(f"{names} adapt different layers ({different[0]})", where=where, fix=_WHOLE)
        if len({isinstance(one.get("target_modules"), str) for one in (configs[0], config)}) > 1:
            yield InputError(
                f"one of {names} names its layers (target_modules) in a list and the other by a pattern, which PEFT "
                "does not combine",
                where=where, fix=_WHOLE,
            )  # fmt: skip
        ranks = configs[0].get("r"), config.get("r")
        if recipe.merge_method not in ("adapter_cat", "adapter_svd") and ranks[0] != ranks[1]:
            yield InputError(
                f"{names} have different ranks ({ranks[0]} and {ranks[1]})", where=where,
                fix="Use adapter_cat or adapter_svd, which take any ranks",
            )  # fmt: skip

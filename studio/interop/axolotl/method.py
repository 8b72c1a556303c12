"""What an Axolotl config teaches: `rl`, `reward_model`, the kind of its rows, and the numbers of each method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from studio.interop.sheets import names
from studio.interop.sheets.sheet import Sheet
from studio.interop.trl.keys import USUAL
from studio.methods import METHODS
from studio.methods.dpo import DPO_LOSSES

# What `rl` says: our method, and the beta that TRL's config has where none is given.
_RL: tuple[tuple[str, str, float | None], ...] = (
    ("dpo", "dpo", 0.1), ("ipo", "dpo", 0.1), ("orpo", "orpo", 0.1), ("kto", "kto", 0.1), ("simpo", "simpo", 0.1),
    ("grpo", "grpo", 0.0), ("gdpo", "grpo", 0.0),
)  # fmt: skip
_BETAS = ("rl_beta", "orpo_alpha")
_OF_ONE_METHOD = (
    "dpo_loss_type", "dpo_loss_weights", "dpo_label_smoothing", "simpo_gamma", "cpo_alpha", "rl_beta", "orpo_alpha",
    "kto_desirable_weight", "kto_undesirable_weight", "center_rewards_coefficient",
)  # fmt: skip
_GRPO_LOSSES = ("dapo", "grpo", "bnpo", "dr_grpo")
_SPEED = "how answers are made and scored, not which; the model that is trained writes them itself"
# Keys of `trl` that no option stands for.
TRL_IGNORED: dict[str, str] = {
    **dict.fromkeys(
        (
            "use_vllm", "vllm_mode", "vllm_server_host", "vllm_server_port", "vllm_server_timeout",
            "vllm_enable_sleep_mode", "vllm_lora_sync", "vllm_sync_interval", "vllm_importance_sampling_correction",
            "vllm_importance_sampling_mode", "vllm_importance_sampling_cap", "use_liger_loss", "reward_num_workers",
            "use_data_producer", "async_prefetch", "prefetch_depth", "streaming_partial_batch", "streaming_min_groups",
            "replay_buffer_size", "replay_recompute_logps", "generation_batch_size",
        ),
        _SPEED,
    ),
    "log_completions": "completions are recorded anyway",
    "num_completions_to_print": "completions are recorded anyway",
    "chat_template_kwargs": "the template is rendered without arguments",
}  # fmt: skip
TRL_REFUSED: dict[str, str] = {
    **dict.fromkeys(("top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs"),
                    "completions are sampled from the model's own probabilities, at method.temperature"),
    **dict.fromkeys(("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"),
                    "the reference model stays as it was"),
    **dict.fromkeys(("num_iterations",), "each completion is used for one update"),
    **dict.fromkeys(("epsilon_high",), "the clip range is the same in both directions"),
    **dict.fromkeys(("off_policy_mask_threshold", "use_bias_correction_kl", "reroll_start_fraction",
                     "reroll_max_groups", "skip_zero_advantage_batches", "importance_sampling_level",
                     "mask_truncated_completions", "multi_objective_aggregation", "rollout_func",
                     "vllm_guided_decoding_regex"), "it is not among the studio's options for grpo"),
}  # fmt: skip
TRL_KEYS = frozenset({
    "beta", "max_completion_length", "num_generations", "temperature", "epsilon", "loss_type", "reward_funcs",
    "reward_weights", "scale_rewards", *TRL_IGNORED, *TRL_REFUSED,
})  # fmt: skip


def read_method(sheet: Sheet, kinds: Iterable[str]) -> str:
    """Read the method and return its name.

    Args:
        sheet: the config.
        kinds: of its sets of data: "text" where rows are plain text, "chat", "raw" or others.
    """
    rl = (sheet.text("rl") or "").lower()
    known = {word: (name, beta) for word, name, beta in _RL}
    if rl and rl not in known:
        name = "sft"
        sheet.refused("rl", f"the studio has no {rl:.30}; an SFT stands in its place")
    elif rl:
        name, usual = known[rl]
        if rl == "gdpo":
            why = "GDPO normalizes each reward by itself before it adds them; GRPO normalizes their sum"
            sheet.approximated("rl", "method.name", name, why)
        else:
            sheet.mapped("rl", "method.name", name)
        _beta(sheet, usual)
        if rl == "ipo":
            sheet.set("method.dpo_loss", ["ipo"])
    elif sheet.flag("reward_model"):
        name = "reward"
        sheet.mapped("reward_model", "method.name", name)
    else:
        texts = [kind == "text" for kind in kinds]
        name = "pretrain" if texts and all(texts) else "sft"
        sheet.set("method.name", name)
        if sheet.offers("method.documents"):
            sheet.set("method.documents", "join")
    if not sheet.told("reward_model"):
        sheet.ignored("reward_model", "it is off")
    _supervised(sheet)
    _pairs(sheet, name)
    _online(sheet)
    return name


def _beta(sheet: Sheet, usual: float | None) -> None:
    inner = sheet.mapping("trl").get("beta")
    given = [key for key in _BETAS if sheet.has(key)]
    if inner is not None:
        for key in given:
            sheet.ignored(key, "trl.beta comes first")
        return
    if given:
        sheet.mapped(given[0], "method.beta", sheet.number(given[0]))
        for key in given[1:]:
            sheet.ignored(key, f"{given[0]} comes first")
    elif usual is not None:
        sheet.default("rl_beta", "method.beta", usual)


def _supervised(sheet: Sheet) -> None:
    if (noise := sheet.number("neftune_noise_alpha")) is not None:
        if sheet.offers("method.neftune_noise_alpha"):
            sheet.mapped("neftune_noise_alpha", "method.neftune_noise_alpha", noise)
        else:
            sheet.refused("neftune_noise_alpha", "noise on the embeddings is for sft only")
    inputs = sheet.flag("train_on_inputs")
    if inputs and sheet.offers("method.train_on"):
        sheet.mapped("train_on_inputs", "method.train_on", "all")
    elif inputs is not None:
        sheet.ignored("train_on_inputs", "it is off" if not inputs else "this method does not ask")


def _pairs(sheet: Sheet, name: str) -> None:
    losses = sheet.words("dpo_loss_type")
    if losses and sheet.offers("method.dpo_loss"):
        unknown = [word for word in losses if word not in DPO_LOSSES]
        if unknown:
            sheet.refused("dpo_loss_type", f"the studio has no {', '.join(unknown)}")
        else:
            sheet.mapped("dpo_loss_type", "method.dpo_loss", losses)
            weights = sheet.numbers("dpo_loss_weights")
            if weights is not None:
                sheet.mapped("dpo_loss_weights", "method.dpo_loss_weights", weights)
    for key, path in (
        ("dpo_label_smoothing", "method.label_smoothing"),
        ("simpo_gamma", "method.simpo_gamma"),
        ("kto_desirable_weight", "method.desirable_weight"),
        ("kto_undesirable_weight", "method.undesirable_weight"),
        ("center_rewards_coefficient", "method.center_rewards_coefficient"),
    ):
        if (value := sheet.number(key)) is None:
            continue
        if sheet.reads(path):
            sheet.mapped(key, path, value)
        elif value and key == "dpo_label_smoothing" and sheet.offers(path):
            sheet.refused(key, "the losses that are named are not smoothed here")
    alpha = sheet.number("cpo_alpha")
    if sheet.offers("method.simpo_gamma") and alpha != 0:
        given = "1" if alpha is None else f"{alpha:g}"
        why = f"Axolotl adds the likelihood of the chosen answer with weight {given}; SimPO has none, and so here"
        sheet.tell("cpo_alpha" if alpha is not None else "rl", "approximated", "method.name", why)
    for key in _OF_ONE_METHOD:
        if sheet.has(key) and not sheet.told(key):
            sheet.ignored(key, f"{METHODS[name].title} does not read it")


def _online(sheet: Sheet) -> None:
    given, groups = sheet.mapping("trl"), sheet.offers("method.num_generations")
    if "trl" in sheet.given.values:
        if given and groups:
            sheet.tell("trl", "mapped", "method.name", "its settings follow")
        else:
            sheet.ignored("trl", "the method does not read it")
    if not given or not groups:
        if given and (beta := sheet.part(given, "trl.").number("beta")) is not None and sheet.offers("method.beta"):
            # Of every method; what else stands there is GRPO's.
            sheet.part(given, "trl.").mapped("beta", "method.beta", beta)
        if groups:
            _grpo_defaults(sheet)
        return
    part = sheet.part(given, "trl.")
    if (beta := part.number("beta")) is not None:
        part.mapped("beta", "method.beta", beta)
    for key, path in (("max_completion_length", "method.max_completion_length"),
                      ("num_generations", "method.num_generations")):  # fmt: skip
        if (count := part.whole(key)) is not None:
            part.mapped(key, path, count)
    for key, path in (("temperature", "method.temperature"), ("epsilon", "method.clip_range")):
        if (number := part.number(key)) is not None:
            part.mapped(key, path, number)
    loss = part.text("loss_type")
    if loss in _GRPO_LOSSES:
        part.mapped("loss_type", "method.grpo_loss", loss)
    elif loss:
        part.refused("loss_type", f"the studio has no {loss:.30}")
    names.reward_scale(part)
    _rewards(part)
    part.leave_usual(USUAL)
    part.rest({"ignored": TRL_IGNORED, "refused": TRL_REFUSED}, TRL_KEYS, on=USUAL)
    _grpo_defaults(sheet)


def _grpo_defaults(sheet: Sheet) -> None:
    # TRL's own, where the studio's suit a CPU.
    for key, path, value in (("trl.num_generations", "method.num_generations", 8),
                             ("trl.max_completion_length", "method.max_completion_length", 512)):  # fmt: skip
        if sheet.value(path) is None:
            sheet.default(key, path, value)


def _rewards(part: Sheet) -> None:
    """One function of a Python file can be a reward; more than one have to be called by one that adds them."""
    functions = part.words("reward_funcs")
    if not functions:
        return
    if len(functions) == 1:
        place = names.reward_place(functions[0])
        why = "the file is looked for in the folder where the run starts; read it, and set method.trust_reward_code"
        part.set("method.rewards", ["python"])
        part.approximated("reward_funcs", "method.reward_python", place, why)
        weights: Any = part.raw("reward_weights")
        if weights is not None:
            part.ignored("reward_weights", "there is one reward")
    else:
        why = "one Python function can be a reward: write one that calls these and adds them"
        part.refused("reward_funcs", f"{why} (method.reward_python)")
        part.refused("reward_weights", "they weigh functions that are not called")

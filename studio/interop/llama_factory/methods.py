"""Which method and tuning a config of LLaMA-Factory means, and what of it depends on several of its keys."""

from __future__ import annotations

from studio.config.presets import METHOD, TUNING
from studio.interop.draft import Draft
from studio.interop.report import Status
from studio.interop.values import flag, number, one_of, text, whole
from studio.tunings import FULL, TUNINGS, adapter_for

_OTHERWISE = {"pt": "pretrain", "rm": "reward"}  # the other stages are called as the methods here
STAGES = {stage: _OTHERWISE.get(stage, stage) for stage in ("pt", "sft", "rm", "ppo", "dpo", "kto")}
PAIRWISE = ("sigmoid", "hinge", "ipo")  # losses of DPO that are called the same here
WITHOUT_REFERENCE = ("orpo", "simpo")  # and those that are methods of their own
_TYPES = {word: word for word in ("lora", "full", "freeze", "oft")}
_WHOLE = {
    "freeze": "Whole blocks are not frozen here: everything is trained (full), or an adapter",
    "oft": "There is no orthogonal fine-tuning here; LoRA is the nearest",
}
_NOTHING = "With this value it asks for nothing"
# What its library sets where LLaMA-Factory says nothing (TRL 0.9.6, PPOConfig).
_KL_COEF = 0.2


def read_tuning(draft: Draft) -> None:
    """Which weights are trained, and from which adapter it goes on."""
    kind = draft.get("finetuning_type", one_of(_TYPES), "lora")
    bits = draft.get("quantization_bit", whole)
    dora = draft.get("use_dora", flag, False)
    adapter = adapter_for(quantized=bits in (4, 8) and kind not in _WHOLE, dora=dora)
    name = FULL.name if kind == "full" else adapter
    draft.set(TUNING, name, "finetuning_type")
    if kind in _WHOLE:
        draft.say("finetuning_type", "refused", TUNING, _WHOLE[kind])
    elif draft.has("finetuning_type"):
        draft.say("finetuning_type", "mapped", TUNING, "" if kind == name else f"With its other keys it is {name} here")
    if draft.has("quantization_bit"):
        if TUNINGS[name].quantized:
            draft.map("quantization_bit", "tuning.bits", str(bits))
        else:
            why = "Weights are held in 4 or 8 bits here, beside an adapter"
            draft.say("quantization_bit", "refused", "tuning.bits", why)
    if draft.has("use_dora"):
        if TUNINGS[name].quantized:
            draft.map("use_dora", "tuning.dora", dora)
        elif dora and TUNINGS[name].adapter:
            draft.say("use_dora", "mapped", TUNING)
        else:
            draft.say("use_dora", "refused" if dora else "ignored", why="An adapter is needed" if dora else _NOTHING)
    _read_adapter(draft, name)
    _read_start(draft, name)


def _read_adapter(draft: Draft, name: str) -> None:
    fresh = draft.get("create_new_adapter", flag, False)
    if draft.has("adapter_name_or_path"):
        adapter = draft.get("adapter_name_or_path", text)
        if "," in adapter:
            why = "Several adapters are merged first: studio merge (docs/merge.md)"
            draft.say("adapter_name_or_path", "refused", "tuning.adapter", why)
        elif not draft.reads("tuning.adapter"):
            draft.say("adapter_name_or_path", "refused", "tuning.adapter", "Merge it first: all weights are trained")
        else:
            draft.map("adapter_name_or_path", "tuning.adapter", adapter)
    if not draft.has("create_new_adapter"):
        return
    if not fresh:
        draft.say("create_new_adapter", "ignored", why=_NOTHING)
    elif not draft.has("adapter_name_or_path"):
        draft.say("create_new_adapter", "ignored", why="Without another adapter the new one is the only one")
    elif draft.reads("tuning.merge_adapter"):
        draft.map("create_new_adapter", "tuning.merge_adapter", True)
    else:
        draft.say("create_new_adapter", "refused", "tuning.merge_adapter", "Nothing is merged into quantized weights")


def _read_start(draft: Draft, name: str) -> None:
    """PiSSA, and what some adapters cannot have here."""
    if draft.has("pissa_init"):
        if not draft.get("pissa_init", flag):
            draft.say("pissa_init", "ignored", why=_NOTHING)
        elif draft.reads("tuning.init"):
            exact = draft.get("pissa_iter", whole, 16) == -1
            why = "" if exact else "The decomposition is exact here; there it is a fast one of pissa_iter iterations"
            draft.map("pissa_init", "tuning.init", "pissa", why, "mapped" if exact else "approximated")
        else:
            draft.say("pissa_init", "refused", "tuning.init", f"It is not there with {name}")
    for key, to in (("loraplus_lr_ratio", "tuning.lora_plus_ratio"), ("additional_target", "tuning.modules_to_save")):
        if draft.has(key) and TUNINGS[name].adapter and not draft.reads(to):
            draft.say(key, "refused", to, f"It is not there with {name}")


def read_method(draft: Draft) -> None:
    """What is taught, with which loss."""
    stage = draft.get("stage", one_of(STAGES), "sft")
    loss = draft.get("pref_loss", lambda value: text(value).lower(), "sigmoid")
    draft.set(METHOD, stage, "stage")
    name = loss if loss in WITHOUT_REFERENCE and draft.reads("method.dpo_loss") else stage
    draft.set(METHOD, name, "stage")
    if draft.has("stage"):
        draft.say("stage", "mapped", METHOD, "" if name == stage else f"With pref_loss it is the method {name} here")
    _read_loss(draft, name, loss)
    _read_supervised(draft, name)
    _read_reference(draft)
    _read_ppo(draft, name)


def _read_loss(draft: Draft, name: str, loss: str) -> None:
    """The parts of a preference's loss, each with its weight."""
    draft_ftx = draft.get("pref_ftx", number, 0)
    bco = draft.get("pref_bco_weight", number, 0)
    compares = draft.reads("method.dpo_loss")
    if draft.has("pref_loss"):
        if name in WITHOUT_REFERENCE:
            draft.say("pref_loss", "mapped", METHOD)
        elif not compares:
            draft.say("pref_loss", "ignored", why="Only stage dpo reads it")
        elif loss in PAIRWISE:
            draft.map("pref_loss", "method.dpo_loss", [loss])
        else:
            known = ", ".join((*PAIRWISE, *WITHOUT_REFERENCE))
            draft.say("pref_loss", "refused", "method.dpo_loss", f"There is no such loss here; choose one of {known}")
    losses, weights = [loss if loss in PAIRWISE else "sigmoid"], [1.0]
    if bco > 0 and compares:
        losses, weights = [*losses, "bco_pair"], [round(1 / (1 + bco), 6), round(bco / (1 + bco), 6)]
    if draft_ftx > 0 and compares:
        losses, weights = [*losses, "sft"], [*weights, float(draft_ftx)]
    if len(losses) > 1:
        draft.set("method.dpo_loss", losses, "pref_ftx" if draft_ftx else "pref_bco_weight")
        draft.set("method.dpo_loss_weights", weights, "pref_ftx" if draft_ftx else "pref_bco_weight")
    for key, value, why in (
        ("pref_ftx", draft_ftx, "The loss sft beside it, by the tokens of a micro-batch; there by answer"),
        ("pref_bco_weight", bco, "The loss bco_pair beside it, with TRL's running mean"),
    ):
        if draft.has(key):
            rated = key == "pref_ftx" and draft.reads("method.desirable_weight")  # its KTO adds it, too
            read = compares or rated or name in WITHOUT_REFERENCE
            if value <= 0 or not read:
                draft.say(key, "ignored", why=_NOTHING if value <= 0 else "Only stage dpo reads it")
            elif compares:
                draft.say(key, "approximated", "method.dpo_loss_weights", why)
            else:
                draft.say(key, "refused", why=f"{name} has one loss here")


def _read_counted(draft: Draft) -> None:
    """Which tokens count: its answers end with all that a template writes behind them, a line break included."""
    wanted = {key: draft.get(key, flag, False) for key in ("train_on_prompt", "mask_history")}
    for key in wanted:
        if draft.has(key) and not (wanted[key] and draft.reads("method.train_on")):
            draft.say(key, "ignored", why="Only stage sft reads it" if wanted[key] else _NOTHING)
    if not draft.reads("method.train_on"):
        return
    if wanted["mask_history"]:
        why = "The line break that some templates write behind an answer does not count here"
        draft.map("mask_history", "method.train_on", "last", why, "approximated")
    elif wanted["train_on_prompt"]:
        draft.map("train_on_prompt", "method.train_on", "all")
    else:
        draft.set("method.train_on", "turns", "train_on_prompt")
        if not draft.has("train_on_prompt"):
            why = "Not given: answers count there, with the line break that many templates write behind each"
            draft.say("train_on_prompt", "mapped", "method.train_on", why)


def _read_supervised(draft: Draft, name: str) -> None:
    _read_counted(draft)
    if draft.has("use_dft_loss"):
        if not draft.get("use_dft_loss", flag):
            draft.say("use_dft_loss", "ignored", why=_NOTHING)
        elif draft.reads("method.loss"):
            draft.map("use_dft_loss", "method.loss", "dft")
        else:
            draft.say("use_dft_loss", "ignored", why="Only stage sft reads it")
    neat, packed = draft.get("neat_packing", flag, False), draft.get("packing", flag)
    joins = draft.reads("method.documents")
    if joins:
        # Texts are joined and split at the limit unless packing is turned off.
        wanted = packed is not False or neat
        draft.set("method.documents", "join" if wanted else "separate", "packing")
        for key in ("packing", "neat_packing"):
            if draft.has(key):
                draft.say(key, "mapped", "method.documents")
        return
    for key, value in (("packing", packed), ("neat_packing", neat)):
        if not draft.has(key):
            continue
        if not value:
            draft.say(key, "ignored", why=_NOTHING)
        elif draft.reads("training.padding_free"):
            sees = "" if neat else ". There they see each other, which is not wanted here"
            why = f"A micro-batch becomes one row in which each example sees only itself{sees}"
            draft.map(key, "training.padding_free", True, why, "approximated")
        else:
            draft.say(key, "ignored", why="Only stages pt and sft read it")


def _read_reference(draft: Draft) -> None:
    if draft.has("ref_model"):
        if draft.get("ref_model", text) == draft.get("model_name_or_path", text, ""):
            draft.say("ref_model", "ignored", why="The reference is the model itself before the training, anyway")
        else:
            why = "The reference is the model itself before the training, not another one"
            draft.say("ref_model", "refused", why=why)


def _read_ppo(draft: Draft, name: str) -> None:
    if not draft.reads("method.kl_target"):
        for key in ("reward_model", "reward_model_type", "ppo_target", "ppo_buffer_size"):
            if draft.has(key):
                draft.say(key, "ignored", why="Only stage ppo reads it")
        return
    kind = draft.get("reward_model_type", lambda value: text(value).lower(), "lora")
    draft.set("method.rewards", ["model"], "reward_model")
    if draft.has("reward_model"):
        if kind == "api":
            draft.say("reward_model", "refused", "method.reward_model", "A server does not score here; a model does")
        else:
            draft.map("reward_model", "method.reward_model", draft.get("reward_model", text))
    if draft.has("reward_model_type"):
        status: Status = "refused" if kind == "api" else "ignored"
        why = (
            "A server does not score here; a model does" if kind == "api" else "The folder says which of the two it is"
        )
        draft.say("reward_model_type", status, why=why)
    target = draft.get("ppo_target", number, 6.0)
    draft.set("method.kl_target", target, "ppo_target")
    draft.set("method.kl_coef", _KL_COEF, "ppo_target")
    if draft.has("ppo_target"):
        draft.say(
            "ppo_target", "mapped", "method.kl_target", f"The coefficient begins at {_KL_COEF}, as in its library"
        )
    for key, to, default in (
        ("max_new_tokens", "method.max_completion_length", 1024),
        ("temperature", "method.temperature", 0.95),
    ):
        value = draft.get(key, whole if key == "max_new_tokens" else number, default)
        draft.set(to, value, key)
        if draft.has(key):
            draft.say(key, "mapped", to)
    for key in ("top_p", "top_k"):
        if draft.has(key):
            draft.say(key, "approximated", "method.temperature", "Completions are drawn from all tokens here")
    if draft.has("ppo_buffer_size"):
        draft.say("ppo_buffer_size", "mapped", "training.batch_size", "Batches of answers that are written together")

"""Values that every tool on top of transformers' Trainer shares: optimizers, schedules, attention, validation steps.

Each function reads one key of a sheet, whatever the tool calls it, and says in the report what became of it.
"""

from __future__ import annotations

from studio.interop.sheets.sheet import Sheet
from studio.interop.values import flag

# Theirs, ours, and how ours differs ("" where it is the same).
_OPTIMIZERS: dict[str, tuple[str, str]] = {
    **{
        name: (name, "")
        for name in (
            "adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", "adamw_8bit",
            "paged_adamw_8bit", "paged_adamw_32bit", "lion_8bit", "ademamix_8bit",
        )
    },
    "adamw_bnb_8bit": ("adamw_8bit", ""),
    "paged_adamw": ("paged_adamw_32bit", ""),
    "adamw": ("adamw_torch", ""),
    "adamw_hf": ("adamw_torch", "PyTorch's AdamW instead of the one that was transformers' own"),
    "adamw_torch_8bit": ("adamw_8bit", "the 8-bit AdamW of bitsandbytes instead of torchao's"),
    "adamw_torch_4bit": ("adamw_8bit", "the 8-bit AdamW of bitsandbytes instead of torchao's 4-bit one"),
    "ao_adamw_8bit": ("adamw_8bit", "the 8-bit AdamW of bitsandbytes instead of torchao's"),
    "ao_adamw_4bit": ("adamw_8bit", "the 8-bit AdamW of bitsandbytes instead of torchao's 4-bit one"),
    "optimi_adamw": ("adamw_torch_fused", "PyTorch's AdamW instead of optimi's"),
    "flash_adamw": ("adamw_torch_fused", "PyTorch's AdamW instead of FlashOptim's"),
    "adamw_apex_fused": ("adamw_torch_fused", "PyTorch's fused AdamW instead of Apex's"),
    "adamw_anyprecision": ("adamw_torch", "PyTorch's AdamW"),
    "ademamix": ("ademamix_8bit", "AdEMAMix with an 8-bit state"),
    "paged_ademamix_8bit": ("ademamix_8bit", "AdEMAMix whose state stays on the GPU"),
    "paged_ademamix_32bit": ("ademamix_8bit", "AdEMAMix with an 8-bit state"),
    "lion": ("lion_8bit", "Lion with an 8-bit state"),
    "lion_32bit": ("lion_8bit", "Lion with an 8-bit state"),
    "paged_lion_8bit": ("lion_8bit", "Lion whose state stays on the GPU"),
    "paged_lion_32bit": ("lion_8bit", "Lion with an 8-bit state"),
    "rmsprop_bnb": ("rmsprop", "PyTorch's RMSprop"),
    "rmsprop_bnb_8bit": ("rmsprop", "PyTorch's RMSprop"),
    "rmsprop_bnb_32bit": ("rmsprop", "PyTorch's RMSprop"),
}  # fmt: skip
_SCHEDULES: dict[str, tuple[str, str]] = {
    **{
        name: (name, "")
        for name in (
            "cosine", "linear", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial",
            "inverse_sqrt", "warmup_stable_decay",
        )
    },
    "cosine_with_min_lr": ("cosine_with_min_lr", "it ends at a tenth of the rate"),
    "cosine_warmup_with_min_lr": ("cosine_with_min_lr", "the warmup begins at 0, and it ends at a tenth of the rate"),
    "one_cycle": ("cosine", "a schedule of Axolotl's own; a cosine falls nearly like it"),
    "rex": ("cosine", "a schedule of Axolotl's own; a cosine falls nearly like it"),
}  # fmt: skip
_ATTENTION = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention")
_ATTENTION_WORDS = {
    "flash": "flash_attention_2", "flash_attn": "flash_attention_2", "flash_attention": "flash_attention_2",
    "flash_attn_2": "flash_attention_2", "flash_attn_3": "flash_attention_3", "flex": "flex_attention", "sdp": "sdpa",
}  # fmt: skip


def optimizer(sheet: Sheet, key: str, otherwise: str = "") -> None:
    """Read the name of an optimizer.

    Args:
        sheet: the config.
        key: theirs.
        otherwise: what the tool takes without the key; "" where that is ours too.
    """
    _word(sheet, key, "training.optimizer", _OPTIMIZERS, otherwise, "the studio has no such optimizer")


def schedule(sheet: Sheet, key: str, otherwise: str = "") -> None:
    """Read the name of a schedule.

    Args:
        sheet: the config.
        key: theirs.
        otherwise: what the tool takes without the key; "" where that is ours too.
    """
    _word(sheet, key, "training.scheduler", _SCHEDULES, otherwise, "the studio has no such schedule")


def attention(sheet: Sheet, key: str) -> None:
    """Read which implementation of attention is used; another kernel gives the same numbers but for rounding."""
    word = sheet.text(key)
    if word is None:
        return
    word = _ATTENTION_WORDS.get(word, word)
    if word in _ATTENTION or word == "auto":
        sheet.mapped(key, "model.attention", word)
    else:
        sheet.approximated(
            key, "model.attention", "auto", f"{word} is not among the studio's; the fastest one is taken"
        )


def warmup(sheet: Sheet, share_key: str, steps_key: str, otherwise: float) -> None:
    """Read the warmup, a share of the steps or their number.

    Args:
        sheet: the config; `training.max_steps` has been read.
        share_key, steps_key: theirs; a number of steps below 1 is a share.
        otherwise: the share without either.
    """
    steps, share = sheet.number(steps_key), sheet.number(share_key) if share_key else None
    if (steps is not None and steps < 0) or (share is not None and not 0 <= share <= 1):
        key = steps_key if steps is not None and steps < 0 else share_key
        raise sheet.error(key, "a warmup is a share from 0 to 1, or a number of steps")
    if steps:
        total = sheet.value("training.max_steps")
        if steps < 1:
            sheet.mapped(steps_key, "training.warmup", steps)
        elif total:
            sheet.mapped(steps_key, "training.warmup", min(1.0, steps / total), "as a share of max_steps")
        else:
            why = f"{steps:g} steps, and how many steps there are is known with the data only; this is a share of them"
            sheet.approximated(steps_key, "training.warmup", 0.05, why)
        sheet.ignored(share_key, f"{steps_key} comes first")
    elif share is not None:
        sheet.mapped(share_key, "training.warmup", share)
        sheet.ignored(steps_key, "it is 0")
    elif steps is not None:
        sheet.mapped(steps_key, "training.warmup", 0.0)
    else:
        sheet.default(share_key or steps_key, "training.warmup", otherwise)


def interval(sheet: Sheet, key: str, path: str) -> None:
    """Read the steps between validations or checkpoints; below 1 they are a share of the run.

    Args:
        sheet: the config; `training.max_steps` has been read.
        key: theirs.
        path: ours.
    """
    steps = sheet.number(key)
    if steps is None:
        return
    if steps >= 1:
        sheet.mapped(key, path, int(steps))
    elif steps <= 0:
        sheet.ignored(key, "it is 0")
    elif total := sheet.value("training.max_steps"):
        sheet.mapped(key, path, max(1, round(steps * total)), "as a share of max_steps")
    else:
        sheet.approximated(key, path, "auto", "a share of the steps; the studio chooses the steps itself")


def _word(sheet: Sheet, key: str, path: str, table: dict[str, tuple[str, str]], otherwise: str, missing: str) -> None:
    word = sheet.text(key)
    if word is None:
        if otherwise:
            sheet.default(key, path, table[otherwise][0], otherwise)
        return
    ours, how = table.get(word.strip().lower(), ("", ""))
    if not ours:
        sheet.refused(key, f"{missing} ({word}); the usual one is taken")
    elif how:
        sheet.approximated(key, path, ours, how)
    else:
        sheet.mapped(key, path, ours)


def lora_size(sheet: Sheet, rank: str, usual: int) -> None:
    """Read rank, alpha and dropout, and write out the tool's own where they are not given.

    Args:
        sheet: the config.
        rank: key of the rank.
        usual: the tool's own rank; alpha 32 and dropout 0.05 are both tools' own.
    """
    for key, path, taken in ((rank, "tuning.rank", usual), ("lora_alpha", "tuning.alpha", 32),
                             ("lora_dropout", "tuning.dropout", 0.05)):  # fmt: skip
        number = sheet.whole(key) if key == rank else sheet.number(key)
        if number is None:
            sheet.default(key, path, taken)
        else:
            sheet.mapped(key, path, number)


def saved_modules(sheet: Sheet, key: str) -> None:
    """Read the modules that are trained whole beside the adapter, which not every tuning can."""
    if saved := sheet.words(key):
        if sheet.offers("tuning.modules_to_save"):
            sheet.mapped(key, "tuning.modules_to_save", saved)
        else:
            sheet.refused(key, "over quantized weights no other module can be trained")


def best_model(sheet: Sheet) -> None:
    """Read whether the best model is loaded at the end, and by which number."""
    if (best := sheet.flag("load_best_model_at_end")) is not None:
        sheet.mapped("load_best_model_at_end", "training.load_best_model_at_end", best)
    if metric := sheet.text("metric_for_best_model"):
        word = metric if metric.startswith("eval_") else f"eval_{metric}"
        sheet.mapped("metric_for_best_model", "training.metric_for_best_model", word)


def reward_scale(sheet: Sheet, one_out: str = "") -> None:
    """Read `scale_rewards`: by what GRPO divides the rewards of a group, less their mean.

    `none` and false are answers here: nothing is divided (Dr. GRPO), where without the key the group's standard
    deviation divides.

    Args:
        sheet: the config, of GRPO or RLOO.
        one_out: what RLOO takes for it: "none", or "ignored" where it does not read the key; "" for GRPO.
    """
    key = "scale_rewards"
    given = sheet.word(key)
    if given is None:
        return
    try:
        word = "group" if flag(given) else "none"
    except ValueError:
        word = given
    if one_out:
        same = one_out in ("ignored", word)
        sheet.tell(key, "ignored" if same else "refused", "", "RLOO does not divide by a standard deviation")
    elif word == "group":
        sheet.ignored(key, "rewards are divided by the standard deviation of their group here, too")
    elif word == "none":
        why = (
            "rewards are always divided by the standard deviation of their group here; method.grpo_loss dr_grpo "
            "changes how tokens are averaged, not this"
        )
        sheet.refused(key, why)
    elif word == "batch":
        sheet.refused(key, "rewards are divided by the standard deviation of their group here, not of the batch")
    else:
        sheet.refused(key, f"the studio divides by the standard deviation of a group, and has no {word:.30}")


def reward_place(function: str) -> str:
    """The function `package.module.name` as the studio names it, `package/module.py:name`."""
    module, _, name = function.rpartition(".")
    return f"{module.replace('.', '/')}.py:{name}" if module else function

"""What TRL's trainers read beside TrainingArguments: losses, beta, rewards, which tokens count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.interop.sheets import names
from studio.interop.sheets.sheet import Sheet
from studio.methods import METHODS
from studio.methods.dpo import DPO_LOSSES

READ = frozenset({
    "packing", "padding_free", "assistant_only_loss", "completion_only_loss", "loss_type", "loss_weights", "beta",
    "label_smoothing", "desirable_weight", "undesirable_weight", "simpo_gamma", "cpo_alpha",
    "center_rewards_coefficient", "num_generations", "max_completion_length", "temperature", "epsilon", "scale_rewards",
    "reward_funcs", "reward_weights", "reward_model_name_or_path", "reward_model_path", "num_ppo_epochs", "kl_coef",
    "cliprange", "vf_coef", "gamma", "lam", "whiten_rewards", "response_length", "total_episodes", "sft_model_path",
})  # fmt: skip
_GRPO_LOSSES = ("dapo", "grpo", "bnpo", "dr_grpo")
# Key, option, and what TRL takes without it (None where that is the studio's, too).
_NUMBERS: tuple[tuple[str, str, float | None], ...] = (
    ("label_smoothing", "method.label_smoothing", None),
    ("desirable_weight", "method.desirable_weight", None),
    ("undesirable_weight", "method.undesirable_weight", None),
    ("center_rewards_coefficient", "method.center_rewards_coefficient", None),
    ("num_generations", "method.num_generations", 8),
    ("max_completion_length", "method.max_completion_length", 512),
    ("temperature", "method.temperature", None),
    ("epsilon", "method.clip_range", None),
    ("num_ppo_epochs", "method.ppo_epochs", None),
    ("kl_coef", "method.kl_coef", None),
    ("cliprange", "method.clip_range", None),
    ("vf_coef", "method.vf_coef", None),
    ("gamma", "method.gamma", None),
    ("lam", "method.lam", None),
)
# By trainer, where it takes something else; PPO has left TRL.
_TAKEN: dict[str, dict[str, float]] = {"ppo": {"max_completion_length": 53, "temperature": 0.7}}


def read_method(sheet: Sheet, word: str, name: str, own: Mapping[str, Any] | None = None) -> None:
    """Read the numbers of the trainer.

    Args:
        sheet: the config.
        word: the trainer, as TRL calls it.
        name: our method.
        own: what a tool on top of TRL takes without a key, by key, where it is not what TRL takes.
    """
    taken_by = own if own is not None else _TAKEN.get(word, {})
    if word == "cpo" and sheet.text("loss_type") != "simpo":
        name = "orpo"
        sheet.set("method.orpo_loss", "cpo")
    sheet.set("method.name", name)
    _supervised(sheet)
    _losses(sheet, word)
    if (beta := sheet.number("beta")) is not None and sheet.reads("method.beta"):
        sheet.mapped("beta", "method.beta", beta)
    elif sheet.reads("method.beta"):
        usual = 0.0 if word == "grpo" else 0.05 if word == "rloo" else 0.1
        sheet.default("beta", "method.beta", taken_by.get("beta", usual))
    if word == "rloo":
        sheet.set("method.grpo_algorithm", "rloo")
    clip = "epsilon" if sheet.offers("method.num_generations") else "cliprange"
    for key, path, taken in _NUMBERS:
        if not sheet.reads(path) or (path == "method.clip_range" and key != clip):
            continue
        number, taken = sheet.number(key), taken_by.get(key, taken)
        if number is not None:
            sheet.mapped(key, path, number)
        elif key == "max_completion_length" and sheet.has("response_length"):
            continue
        elif taken is not None and not (key == "num_generations" and word == "rloo"):
            sheet.default(key, path, taken)
    if word == "rloo" and sheet.raw("num_generations") is None:
        sheet.default("num_generations", "method.num_generations", 2)
    if sheet.offers("method.simpo_gamma"):
        if (margin := sheet.number("simpo_gamma")) is not None:
            sheet.mapped("simpo_gamma", "method.simpo_gamma", margin)
        elif "simpo_gamma" in taken_by:
            sheet.default("simpo_gamma", "method.simpo_gamma", taken_by["simpo_gamma"])
    if "loss_type" in taken_by and sheet.reads("method.grpo_loss") and not sheet.has("loss_type"):
        sheet.default("loss_type", "method.grpo_loss", taken_by["loss_type"])
    if word in ("dpo", "cpo"):
        _smoothing(sheet)
    _online(sheet, name, "" if sheet.value("method.grpo_algorithm") != "rloo" else "none" if own else "ignored")
    for key in READ:
        if sheet.has(key) and not sheet.told(key):
            sheet.ignored(key, f"{METHODS[name].title} does not read it")


def _supervised(sheet: Sheet) -> None:
    packing, free = sheet.flag("packing"), sheet.flag("padding_free")
    if packing and sheet.reads("training.padding_free"):
        why = "an update has a fixed number of examples here, where TRL fills rows up to max_length"
        sheet.approximated("packing", "training.padding_free", True, why)
    elif sheet.has("packing"):
        sheet.ignored("packing", "it is off" if not packing else "this method does not pack")
    if free is not None and sheet.reads("training.padding_free"):
        sheet.mapped("padding_free", "training.padding_free", free or bool(packing))
    if not sheet.offers("method.train_on"):
        return
    answers, completion = sheet.flag("assistant_only_loss"), sheet.flag("completion_only_loss")
    if answers or completion:
        sheet.set("method.train_on", "assistant")
        for key in ("assistant_only_loss", "completion_only_loss"):
            sheet.tell(key, "mapped", "method.train_on")
        return
    sheet.set("method.train_on", "all")
    why = (
        "TRL counts every token of a conversation or a text, and of rows with prompt and completion the completion "
        "only: set it to assistant if the data has those"
    )
    if completion is None:
        sheet.note("assistant_only_loss", "approximated", "method.train_on", why)
    else:
        for key in ("assistant_only_loss", "completion_only_loss"):
            sheet.tell(key, "mapped", "method.train_on")


def _losses(sheet: Sheet, word: str) -> None:
    losses = sheet.words("loss_type")
    if word == "cpo":
        _contrastive(sheet, losses[0] if losses else "sigmoid")
        return
    if not losses:
        return
    if word == "dpo":
        unknown = [one for one in losses if one not in DPO_LOSSES]
        if unknown:
            sheet.refused("loss_type", f"the studio has no {', '.join(unknown):.60}")
            return
        sheet.mapped("loss_type", "method.dpo_loss", losses)
        weights = sheet.numbers("loss_weights")
        if weights is not None:
            sheet.mapped("loss_weights", "method.dpo_loss_weights", weights)
        return
    one = losses[0]
    if word == "sft" and one in ("nll", "dft", "chunked_nll"):
        sheet.mapped("loss_type", "method.loss", "dft" if one == "dft" else "nll")
    elif word == "kto" and one in ("kto", "apo_zero_unpaired"):
        sheet.mapped("loss_type", "method.kto_loss", one)
    elif word == "grpo" and one in _GRPO_LOSSES:
        sheet.mapped("loss_type", "method.grpo_loss", one)
    else:
        sheet.refused("loss_type", f"the studio has no {one:.40}")


def _contrastive(sheet: Sheet, loss: str) -> None:
    """Read the loss of CPO, and the weight of the chosen answer's likelihood beside it: 1 without a key."""
    if loss in ("simpo", "sigmoid"):
        sheet.tell("loss_type", "mapped", "method.name")
    else:
        sheet.refused("loss_type", f"the studio has no {loss:.40}")
    alpha = sheet.number("cpo_alpha")
    if loss == "simpo" and alpha != 0:
        given = "1" if alpha is None else f"{alpha:g}"
        why = f"{sheet.tool} adds the likelihood of the chosen answer with weight {given}; SimPO has none, and so here"
        sheet.note("cpo_alpha", "approximated", "method.name", why)
    elif loss != "simpo" and alpha is not None:
        same = alpha == 1
        why = "the likelihood of the chosen answer has weight 1 in CPO here" + (", too" if same else "")
        sheet.tell("cpo_alpha", "ignored" if same else "refused", "", why)


def _smoothing(sheet: Sheet) -> None:
    """Refuse to smooth a loss that is not smoothed here; older releases of TRL smoothed `sigmoid`, too."""
    if (smoothing := sheet.number("label_smoothing")) is None or sheet.told("label_smoothing"):
        return
    losses = sheet.words("loss_type") or ["sigmoid"]
    if not smoothing:
        sheet.ignored("label_smoothing", "it is 0")
    elif {"sigmoid", "simpo"} & set(losses):
        sheet.refused("label_smoothing", f"the loss {losses[0]:.30} is not smoothed here")
    else:
        sheet.ignored("label_smoothing", f"the loss {losses[0]:.30} does not read it")


def _online(sheet: Sheet, name: str, one_out: str) -> None:
    if not METHODS[name].online:
        return
    if (length := sheet.whole("response_length")) is not None:
        sheet.mapped("response_length", "method.max_completion_length", length)
    whitens = sheet.offers("method.whiten_rewards")
    if (white := sheet.flag("whiten_rewards")) is not None and whitens:
        sheet.mapped("whiten_rewards", "method.whiten_rewards", white)
    elif whitens:
        sheet.default("whiten_rewards", "method.whiten_rewards", False)
    if sheet.has("total_episodes"):
        sheet.tell("total_episodes", "approximated", "training.epochs", "num_train_epochs says how long")
    if sheet.offers("method.num_generations"):
        names.reward_scale(sheet, one_out)
    found: list[str] = []
    scorer = next((key for key in ("reward_model_name_or_path", "reward_model_path") if sheet.has(key)), "")
    if scorer:
        found.append("model")
        sheet.mapped(scorer, "method.reward_model", sheet.text(scorer))
    functions = sheet.words("reward_funcs") or []
    if len(functions) == 1:
        if functions[0] == "accuracy_reward":
            found.append("exact_match")
            why = "TRL's compares mathematical answers; exact_match and numeric compare texts and numbers"
            sheet.tell("reward_funcs", "approximated", "method.rewards", why)
        elif "." in functions[0]:
            found.append("python")
            why = "the file is looked for in the folder where the run starts; read it, and set method.trust_reward_code"
            sheet.approximated("reward_funcs", "method.reward_python", names.reward_place(functions[0]), why)
        else:
            sheet.refused("reward_funcs", f"the studio has no {functions[0]:.40}; write it as a Python reward")
    elif functions:
        why = "one Python function can be a reward: write one that calls these and adds them (method.reward_python)"
        sheet.refused("reward_funcs", why)
    if found:
        sheet.set("method.rewards", found)
    weights = sheet.numbers("reward_weights")
    if weights and len(weights) == len(found):
        sheet.mapped("reward_weights", "method.reward_weights", weights)
    elif weights:
        sheet.refused("reward_weights", "they weigh functions that are not called")

"""Which trainer of TRL teaches what, and what its config is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from studio.config.run import RunConfig
from studio.interop.scripts.source import Expression
from studio.interop.sheets.outgoing import Outgoing

# Trainers of TRL's older code take 512 tokens where no limit is given.
_UNLIMITED = Expression("model.config.max_position_embeddings")


@dataclass(frozen=True)
class Trainer:
    """A trainer of TRL.

    Attributes:
        module: where it is imported from.
        name: before `Trainer` and `Config`.
        options: what its config is given beside TrainingArguments.
        rows: "tokens" where the script makes ids and labels, "pairs", "rated" or "prompts" where TRL does.
    """

    module: str
    name: str
    options: Callable[[Outgoing], dict[str, Any]]
    rows: str

    @property
    def offloads(self) -> bool:
        """Whether its config has `activation_offloading`."""
        return self.name in ("SFT", "DPO", "KTO", "Reward")


def trainer_of(config: RunConfig) -> Trainer | None:
    """The trainer of a run's method; None where TRL has none any more."""
    method = config.method
    if method.kind.rows == "answers":
        return Trainer("trl", "SFT", _supervised, "tokens")
    if method.reads("simpo_gamma") or (method.reads("orpo_loss") and method.orpo_loss == "cpo"):
        return Trainer("trl.experimental.cpo", "CPO", _contrastive, "pairs")
    rloo = method.reads("grpo_algorithm") and method.grpo_algorithm == "rloo"
    found = (
        ("dpo", Trainer("trl", "DPO", _dpo, "pairs")),
        ("orpo", Trainer("trl.experimental.orpo", "ORPO", _orpo, "pairs")),
        ("kto", Trainer("trl", "KTO", _kto, "rated")),
        ("reward", Trainer("trl", "Reward", _reward, "pairs")),
        ("grpo", Trainer("trl", "RLOO" if rloo else "GRPO", _grpo, "prompts")),
    )
    return dict(found).get(method.kind.trainer)


def _length(out: Outgoing, drops: bool = False, unlimited: Any = None) -> dict[str, Any]:
    """The limit of a row's tokens.

    Args:
        out: told what a longer row becomes.
        drops: whether the trainer leaves it out; else it cuts its end off.
        unlimited: what stands for no limit.
    """
    data = out.config.data
    if data.max_length == "auto":
        return {"max_length": unlimited}
    out.tell("data.max_length", "mapped", "max_length")
    if data.truncation == ("drop" if drops else "cut"):
        out.tell("data.truncation", "mapped", "max_length")
    else:
        becomes = "left out" if drops else "cut"
        out.tell("data.truncation", "approximated", "max_length", f"Longer rows are {becomes}")
    return {"max_length": data.max_length}


def _beta(out: Outgoing) -> dict[str, Any]:
    method = out.config.method
    out.tell("method.beta", "mapped", "beta")
    return {"beta": method.kind.beta if method.beta == "auto" else method.beta}


def _supervised(out: Outgoing) -> dict[str, Any]:
    method = out.config.method
    # The rows arrive as ids and labels, within the limit already.
    options: dict[str, Any] = {"max_length": None}
    if method.reads("loss") and method.loss != "nll":
        out.tell("method.loss", "mapped", "loss_type")
        options["loss_type"] = method.loss
    if method.reads("neftune_noise_alpha") and method.neftune_noise_alpha:
        out.tell("method.neftune_noise_alpha", "mapped", "neftune_noise_alpha")
        options["neftune_noise_alpha"] = method.neftune_noise_alpha
    if out.config.training.padding_free:
        out.tell("training.padding_free", "mapped", "padding_free")
        options["padding_free"] = True
    return options


def _dpo(out: Outgoing) -> dict[str, Any]:
    method = out.config.method
    options = {**_beta(out), "loss_type": list(method.dpo_loss)}
    out.tell("method.dpo_loss", "mapped", "loss_type")
    if method.dpo_loss_weights:
        options["loss_weights"] = method.dpo_loss_weights
        out.tell("method.dpo_loss_weights", "mapped", "loss_weights")
    if method.label_smoothing:
        options["label_smoothing"] = method.label_smoothing
        out.tell("method.label_smoothing", "mapped", "label_smoothing")
    return {**options, **_length(out)}


def _orpo(out: Outgoing) -> dict[str, Any]:
    return {**_beta(out), **_length(out, unlimited=_UNLIMITED)}


def _contrastive(out: Outgoing) -> dict[str, Any]:
    method = out.config.method
    if method.reads("simpo_gamma"):
        out.tell("method.simpo_gamma", "mapped", "simpo_gamma")
        loss: dict[str, Any] = {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": method.simpo_gamma}
    else:
        out.tell("method.orpo_loss", "mapped", "loss_type")
        loss = {"loss_type": "sigmoid", "cpo_alpha": 1.0}
    return {**_beta(out), **loss, **_length(out, unlimited=_UNLIMITED)}


def _kto(out: Outgoing) -> dict[str, Any]:
    method = out.config.method
    for name in ("kto_loss", "desirable_weight", "undesirable_weight"):
        out.tell(f"method.{name}", "mapped", name)
    return {
        **_beta(out), "loss_type": method.kto_loss, "desirable_weight": method.desirable_weight,
        "undesirable_weight": method.undesirable_weight, **_length(out),
    }  # fmt: skip


def _reward(out: Outgoing) -> dict[str, Any]:
    given = out.config.method.center_rewards_coefficient
    out.tell("method.center_rewards_coefficient", "mapped", "center_rewards_coefficient")
    return {**({"center_rewards_coefficient": given} if given else {}), **_length(out, drops=True)}


def _grpo(out: Outgoing) -> dict[str, Any]:
    method = out.config.method
    for name in ("num_generations", "max_completion_length", "temperature", "clip_range", "grpo_loss",
                 "grpo_algorithm"):  # fmt: skip
        out.tell(f"method.{name}", "mapped", "GRPOConfig")
    options = {
        **_beta(out), "num_generations": method.num_generations, "max_completion_length": method.max_completion_length,
        "temperature": method.temperature, "epsilon": method.clip_range,
    }  # fmt: skip
    if not out.config.data.shuffle:
        options["shuffle_dataset"] = False
        out.tell("data.shuffle", "mapped", "shuffle_dataset")
    if method.grpo_algorithm == "grpo":
        options["loss_type"] = method.grpo_loss
    if method.reward_weights:
        out.tell("method.reward_weights", "mapped", "reward_weights")
        options["reward_weights"] = method.reward_weights
    return options

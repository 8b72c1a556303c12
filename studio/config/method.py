"""What the model is taught: the training method and what only methods use."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from studio.config.option import Options, option

MethodName = Literal["sft", "pretrain", "dpo", "orpo", "kto", "reward", "ppo", "grpo"]
RowKind = Literal["answers", "pairs", "rated", "prompts"]
# What a method learns from: answers to imitate, pairs of a better and a worse one, answers rated good or bad, or
# prompts whose answers it writes itself.
ROWS: dict[MethodName, RowKind] = {
    "sft": "answers", "pretrain": "answers", "dpo": "pairs", "orpo": "pairs", "kto": "rated", "reward": "pairs",
    "ppo": "prompts", "grpo": "prompts",
}  # fmt: skip
DpoLoss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
RewardName = Literal["exact_match", "numeric", "json", "regex", "length", "model", "python"]
ONLINE = ("ppo", "grpo")
DPO_LOSSES: tuple[str, ...] = DpoLoss.__args__  # type: ignore[attr-defined]
REWARDS: tuple[str, ...] = RewardName.__args__  # type: ignore[attr-defined]


class MethodConfig(Options):
    """Section `method`. The terms are those of TRL's configs unless said otherwise."""

    name: MethodName = option(
        "sft",
        "sft: answer like the examples; pretrain: continued pretraining on plain text; dpo: prefer the better of two "
        "answers; orpo: answers and preferences in one, without a reference model; kto: answers labeled good or bad; "
        "reward: a model that scores answers; ppo: answers that a reward model scores higher (RLHF); "
        "grpo: answers that a verifiable reward scores higher.",
        title="Method",
        tier="basic",
    )
    train_on: Literal["assistant", "last", "all"] = option(
        "assistant",
        "Which tokens the loss counts: every assistant turn, only the last one, or the whole text.",
        title="Train on",
        tier="basic",
        methods=("sft",),
        differs="TRL trains on every token of a conversation, the prompts too.",
    )
    documents: Literal["separate", "join"] = option(
        "separate",
        "separate: each document is an example of its own; join: documents are concatenated, each with its end token, "
        "and split at the maximum length, so that long ones continue and short ones share an example.",
        title="Documents",
        tier="basic",
        methods=("pretrain",),
    )
    loss: Literal["nll", "dft"] = option(
        "nll",
        "nll is cross-entropy; dft weights each token by its probability under the model (arXiv:2508.05629).",
        title="Loss",
        methods=("sft",),
    )
    neftune_noise_alpha: float = option(
        0.0,
        "Noise added to the embeddings in training (NEFTune, arXiv:2310.05914): 5 is usual, 0 is none.",
        title="NEFTune noise",
        methods=("sft",),
        ge=0,
        le=100,
    )
    beta: float | Literal["auto"] = option(
        "auto",
        "How strongly the model is kept close to the reference: the KL coefficient of dpo, kto, grpo; the weight of "
        "orpo's preference term. auto is 0.1, 2 for simpo and 0 for grpo.",
        title="Beta",
        tier="basic",
        methods=("dpo", "orpo", "kto", "grpo"),
    )
    dpo_loss: str | list[DpoLoss] = option(
        lambda: ["sigmoid"],
        f"One or several of {', '.join(DPO_LOSSES)}.",
        title="DPO loss",
        methods=("dpo",),
    )
    dpo_loss_weights: str | list[float] | None = option(
        None, "Weight of each DPO loss, such as 1, 0.2; empty weights them equally.", title="DPO loss weights",
        methods=("dpo",),
    )  # fmt: skip
    label_smoothing: float = option(
        0.0, "Assumed share of pairs with swapped labels; exo_pair needs some (0.001).",
        title="Label smoothing", methods=("dpo",), ge=0, lt=0.5,
        needs=("dpo_loss", ("exo_pair", "robust", "aot", "aot_unpaired")),
    )  # fmt: skip
    orpo_loss: Literal["orpo", "simpo", "cpo"] = option(
        "orpo",
        "orpo (arXiv:2403.07691), simpo (2405.14734: average likelihood with a margin) or cpo (2401.08417).",
        title="Preference loss",
        methods=("orpo",),
    )
    simpo_gamma: float = option(
        0.5, "Target reward margin of simpo (gamma).", title="SimPO margin", methods=("orpo",), ge=0, le=10,
        needs=("orpo_loss", ("simpo",)),
    )  # fmt: skip
    kto_loss: Literal["kto", "apo_zero_unpaired"] = option(
        "kto", "kto (arXiv:2402.01306), or apo_zero_unpaired, which needs no KL estimate.", title="KTO loss",
        methods=("kto",),
    )  # fmt: skip
    desirable_weight: float = option(
        1.0, "Weight of desirable answers; raise it when they are few.", title="Desirable weight",
        methods=("kto",), gt=0, le=100,
    )  # fmt: skip
    undesirable_weight: float = option(
        1.0, "Weight of undesirable answers; raise it when they are few.", title="Undesirable weight",
        methods=("kto",), gt=0, le=100,
    )  # fmt: skip
    center_rewards_coefficient: float = option(
        0.0, "Centers the rewards around 0, so that runs can be compared (arXiv:2312.09244): 0.01 is usual.",
        title="Reward centering", methods=("reward",), ge=0, le=10,
    )  # fmt: skip
    rewards: str | list[RewardName] = option(
        lambda: ["exact_match"],
        "What scores a completion, one or several: exact_match and numeric compare it with the row's answer; json, "
        "regex and length check its form; model is a reward model; python is a function of yours.",
        title="Rewards",
        tier="basic",
        methods=ONLINE,
    )
    reward_weights: str | list[float] | None = option(
        None, "Weight of each reward, such as 1, 0.2; empty weights them equally.", title="Reward weights",
        methods=ONLINE,
    )  # fmt: skip
    reward_model: str | None = option(
        None, "For model: the run that trained it (name or id), or the folder of a reward model.",
        title="Reward model", tier="basic", methods=ONLINE, needs=("rewards", ("model",)),
    )  # fmt: skip
    reward_schema: str | None = option(
        None, "For json: a JSON Schema file that the completion must match; empty asks for valid JSON only.",
        title="JSON Schema", methods=ONLINE, needs=("rewards", ("json",)),
    )  # fmt: skip
    reward_pattern: str | None = option(
        None, "For regex: a pattern (RE2) that must match the whole completion, such as ^\\d+$.", title="Regex pattern",
        methods=ONLINE, needs=("rewards", ("regex",)),
    )  # fmt: skip
    reward_length: int | None = option(
        None, "For length: the target number of tokens; the reward falls with the distance from it.",
        title="Target length", unit="tokens", methods=ONLINE, needs=("rewards", ("length",)), ge=1,
    )  # fmt: skip
    reward_python: str | None = option(
        None,
        "For python: FILE.py:FUNCTION, called with prompts, completions and the row's other keys; returns one number "
        "each. It runs with your rights.",
        title="Python reward",
        methods=ONLINE,
        needs=("rewards", ("python",)),
    )
    trust_reward_code: bool = option(
        False, "Run the file of the Python reward. Leave it off unless you have read it.", title="Trust reward code",
        methods=ONLINE, needs=("rewards", ("python",)),
    )  # fmt: skip
    grpo_algorithm: Literal["grpo", "rloo"] = option(
        "grpo", "grpo compares completions within a group (arXiv:2402.03300), rloo leaves one out (2402.14740).",
        title="Algorithm", methods=("grpo",),
    )  # fmt: skip
    grpo_loss: Literal["dapo", "grpo", "bnpo", "dr_grpo"] = option(
        "dapo", "How tokens are averaged: dapo over all, grpo within each completion, dr_grpo by a fixed length.",
        title="GRPO loss", methods=("grpo",), needs=("grpo_algorithm", ("grpo",)),
    )  # fmt: skip
    num_generations: int = option(
        4, "Completions generated for each prompt; the batch must be a multiple of it.", title="Completions per prompt",
        tier="basic", methods=("grpo",), ge=2, le=64, differs="TRL: 8 for GRPO.",
    )  # fmt: skip
    max_completion_length: int = option(
        64, "Maximum length of a completion generated in training.", title="Maximum completion length",
        unit="tokens", tier="basic", methods=ONLINE, ge=1, le=65536,
        differs="TRL: 512, which takes minutes per step on a CPU.",
    )  # fmt: skip
    temperature: float = option(
        1.0, "Sampling temperature of the completions; 1 samples from the model's own probabilities.",
        title="Temperature", methods=ONLINE, gt=0, le=10,
    )  # fmt: skip
    clip_range: float = option(
        0.2, "How far one update may move the probability ratio of a token (epsilon).", title="Clip range",
        methods=ONLINE, gt=0, lt=1,
    )  # fmt: skip
    ppo_epochs: int = option(
        4, "Updates made from each batch of completions.", title="PPO epochs", methods=("ppo",), ge=1, le=64
    )  # fmt: skip
    kl_coef: float = option(
        0.05, "Weight of the KL penalty against the reference in each token's reward.", title="KL coefficient",
        tier="basic", methods=("ppo",), ge=0, le=10,
    )  # fmt: skip
    kl_target: float | None = option(
        None, "KL per completion that the coefficient is adapted to (Ziegler 2019); empty keeps it fixed.",
        title="KL target", methods=("ppo",), gt=0,
    )  # fmt: skip
    vf_coef: float = option(0.1, "Weight of the value loss.", title="Value coefficient", methods=("ppo",), ge=0)
    gamma: float = option(
        1.0, "Discount factor of later rewards.", title="Discount factor", methods=("ppo",), gt=0, le=1
    )
    lam: float = option(
        0.95, "Lambda of generalized advantage estimation (arXiv:1506.02438).", title="GAE lambda", methods=("ppo",),
        ge=0, le=1,
    )  # fmt: skip
    whiten_rewards: bool = option(
        True, "Normalize the scores to mean 0 and standard deviation 1, by running statistics.",
        title="Whiten rewards", methods=("ppo",), differs="TRL 1.12: off; the KL and the scores then have one scale.",
    )  # fmt: skip

    @field_validator("dpo_loss", "rewards", mode="before")
    @classmethod
    def _words(cls, value: object, info: object) -> object:
        allowed = DPO_LOSSES if getattr(info, "field_name", "") == "dpo_loss" else REWARDS
        words = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not words or not isinstance(words, list):
            raise ValueError("at least one word is needed")
        for word in words:
            if word not in allowed:
                raise ValueError(f"'{word}' is not one of {', '.join(allowed)}")
        if len(set(words)) < len(words):
            raise ValueError("each may be named once")
        return words

    @field_validator("dpo_loss_weights", "reward_weights", mode="before")
    @classmethod
    def _numbers(cls, value: object) -> object:
        if isinstance(value, str):
            try:
                value = [float(part) for part in value.split(",") if part.strip()] or None
            except ValueError as error:
                raise ValueError("numbers with commas between them, such as 1, 0.2") from error
        return [value] if isinstance(value, int | float) else value

    @field_validator("dpo_loss_weights")
    @classmethod
    def _something_counts(cls, value: list[float] | None) -> list[float] | None:
        # Below 0 the better answer would be made less likely, and with nothing but 0 nothing is learned.
        if value is not None and (not any(value) or min(value) < 0):
            raise ValueError("weights from 0, at least one of them above")
        return value

    @field_validator("beta")
    @classmethod
    def _strength(cls, value: float | str) -> float | str:
        if value != "auto" and not 0 <= float(value) <= 100:
            raise ValueError("a number from 0 to 100, or auto")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> MethodConfig:
        for option_, weights, words in (
            ("dpo_loss_weights", self.dpo_loss_weights, self.dpo_loss),
            ("reward_weights", self.reward_weights, self.rewards),
        ):
            if weights is not None and len(weights) != len(words):
                raise ValueError(
                    f"{option_}: {len(weights)} weights for {len(words)} of {', '.join(words)}; give one for each, or "
                    "leave it empty"
                )
        return self

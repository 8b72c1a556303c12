"""Which learning rate `auto` means, by method, tuning and size of the model.

Data, not code: one row a rule, with its reason, shown in the plan and in docs/methods.md. Values are for AdamW
and batches of about 8; a row is used up to `below` parameters, the first that fits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """One rule: for models of fewer than `below` parameters, take `value`."""

    method: str
    tuning: str
    below: float
    value: float
    reason: str
    source: str


QLORA = "Dettmers et al. 2023, arXiv:2305.14314"
OURS = "rule of the studio, not compared"
# Adapters take the same step whatever holds the weights they stand beside.
RATES = (
    Rate("sft", "adapter", 1e9, 1e-3, "small models bear large steps", OURS),
    Rate("sft", "adapter", 1e10, 2e-4, "the usual step of an adapter", QLORA),
    Rate("sft", "adapter", math.inf, 1e-4, "large models take half the step", QLORA),
    Rate("sft", "full", 1e9, 5e-5, "every weight moves, so each moves little", "transformers' default"),
    Rate("sft", "full", 1e10, 1e-5, "larger models need smaller steps", "half of TRL's default, 2e-5"),
    Rate("sft", "full", math.inf, 5e-6, "larger models need smaller steps", OURS),
    Rate("pretrain", "adapter", 1e9, 5e-4, "every token counts, so a step sees more", OURS),
    Rate("pretrain", "adapter", math.inf, 1e-4, "half the step of the answers", OURS),
    Rate("pretrain", "full", 1e9, 5e-5, "every weight moves, so each moves little", "transformers' default"),
    Rate("pretrain", "full", math.inf, 1e-5, "larger models need smaller steps", OURS),
    Rate("dpo", "adapter", 1e9, 1e-4, "small models and adapters bear large steps", "measured on the demo pairs"),
    Rate("dpo", "adapter", math.inf, 5e-6, "ten times the step of full tuning", "TRL's advice for LoRA"),
    Rate("dpo", "full", math.inf, 5e-7, "the step of the paper's models", "Tunstall et al. 2023, arXiv:2310.16944"),
    Rate("orpo", "adapter", 1e9, 1e-3, "small models and adapters bear large steps", "measured on the demo pairs"),
    Rate("orpo", "adapter", math.inf, 5e-5, "more than full tuning's", OURS),
    Rate("orpo", "full", math.inf, 8e-6, "the step of the paper", "Hong et al. 2024, arXiv:2403.07691"),
    Rate("kto", "adapter", 1e9, 1e-4, "small models and adapters bear large steps", "measured on the demo pairs"),
    Rate("kto", "adapter", math.inf, 5e-6, "ten times the step of full tuning", OURS),
    Rate("kto", "full", math.inf, 5e-7, "the step of the paper", "Ethayarajh et al. 2024, arXiv:2402.01306"),
    Rate("reward", "adapter", 1e9, 3e-4, "a new head learns from nothing", "measured on the demo pairs"),
    Rate("reward", "adapter", math.inf, 1e-4, "TRL's default", "trl.RewardConfig"),
    Rate("reward", "full", math.inf, 1e-5, "every weight moves, so each moves little", "Ouyang et al. 2022: 9e-6"),
    Rate("ppo", "adapter", 1e9, 3e-4, "small models and adapters bear large steps", "measured on the demo task"),
    Rate("ppo", "adapter", math.inf, 1e-5, "three times the step of full tuning", OURS),
    Rate("ppo", "full", math.inf, 3e-6, "the last default of TRL's PPO", "trl 1.12 PPOConfig"),
    Rate("grpo", "adapter", 1e9, 3e-4, "small models and adapters bear large steps", "measured on the demo task"),
    Rate("grpo", "adapter", math.inf, 1e-5, "ten times the step of full tuning", OURS),
    Rate("grpo", "full", math.inf, 1e-6, "TRL's default", "trl.GRPOConfig"),
)  # fmt: skip


# Above so many times the usual rate, or below that part of it, a person is told.
FAR = 5.0


def is_far(rate: float, usual: float) -> bool:
    """Whether a rate is more than `FAR` times as large or as small as the usual one."""
    return not usual / FAR * (1 - 1e-9) <= rate <= usual * FAR * (1 + 1e-9)


def rate_for(method: str, tuning: str, parameters: int) -> Rate:
    """Return the row for a model of that many parameters.

    Raises:
        KeyError: the table lacks a row for this method and tuning, which is a bug of ours.
    """
    group = "full" if tuning == "full" else "adapter"
    for row in RATES:
        if row.method == method and row.tuning == group and parameters < row.below:
            return row
    raise KeyError(f"no learning rate for {method} × {tuning}")

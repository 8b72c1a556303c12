"""Which learning rate `auto` means, by method, tuning and size of the model.

Data, not code: one row a rule, with its reason, shown in the plan and in docs/config.md. Values are for AdamW
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


RATES = (
    Rate("sft", "lora", 1e9, 1e-3, "small models bear large steps", "rule of the studio, not compared"),
    Rate("sft", "lora", 1e10, 2e-4, "the usual step of an adapter", "Dettmers et al. 2023, arXiv:2305.14314"),
    Rate("sft", "lora", math.inf, 1e-4, "large models take half the step", "Dettmers et al. 2023, arXiv:2305.14314"),
    Rate("sft", "full", 1e9, 5e-5, "every weight moves, so each moves little", "transformers' default"),
    Rate("sft", "full", 1e10, 1e-5, "larger models need smaller steps", "half of TRL's default, 2e-5"),
    Rate("sft", "full", math.inf, 5e-6, "larger models need smaller steps", "rule of the studio, not compared"),
)  # fmt: skip


def rate_for(method: str, tuning: str, parameters: int) -> Rate:
    """Return the row for a model of that many parameters.

    Raises:
        KeyError: the table lacks a row for this method and tuning, which is a bug of ours.
    """
    for row in RATES:
        if row.method == method and row.tuning == tuning and parameters < row.below:
            return row
    raise KeyError(f"no learning rate for {method} × {tuning}")

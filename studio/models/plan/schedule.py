"""What a learning-rate schedule has beside its name, for the trainer and for what is written for other tools."""

from __future__ import annotations

from typing import Any


def scheduler_arguments(name: str, steps: int, learning_rate: float) -> dict[str, Any]:
    """Return what a schedule needs beside its name (transformers' `get_scheduler`).

    Args:
        name: transformers' name of the schedule.
        steps: optimizer updates of the whole run.
        learning_rate: the highest rate.
    """
    if name == "cosine_with_min_lr":
        return {"min_lr_rate": 0.1}
    if name == "polynomial":  # ends at 1e-7 by itself, and fails at a rate that is no higher
        return {"lr_end": min(1e-7, learning_rate / 10)}
    return {"num_decay_steps": max(1, steps // 10)} if name == "warmup_stable_decay" else {}


def warmup_steps(name: str, share: float, steps: int) -> int:
    """Return the steps in which the rate rises; polynomial divides by the number of the others, so one is left.

    Args:
        name: transformers' name of the schedule.
        share: of the run's steps, 0 to 1.
        steps: optimizer updates of the whole run.
    """
    rising = round(share * steps)
    return min(rising, steps - 1) if name == "polynomial" else rising

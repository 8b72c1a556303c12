"""Which validation was the best, and how long ago: from the trainer's own history, so that it survives a resume.

The history lies in every checkpoint. The validation before the first step does not count: nothing was learned yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.errors import InputError
from studio.jobs.store.checkpoints import BEST, whole_steps
from studio.jobs.store.files import write_json

Scores = list[tuple[int, float]]


@dataclass(frozen=True)
class Watched:
    """The number of a validation that says which is the best: its name, and whether it should rise."""

    name: str
    higher: bool

    @property
    def words(self) -> str:
        """The name for people: "validation loss"."""
        return f"validation {self.name.removeprefix('eval_').replace('_', ' ')}"


def watched(config: RunConfig) -> Watched:
    """Return what `training.metric_for_best_model` names.

    Raises:
        InputError: the method does not report it, or it has no better and worse.
    """
    method, asked = config.method.kind, config.training.metric_for_best_model
    loss = {} if method.online else {"eval_loss": False}
    known = loss | {
        f"eval_{metric.name.removeprefix('eval_')}": metric.better == "higher"
        for metric in method.metrics
        if metric.better != "neither"
    }
    if asked == "auto":
        return Watched(*next(iter(known.items())))
    name = asked if asked.startswith("eval_") else f"eval_{asked}"
    if name not in known:
        raise InputError(
            f"{method.name} has no validation metric '{asked}'",
            where="training.metric_for_best_model",
            fix=f"Use auto, or one of {', '.join(known)}",
        )
    return Watched(name, known[name])


def scores(history: list[dict[str, Any]], name: str) -> Scores:
    """Return (step, value) of every validation after the first step, as the trainer logged them."""
    found = [(int(entry["step"]), float(entry[name])) for entry in history if entry.get(name) is not None]
    return [one for one in found if one[0] > 0]


def best_of(found: Scores, higher: bool) -> tuple[int, float] | None:
    """Return (step, value) of the best; the earlier of equal ones; None if there is none that is a number."""
    real = [one for one in found if math.isfinite(one[1])]
    return (max if higher else min)(real, key=lambda one: one[1], default=None)


def since_better(found: Scores, higher: bool, threshold: float) -> int:
    """Return how many validations in a row, up to the newest, were not better than the best before by `threshold`.

    Args:
        found: (step, value) of each validation, oldest first.
        higher: whether a higher value is better (accuracy, reward) or a lower one (loss).
        threshold: least improvement that counts, in the metric's unit.
    """
    best, waited = -math.inf, 0
    for _, value in found:
        mark = value if higher else -value
        better = math.isfinite(mark) and mark - best > threshold
        best, waited = (mark, 0) if better else (best, waited + 1)
    return waited


def note_best(folder: Path, watch: Watched, found: Scores) -> int | None:
    """Write best.json beside the checkpoints: the best of those validations whose checkpoint is whole.

    Args:
        folder: the job's checkpoints.
        watch: what says which is the best.
        found: the validations so far.

    Returns:
        its step; None where no checkpoint was validated.
    """
    steps = whole_steps(folder)
    best = best_of([one for one in found if one[0] in steps], watch.higher)
    if best is None:
        return None
    write_json(folder / BEST, {"step": best[0], "metric": watch.name, "value": best[1]})
    return best[0]

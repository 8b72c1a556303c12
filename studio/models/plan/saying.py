"""A plan in words: its one line, a number of weights, a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studio.tunings import TUNINGS, title_of

if TYPE_CHECKING:
    from studio.models.plan.making import Plan


def line_of(plan: Plan) -> str:
    """Say what a run takes in one line."""
    name = f"{title_of(plan.tuning)} r{plan.rank}" if TUNINGS[plan.tuning].adapter else "Full fine-tuning"
    many = "epoch" if plan.epochs == 1 else "epochs"
    updates = "step" if plan.steps == 1 else "steps"
    parts = [
        name,
        f"{weights(plan.trainable)} of {weights(plan.parameters)} trainable",
        f"{plan.epochs:.3g} {many} = {plan.steps:,} {updates}",
        "time not known yet" if plan.seconds is None else f"about {duration(plan.seconds)}",
        f"{plan.total_bytes / 1e9:.1f} of {plan.available_bytes / 1e9:.1f} GB",
    ]
    if plan.ranks > 1:
        parts[-1] += f" for each of {plan.ranks} processes"
    return " · ".join(parts)


def weights(count: int) -> str:
    """A number of weights: 4.88 M, 8.03 B."""
    return f"{count / 1e9:.3g} B" if count >= 1e9 else f"{count / 1e6:.3g} M"


def duration(seconds: float) -> str:
    """Rounded as an estimate should be: 40 s, 2 min 40 s, 1 h 20 min, 3 d 4 h."""
    if seconds < 60:
        return f"{max(5, round(seconds / 5) * 5)} s"
    if seconds < 600:
        whole = round(seconds / 10) * 10
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(round(minutes / 10) * 10, 60)
    if hours < 48:
        return f"{hours} h" + (f" {minutes} min" if minutes else "")
    days, hours = divmod(hours, 24)
    return f"{days} d" + (f" {hours} h" if hours else "")

"""What a training method says of itself; form, checks, plan, charts and docs are made from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number that a method reports.

    Attributes:
        name: its key in the events.
        title: what people call it.
        better: whether lower or higher is better, or neither.
    """

    name: str
    title: str
    better: str


@dataclass(frozen=True)
class Method:
    """A training method.

    Attributes:
        name: its word in the config.
        title: what the page calls it.
        summary: what it is for, in a few words.
        needs: shapes of rows that it can use.
        metrics: what it reports beside loss and learning rate.
    """

    name: str
    title: str
    summary: str
    needs: tuple[str, ...]
    metrics: tuple[Metric, ...]

"""What a training method says of itself; form, checks, plan, charts and docs are made from it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from studio.config.method import ROWS, MethodName, RowKind
from studio.models.plan.memory import MethodCost

if TYPE_CHECKING:
    from studio.train.setup import Setup


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
    better: Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Method:
    """A training method.

    Attributes:
        name: its word in the config.
        title: what the page calls it.
        summary: what it is for, in a few words.
        columns: the keys of a row that it needs, in words.
        metrics: what it reports beside loss and learning rate; the first one is the one to watch.
        cost: what it computes for an example beside one pass of the model.
        trainer: module in `studio.train.trainers` whose `build` makes its trainer.
        beta: what `method.beta: auto` means.
        result: the trained model answers, or scores answers.
        paper: where the method comes from.
        differs: how it differs from TRL's trainer and why.
    """

    name: MethodName
    title: str
    summary: str
    columns: str
    metrics: tuple[Metric, ...]
    cost: MethodCost
    trainer: str
    paper: str
    beta: float = 0.0
    result: Literal["model", "scorer"] = "model"
    differs: str = ""

    @property
    def rows(self) -> RowKind:
        """What its rows are."""
        return ROWS[self.name]

    def build(self, setup: Setup) -> Any:
        """Make the trainer; torch and TRL are imported here, not with the description."""
        module = importlib.import_module(f"studio.train.trainers.{self.trainer}")
        return module.build(setup)

"""What a training method says of itself; form, checks, plan, charts and docs are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from studio.option import Options

# What a method learns from: answers to imitate, pairs of a better and a worse one, answers rated good or bad, or
# prompts whose answers it writes itself.
RowKind = Literal["answers", "pairs", "rated", "prompts"]
TrainOn = Literal["assistant", "turns", "last", "all"]
# The sources of rates that several methods share.
OURS = "rule of thumb of the studio, not benchmarked"


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
class Rate:
    """One rule for `training.learning_rate: auto`, for AdamW and batches of about 8.

    Attributes:
        adapter: for a new or existing adapter, whatever holds the weights beside it; False for full tuning.
        below: for models of fewer parameters; the first rule that fits is taken.
        value: the rate.
        reason, source: why, and who says so; shown in the plan and in docs/methods.md.
    """

    adapter: bool
    below: float
    value: float
    reason: str
    source: str


@dataclass(frozen=True)
class MethodCost:
    """What a method computes for an example, beside one pass of the model over one sequence.

    Attributes:
        sequences: sequences of an example that are computed together (chosen and rejected).
        reference: a frozen reference is asked: a second model with full tuning, the adapter off otherwise; "beta" where
            only a `method.beta` above 0 asks it.
        logits: where logits are made: at supervised positions in chunks, at every position in tiles of TRL's fused
            head, at every position at once, or nowhere (a score).
        generates: answers are written in training, which needs a cache of keys and values.
        value: a value head is trained beside the policy; where an adapter is trained, a reward model that is an adapter
            too lies over the same base.
    """

    sequences: int = 1
    reference: Literal["always", "beta", "never"] = "never"
    logits: Literal["supervised", "tiles", "full", "none"] = "supervised"
    generates: bool = False
    value: bool = False


@dataclass(frozen=True)
class Asked:
    """What a method's own checks look at beside its options.

    Attributes:
        batch_size, micro_batch_size: section `training`.
        rows: how many there are to train on; None while they were not read.
        good: how many of them are rated good; None where they are not rated, or were not read.
    """

    batch_size: int
    micro_batch_size: int | str
    rows: int | None = None
    good: int | None = None


@dataclass(frozen=True)
class Method:
    """A training method; one that does something else than most overrides the functions below.

    Attributes:
        name: its word in the config.
        title: what the page calls it.
        summary: what it is for, in a few words.
        sentence: the same as the help of `method.name` says it.
        rows: what it learns from.
        columns: the keys of a row that it needs, in words.
        options: its options, which `MethodConfig` inherits.
        metrics: what it reports beside loss and learning rate; the first one is the one to watch.
        rates: what `training.learning_rate: auto` means.
        cost: what it computes for an example beside one pass of the model.
        trainer: module in `studio.train.trainers` whose `build` makes its trainer.
        paper: where the method comes from.
        beta: what `method.beta: auto` means.
        result: the trained model answers, or scores answers.
        padding_free: `training.padding_free` goes with it.
        unsloth: the engine of that name has it.
        shards: its trainer goes with weights that are divided over several devices (FSDP2).
        mixed: its rows are shuffled once, before the trainer has them, and not in each epoch.
        exact: what `data.prepare.batches` collates is the trainer's own batch.
        plain: texts are read as they are, never as conversations.
        formerly: (method, option, word) that meant this one before it had a name of its own.
        differs: how it differs from TRL's trainer and why.
    """

    name: str
    title: str
    summary: str
    sentence: str
    rows: RowKind
    columns: str
    options: type[Options]
    metrics: tuple[Metric, ...]
    rates: tuple[Rate, ...]
    cost: MethodCost
    trainer: str
    paper: str
    beta: float = 0.0
    result: Literal["model", "scorer"] = "model"
    padding_free: bool = False
    unsloth: bool = False
    shards: bool = False
    mixed: bool = False
    exact: bool = False
    plain: bool = False
    formerly: tuple[str, str, str] | None = None
    differs: str = ""

    @property
    def online(self) -> bool:
        """Whether it learns from answers that it writes itself."""
        return self.cost.generates

    def check(self, options: Any, asked: Asked) -> None:
        """Refuse options, or rows, with which it cannot work.

        Raises:
            InputError: they do not go together.
        """

    def train_on(self, options: Any) -> TrainOn:
        """Which tokens of an example count."""
        return "assistant"

    def joins(self, options: Any) -> bool:
        """Whether rows are joined to sequences of the maximum length."""
        return False

    def by_length(self, options: Any) -> bool:
        """Whether rows of like length may be computed together: the loss is a mean over an update's tokens or pairs."""
        return False

    def deals(self, options: Any) -> bool:
        """Whether the loss is that of a whole update however many of its rows are computed at a time, so that several
        devices may share them, although rows of like length are not put together.
        """
        return False

    def by_part(self, options: Any) -> str:
        """What TRL takes from each micro-batch and the studio from a whole update; "" for nothing."""
        return ""

    def loss(self, options: Any) -> str:
        """Name of its loss, where its trainer has several."""
        return ""

    def least_rows(self, options: Any) -> int:
        """How many rows must be computed together at least."""
        return 1

    def completions(self, options: Any) -> int:
        """How many examples of a batch each row becomes."""
        return 1

    def updates(self, options: Any) -> int:
        """How many updates are made from each batch."""
        return 1

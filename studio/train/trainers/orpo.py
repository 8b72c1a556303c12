"""TRL's ORPOTrainer, and CPOTrainer for simpo and cpo, on our tokens.

Both come from TRL's older code: their collator wants input ids, attention mask and labels of each answer, with the
prompt in front and not counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from datasets import Dataset
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from studio.data.prepare.units import Pair
from studio.train.loop.counting import Counting, finish
from studio.train.ranks import sharing
from studio.train.setup import Setup, common_arguments, trainer_parts
from studio.train.trainers.columns import token_dataset
from studio.train.trainers.grouped import GroupedPairs, Inputs, Parts
from studio.train.trainers.sharded import Sharded, sharding_arguments

# CPOTrainer's options for the losses that it computes.
_CONTRASTIVE: dict[str, dict[str, Any]] = {
    "simpo": {"loss_type": "simpo", "cpo_alpha": 0.0},
    "cpo": {"loss_type": "sigmoid", "cpo_alpha": 1.0},
}


class _Pairs(GroupedPairs, Counting, Sharded):
    """Puts an update's loss together from its micro-batches: a mean over pairs, and one over tokens of better answers.

    TRL's is the sum of both for each micro-batch; so the second is made to count as many tokens as it has.
    """

    read = "chosen_labels"  # the column whose tokens count in the likelihood of the better answers
    _usual = 1.0
    engine_forward: Callable[[Any, Inputs], Any] | None = None  # `engine.logprobs`, in place of TRL's

    @property
    def _metrics(self) -> Any:
        return self._stored_metrics  # type: ignore[attr-defined]

    def weight(self, inputs: Inputs) -> int:
        """Pairs of a micro-batch."""
        return len(inputs["chosen_input_ids"])

    def rows_of(self, inputs: Any) -> int:
        """How many pairs these are."""
        return inputs.rows if isinstance(inputs, Parts) else self.weight(inputs)

    def length_of(self, row: Any) -> int:
        """Tokens of the longer answer with its prompt."""
        return max(len(row["chosen_input_ids"]), len(row["rejected_input_ids"]))

    def concatenated_forward(self, model: Any, batch: Inputs) -> Any:
        """Log-probabilities and logits of both answers, and the likelihood of the better ones.

        Args:
            model: passed on.
            batch: a micro-batch.
        """
        compute = self.engine_forward or super().concatenated_forward  # type: ignore[misc]
        first, second, third, fourth, likelihood, *rest = compute(model, batch)
        if self.whole:
            likelihood = likelihood * self._counted(batch) / self.weight(batch) / self._usual
        return first, second, third, fourth, likelihood, *rest

    def look(self, model: Any, inputs: Parts) -> None:
        """Count tokens of a pair, in the mean of the update.

        Args:
            model: not read.
            inputs: the micro-batches.
        """
        real = inputs.micro_batches[: inputs.real]
        tokens, pairs = sharing.total([sum(map(self._counted, real)), sum(map(self.weight, real))])
        self._usual = max(1.0, tokens) / max(1.0, pairs)

    def _counted(self, inputs: Inputs) -> float:
        ignored = -100 if self.read.endswith("labels") else 0
        return float((inputs[self.read][:, 1:] != ignored).sum())


class OddsRatioTrainer(_Pairs, ORPOTrainer):
    """ORPO on token ids; the likelihood is that of prompt and answer."""

    read = "chosen_attention_mask"


class ContrastiveTrainer(_Pairs, CPOTrainer):
    """SimPO and CPO on token ids."""


class _Tokenized(Dataset):
    """Rows that are ready: the trainers' own steps of preparing them change nothing."""

    def map(self, *args: Any, **kwargs: Any) -> _Tokenized:
        """Return the rows as they are."""
        return self


def build(setup: Setup) -> OddsRatioTrainer | ContrastiveTrainer:
    """Put model, rows and arguments together."""
    method = setup.config.method
    # Rows are within data.max_length already; these trainers ask for a limit all the same.
    common = common_arguments(setup) | sharding_arguments(setup)
    common |= {"beta": setup.beta, "max_length": setup.config.data.limit}
    common["remove_unused_columns"] = False
    loss = _CONTRASTIVE.get(method.kind.loss(method))
    if loss is None:
        arguments: Any = ORPOConfig(**common)
        kind: Any = OddsRatioTrainer
    else:
        arguments, kind = CPOConfig(**common, **loss, simpo_gamma=method.simpo_gamma), ContrastiveTrainer
    loaded = [(weight, weight.dtype) for weight in setup.model.parameters()]
    trainer: OddsRatioTrainer | ContrastiveTrainer = kind(args=arguments, **trainer_parts(setup, _dataset))
    # Over a quantised base these older trainers make norms float32, and with them what every layer computes with.
    for weight, dtype in loaded:
        if not weight.requires_grad:
            weight.data = weight.data.to(dtype)
    return finish(trainer, setup)


def _dataset(rows: list[Pair]) -> _Tokenized:
    columns: dict[str, Iterable[list[int]]] = {"prompt_input_ids": map(attrgetter("prompt_ids"), rows)}
    for name in ("chosen", "rejected"):
        columns |= _answer_columns(name, rows)
    return _Tokenized(token_dataset(None, **columns).data)


def _answer_columns(name: str, rows: list[Pair]) -> dict[str, Iterable[list[int]]]:
    answer = attrgetter(f"{name}_ids")
    return {
        f"{name}_input_ids": (row.prompt_ids + answer(row) for row in rows),
        f"{name}_attention_mask": ([1] * (len(row.prompt_ids) + len(answer(row))) for row in rows),
        f"{name}_labels": ([-100] * len(row.prompt_ids) + answer(row) for row in rows),
    }

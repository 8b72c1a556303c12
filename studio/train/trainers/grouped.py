"""An update computed in micro-batches of rows of like length, by tokens or by rows (`models.plan.batches`).

transformers fetches an update's rows as one batch, in its own order, which is what a run that goes on skips; here they
are put together by length, and the losses added up with the weight that each micro-batch has in the whole: its tokens
or its pairs. So neither the rows of an update nor its loss depend on how many are computed at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch

from studio.data.prepare.batch import row_length
from studio.models.plan.batches import Batching, split
from studio.train.setup import Setup

Inputs = dict[str, Any]


class Parts:
    """The micro-batches of an update. Not a list: accelerate would walk through everything in it.

    Attributes:
        micro_batches: what the trainer's collator makes of the rows of each.
        rows: of all of them.
    """

    def __init__(self, micro_batches: list[Inputs], rows: int) -> None:
        self.micro_batches, self.rows = micro_batches, rows


class Collator:
    """Makes `Parts` of the rows of an update.

    Args:
        collate: makes tensors of rows.
        batching: how much is computed at a time.
        sequences: of a row that are computed together.
    """

    def __init__(self, collate: Callable[[list[Inputs]], Inputs], batching: Batching, sequences: int) -> None:
        self._collate, self._batching, self._sequences = collate, batching, sequences

    def __call__(self, rows: list[Inputs]) -> Parts:
        """Sort and collate the rows."""
        parts = split([row_length(row) for row in rows], self._batching, self._sequences)
        return Parts([self._collate([rows[at] for at in part]) for part in parts], len(rows))


class Grouped:
    """Put before `Counting` and a trainer class; works where `setup.common_arguments` gives it whole updates."""

    setup: Setup
    sequences = 1

    def weight(self, inputs: Inputs) -> int:
        """What a micro-batch counts in the loss of the whole: its supervised tokens."""
        return int((inputs["labels"][:, 1:] != -100).sum())

    def rows_of(self, inputs: Any) -> int:
        """How many rows these are; those of a packed row each begin at position 0."""
        if isinstance(inputs, Parts):
            return inputs.rows
        if "position_ids" in inputs and "attention_mask" not in inputs:
            return int((inputs["position_ids"] == 0).sum())
        return int(inputs["input_ids"].shape[0]) // self.sequences

    def total_weight(self, rows: list[Any]) -> int:
        """What these rows count together."""
        return sum(row.supervised - (row.labels[0] != -100) for row in rows)

    @cached_property
    def _row_weight(self) -> float:
        rows = self.setup.validation
        return max(1, self.total_weight(rows)) / max(1, len(rows))

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's own, whose batches are `Parts`."""
        if not self.setup.by_length:
            return super()._get_dataloader(*args, **kwargs)  # type: ignore[misc]
        collate: Any = self.data_collator
        self.data_collator: Any = Collator(collate, self.setup.plan.batching, self.sequences)
        try:
            return super()._get_dataloader(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.data_collator = collate

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
        inner = [one for sample in batch_samples for one in _micro_batches(sample)]
        return super()._get_num_items_in_batch(inner, device)  # type: ignore[misc]

    def floating_point_ops(self, inputs: Any) -> int:
        """Operations of all micro-batches, as transformers estimates them."""
        return sum(super(Grouped, self).floating_point_ops(one) for one in _micro_batches(inputs))  # type: ignore[misc]

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of an update, a micro-batch at a time; returns its loss.

        Args:
            model: passed on.
            inputs: `Parts`, the micro-batches of a whole update; anything else is left to the trainer.
            num_items_in_batch: what a summed loss is divided by; None where the trainer uses means.
        """
        if not isinstance(inputs, Parts):
            return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        parts = inputs.micro_batches
        weights = [self.weight(part) for part in parts]
        losses: list[torch.Tensor] = []
        for part, _ in self._each("train", parts, weights, inputs.rows):
            # A loss that is a mean over its micro-batch is divided by this: so it has its share in the whole.
            self.current_gradient_accumulation_steps = sum(weights) / max(1, weights[len(losses)])
            last = len(losses) == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(model):  # type: ignore[attr-defined]
                losses.append(super().training_step(model, part, num_items_in_batch))  # type: ignore[misc]
        return torch.stack(losses).sum()

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """Loss of some validation rows; a mean of what this returns over all rows is the mean over tokens or pairs.

        Args:
            model: passed on.
            inputs: `Parts`, or one micro-batch.
            prediction_loss_only: taken as True; no logits are returned.
            ignore_keys: passed on.
        """
        parts, rows = _micro_batches(inputs), self.rows_of(inputs)
        weights = [self.weight(part) for part in parts]
        whole = torch.zeros((), device=self.args.device)  # type: ignore[attr-defined]
        for part, weight in self._each("eval", parts, weights, rows):
            loss, _, _ = super().prediction_step(model, part, True, ignore_keys)  # type: ignore[misc]
            whole += weight * loss.float().mean()
        return whole / self._row_weight / rows, None, None

    def _each(self, mode: str, parts: list[Inputs], weights: list[int], rows: int) -> Iterator[tuple[Inputs, int]]:
        """Go through micro-batches. TRL reports means over them: their numbers are made the update's, once a row."""
        kept: dict[str, list[float]] = self._metrics[mode]  # type: ignore[attr-defined]
        before = {name: len(values) for name, values in kept.items()}
        yield from zip(parts, weights, strict=True)
        for name, values in kept.items():
            start = before.get(name, 0)
            if len(values) - start == len(parts) > 0 and name != "num_tokens":
                mean = sum(one * weight for one, weight in zip(values[start:], weights, strict=True))
                values[start:] = [mean / max(1, sum(weights))] * rows


class GroupedPairs(Grouped):
    """Where the loss is a mean over pairs."""

    sequences = 2

    def weight(self, inputs: Inputs) -> int:
        """Pairs of a micro-batch: their better answers come first, then the others."""
        return int(inputs["input_ids"].shape[0]) // 2

    def total_weight(self, rows: list[Any]) -> int:
        """How many pairs these are."""
        return len(rows)


def _micro_batches(inputs: Any) -> list[Inputs]:
    return inputs.micro_batches if isinstance(inputs, Parts) else [inputs]

"""An update computed in micro-batches of rows of like length, by tokens or by rows (`models.plan.batches`).

transformers fetches an update's rows as one batch, in its own order, which is what a run that goes on skips; here they
are put together by length, and the losses added up with the weight that each micro-batch has in the whole: its tokens
or its pairs. So neither the rows of an update nor its loss depend on how many are computed at a time.

Where several ranks train, each fetches the same rows and computes a part of them, all ranks equally many micro-batches:
one that has fewer computes a row once more without weight. What is counted and reported is added up over the ranks, so
that each of them is at any time where a single process would be; rows, loss and schedule do not depend on their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from transformers.trainer_pt_utils import safe_globals

from studio.data.prepare.batch import row_length
from studio.models.plan.batches import Batching, shares, split
from studio.train.ranks import sharing
from studio.train.setup import Setup

Inputs = dict[str, Any]
# What TRL notes for each micro-batch beside means over it.
_NO_MEANS = ("num_tokens", "step_time")


class Parts:
    """The micro-batches of an update. Not a list: accelerate would walk through everything in it.

    Attributes:
        micro_batches: what the trainer's collator makes of the rows of each that this rank computes.
        rows: of the update, on all ranks.
        real: how many of the micro-batches count; those behind them only keep pace with the other ranks.
    """

    def __init__(self, micro_batches: list[Inputs], rows: int, real: int) -> None:
        self.micro_batches, self.rows, self.real = micro_batches, rows, real


def deal(lengths: list[int], batching: Batching, sequences: int = 1) -> tuple[list[list[int]], int]:
    """Return the places of this rank's rows in micro-batches, as many as every rank has, and how many of them count.

    Args:
        lengths: (N,) tokens of each row's longest sequence, the same on all ranks.
        batching: how much is computed at a time.
        sequences: of a row that are computed together.
    """
    dealt = [
        [[share[at] for at in part] for part in split([lengths[at] for at in share], batching, sequences)]
        for share in shares(lengths, sharing.count())
    ]
    own = dealt[sharing.number()]
    shortest = min(range(len(lengths)), key=lengths.__getitem__)
    return own + [[shortest]] * (max(map(len, dealt)) - len(own)), len(own)


class Collator:
    """Makes `Parts` of the rows of an update.

    Args:
        collate: makes tensors of rows.
        batching: how much is computed at a time.
        sequences: of a row that are computed together.
        length: tokens of a row's longest sequence.
    """

    def __init__(
        self, collate: Callable[[list[Inputs]], Inputs], batching: Batching, sequences: int,
        length: Callable[[Any], int] = row_length,
    ) -> None:  # fmt: skip
        self._collate, self._batching, self._sequences, self._length = collate, batching, sequences, length

    def __call__(self, rows: list[Inputs]) -> Parts:
        """Sort and collate the rows of this rank."""
        parts, real = deal([self._length(row) for row in rows], self._batching, self._sequences)
        return Parts([self._collate([rows[at] for at in part]) for part in parts], len(rows), real)


class Grouped:
    """Put before `Counting` and a trainer class; works where `setup.common_arguments` gives it whole updates."""

    setup: Setup
    sequences = 1
    collates = True
    own_tokens: int  # of `Counting`

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

    @property
    def whole(self) -> bool:
        """Whether every rank fetches whole updates, of which it computes a part."""
        return self.setup.by_length or self.setup.dealt

    def length_of(self, row: Any) -> int:
        """Tokens of a row's longest sequence."""
        return row_length(row)

    def look(self, model: Any, inputs: Parts) -> None:
        """See what an update has as a whole, before any of its micro-batches is computed; nothing here.

        Args:
            model: as it is given to the trainer's steps.
            inputs: the micro-batches.
        """

    def total_weight(self, rows: list[Any]) -> int:
        """What these rows count together."""
        return sum(row.supervised - (row.labels[0] != -100) for row in rows)

    @cached_property
    def _row_weight(self) -> float:
        rows = self.setup.validation
        return max(1, self.total_weight(rows)) / max(1, len(rows))

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's own, whose batches are `Parts`."""
        if not self.whole or not self.collates:
            with self._alone():
                return super()._get_dataloader(*args, **kwargs)  # type: ignore[misc]
        collate: Any = self.data_collator
        self.data_collator: Any = Collator(collate, self.setup.plan.batching, self.sequences, self.length_of)
        try:
            with self._alone():
                return super()._get_dataloader(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.data_collator = collate

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
        inner = [one for sample in batch_samples for one in _micro_batches(sample)]
        with self._alone():
            counted = super()._get_num_items_in_batch(inner, device)  # type: ignore[misc]
        if counted is None or sharing.count() == 1:
            return counted
        own = sum(self.weight(one) for sample in batch_samples for one in sample.micro_batches[: sample.real])
        return torch.tensor(sharing.total([own])[0], device=device)

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
        model.train()  # which a validation may have left otherwise
        self.look(model, inputs)
        parts, ranks = inputs.micro_batches, sharing.count()
        weights = self._weights(inputs)
        whole = sharing.total([sum(weights)])[0]
        before = self.tokens_seen, self.supervised_seen
        losses: list[torch.Tensor] = []
        for part, weight in self._each("train", parts, weights, inputs.rows):
            # A loss that is a mean over its micro-batch is divided by this: so it has its share in the whole, of which
            # DDP takes the mean over the ranks.
            self.current_gradient_accumulation_steps = whole / max(1, weight) / ranks
            items = num_items_in_batch
            if len(losses) >= inputs.real:  # in step with the other ranks, without weight
                self.current_gradient_accumulation_steps = math.inf
                items = None if items is None else torch.full_like(items, math.inf)
            with self._alone(), self._adding_up(model, last=len(losses) == len(parts) - 1):
                losses.append(super().training_step(model, part, items))  # type: ignore[misc]
            if len(losses) == inputs.real:
                counted = self.tokens_seen, self.supervised_seen
        loss = torch.stack(losses).sum()
        return loss if ranks == 1 else self._of_all_ranks(loss, before, counted if inputs.real else before)

    def _adding_up(self, model: Any, *, last: bool) -> Any:
        """Within, gradients are added to those before, and with the last micro-batch brought to the other ranks.

        Divided gradients are brought there each time: whole ones might not fit.
        """
        accelerator: Any = self.accelerator  # type: ignore[attr-defined]
        if self.is_deepspeed_enabled:  # type: ignore[attr-defined]
            accelerator.gradient_state._set_sync_gradients(last)  # with which DeepSpeed makes its step
        divided = self.is_deepspeed_enabled or self.is_fsdp_enabled  # type: ignore[attr-defined]
        return nullcontext() if last or divided else accelerator.no_sync(model)

    def _of_all_ranks(self, loss: torch.Tensor, before: tuple[int, int], counted: tuple[int, int]) -> torch.Tensor:
        """Add up what the ranks have counted of an update; returns its whole loss.

        Args:
            loss: of this rank's part, times the number of ranks.
            before, counted: tokens and supervised tokens before the update, and after this rank's part.
        """
        mine = [float(loss), *(now - then for now, then in zip(counted, before, strict=True))]
        summed, tokens, supervised = sharing.total(mine)
        self.own_tokens += counted[0] - before[0]
        self.tokens_seen, self.supervised_seen = before[0] + round(tokens), before[1] + round(supervised)
        figures: dict[str, list[float]] = self._metrics["train"]  # type: ignore[attr-defined]
        if "num_tokens" in figures:  # TRL's own count, for trackers
            figures["num_tokens"] = [float(self.tokens_seen)]
        return torch.full_like(loss, summed / sharing.count())

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
        if isinstance(inputs, Parts):
            self.look(model, inputs)
        parts, rows = _micro_batches(inputs), self.rows_of(inputs)
        weights = self._weights(inputs)
        whole = torch.zeros((), device=self.args.device)  # type: ignore[attr-defined]
        for part, weight in self._each("eval", parts, weights, rows):
            loss, _, _ = super().prediction_step(model, part, True, ignore_keys)  # type: ignore[misc]
            whole += weight * loss.float().mean()
        if sharing.count() > 1:
            whole.fill_(sharing.total([float(whole)])[0])
        return whole / self._divisor(weights, rows), None, None

    def _divisor(self, weights: list[int], rows: int) -> float:
        """What the loss of so many validation rows, added up with these weights, is divided by."""
        return self._row_weight * rows

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's own. Every rank goes through all rows, so there is nothing to gather."""
        with self._alone():
            return super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]

    def _weights(self, inputs: Any) -> list[int]:
        """What each micro-batch counts; 0 for those that only keep pace."""
        parts = _micro_batches(inputs)
        real = inputs.real if isinstance(inputs, Parts) else len(parts)
        return [self.weight(part) if at < real else 0 for at, part in enumerate(parts)]

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Go on with the numbers of the first rank, or of the only one, however many ranks wrote the checkpoint."""
        super()._load_rng_state(checkpoint)  # type: ignore[misc]
        if checkpoint is None or sharing.number():
            return
        for name in ("rng_state_0.pth", "rng_state.pth"):
            if (Path(checkpoint) / name).is_file():
                with safe_globals():
                    torch.set_rng_state(torch.load(Path(checkpoint) / name, weights_only=True)["cpu"])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within, accelerate acts as if this were the only rank: loaders give all rows, and nothing is gathered.

        TRL gathers its figures in every micro-batch, of which `_each` makes those of the update.
        """
        accelerator: Any = self.accelerator  # type: ignore[attr-defined]
        if sharing.count() == 1 or not self.whole or "gather" in vars(accelerator):
            yield
            return
        accelerator.gather = _same  # on which gather_for_metrics builds, that cuts the last batch to its rows
        accelerator.reduce = _same
        accelerator.prepare_data_loader = self._whole_loader
        try:
            yield
        finally:
            for name in ("gather", "reduce", "prepare_data_loader"):
                delattr(accelerator, name)

    def _whole_loader(self, loader: Any, device_placement: bool | None = None, **_: Any) -> Any:
        accelerator: Any = self.accelerator  # type: ignore[attr-defined]
        made = prepare_data_loader(
            loader, accelerator.device, num_processes=1, process_index=0,
            put_on_device=accelerator.device_placement if device_placement is None else device_placement,
            use_seedable_sampler=accelerator.use_seedable_sampler, non_blocking=accelerator.non_blocking,
        )  # fmt: skip
        accelerator._dataloaders.append(made)
        return made

    def _each(self, mode: str, parts: list[Inputs], weights: list[int], rows: int) -> Iterator[tuple[Inputs, int]]:
        """Go through micro-batches. TRL reports means over them: their numbers are made the update's, once a row."""
        kept: dict[str, list[float]] = self._metrics[mode]  # type: ignore[attr-defined]
        before = {name: len(values) for name, values in kept.items()}
        yield from zip(parts, weights, strict=True)
        names = sorted(
            name
            for name, values in kept.items()
            if len(values) - before.get(name, 0) == len(parts) > 0 and name not in _NO_MEANS
        )
        added = [
            sum(one * weight for one, weight in zip(kept[name][before.get(name, 0) :], weights, strict=True))
            for name in names
        ]
        *summed, whole = sharing.total([*added, sum(weights)])
        for name, mean in zip(names, summed, strict=True):
            kept[name][before.get(name, 0) :] = [mean / max(1, whole)] * rows


class GroupedPairs(Grouped):
    """Where the loss is a mean over pairs."""

    sequences = 2

    def weight(self, inputs: Inputs) -> int:
        """Pairs of a micro-batch: their better answers come first, then the others."""
        return int(inputs["input_ids"].shape[0]) // 2

    def total_weight(self, rows: list[Any]) -> int:
        """How many pairs these are."""
        return len(rows)


def _same(value: Any, *args: Any, **kwargs: Any) -> Any:
    return value


def _micro_batches(inputs: Any) -> list[Inputs]:
    return inputs.micro_batches if isinstance(inputs, Parts) else [inputs]

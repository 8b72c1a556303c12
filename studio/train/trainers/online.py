"""Answers that a model writes to learn from them, shared by the ranks of a run: for GRPO and RLOO.

Every rank goes through TRL's code with all prompts of an update, as a single process does, so that groups, advantages
and figures are those of a single process. What takes time is dealt out and exchanged: each rank writes some of the
answers, with the random numbers that a single process would draw for them, and looks up some log-probabilities of the
reference; then it learns from as many and as long answers as any other (`grouped`).

On GPUs every rank draws numbers of its own, so that its answers are other ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from trl.trainer.utils import RepeatSampler

from studio.train.loop.counting import Counting
from studio.train.ranks import sharing
from studio.train.trainers.grouped import Grouped, Inputs, Parts, deal
from studio.train.trainers.rollouts import drawn_together, in_batches
from studio.train.trainers.sharded import Sharded, gathered
from studio.writing.loop import Places
from studio.writing.quick import quicker

SAMPLES_SHOWN = 4
_ANSWERS = ("completion_ids", "completion_mask", "ref_per_token_logps", "old_per_token_logps")


class Epochs(RepeatSampler):
    """TRL's order of the prompts, also where a run goes on in a later epoch: TRL's would begin with the first one's.

    The last batch of an epoch is filled up from its first prompts; TRL leaves out those that fill no batch.
    """

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.num_samples))
        if self.shuffle:
            order = torch.randperm(self.num_samples, generator=self.generator).tolist()
        for batch in in_batches(order, self.batch_size):
            yield from [place for place in batch for _ in range(self.mini_repeat_count)] * self.repeat_count

    def __len__(self) -> int:
        batches = math.ceil(int(self.num_samples) / int(self.batch_size))
        return batches * int(self.batch_size * self.mini_repeat_count * self.repeat_count)

    def set_epoch(self, epoch: int) -> None:
        """Draw the orders of the epochs before, which the order of this one follows."""
        if self.shuffle:
            self.generator.manual_seed(self.seed)
            for _ in range(epoch):
                torch.randperm(self.num_samples, generator=self.generator)


class Online(Grouped, Counting, Sharded):
    """Put before TRL's GRPOTrainer or RLOOTrainer: writes, counts and reports answers."""

    collates = False  # the prompts stay as they are until they are answered
    by_token = False
    with_logps = True  # TRL's method that writes answers returns their log-probabilities beside them
    _scoring = False

    def _get_train_sampler(self, dataset: Any = None) -> Epochs:
        made = super()._get_train_sampler(dataset)  # type: ignore[misc]
        return Epochs(
            made.data_source, made.mini_repeat_count, made.batch_size, made.repeat_count, made.shuffle, made.seed
        )

    def count(self, inputs: Any) -> None:
        """The prompts of a micro-batch have no tokens yet; `training_step` takes the trainer's own count."""

    def weight(self, inputs: Inputs) -> int:
        """What a micro-batch counts in the loss of the update: its answers, or their tokens."""
        return _tokens(inputs) if self.by_token else len(inputs["completion_mask"])

    def rows_of(self, inputs: Any) -> int:
        """How many answers these are."""
        return inputs.rows if isinstance(inputs, Parts) else len(inputs["completion_mask"])

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Write answers where it is time, learn from them, and count the tokens of both.

        Args:
            model: passed on.
            inputs: rows of a whole update; of a micro-batch where answers are not dealt out.
            num_items_in_batch: passed on.
        """
        if self.whole:
            self.model.train()  # type: ignore[attr-defined]
            inputs = self._written(inputs)
            torch.randperm(inputs.rows)  # TRL shuffles here: the same numbers follow then as in its runs
            self.tokens_seen = int(self.state.num_input_tokens_seen)  # type: ignore[attr-defined]
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.tokens_seen = int(self.state.num_input_tokens_seen)  # type: ignore[attr-defined]
        return loss

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """Write answers to validation prompts and score them; returns their loss.

        Args:
            model: passed on.
            inputs: rows.
            prediction_loss_only: taken as True.
            ignore_keys: passed on.
        """
        if not self.whole:
            return super(Grouped, self).prediction_step(model, inputs, prediction_loss_only, ignore_keys)  # type: ignore[misc]
        return super().prediction_step(model, self._written(inputs), prediction_loss_only, ignore_keys)

    def _written(self, rows: list[Inputs]) -> Parts:
        """Answers to these rows with all that is learned from, as this rank computes them."""
        self._scoring = True
        try:
            with self._single():
                made = self._generate_and_score_completions(rows)  # type: ignore[attr-defined]
        finally:
            self._scoring = False
        lengths = (made["prompt_mask"].sum(1) + made["completion_mask"].sum(1)).tolist()
        parts, real = deal(lengths, self.setup.plan.batching)
        return Parts([_part(made, part) for part in parts], len(lengths), real)

    def _prepare_inputs(self, inputs: Any) -> Any:
        """Answers that are written already as they are; TRL would write some."""
        if self.whole and isinstance(inputs, dict):
            return inputs
        return super()._prepare_inputs(inputs)  # type: ignore[misc]

    def _divisor(self, weights: list[int], rows: int) -> float:
        return max(1.0, sharing.total([sum(weights)])[0])

    def _each(self, mode: str, parts: list[Inputs], weights: list[int], rows: int) -> Iterator[tuple[Inputs, int]]:
        """Go through micro-batches. TRL's figures of them are means over tokens, whatever the loss is."""
        if not self.whole:
            yield from super()._each(mode, parts, weights, rows)
            return
        tokens = [_tokens(part) if weight else 0 for part, weight in zip(parts, weights, strict=True)]
        for (part, _), weight in zip(super()._each(mode, parts, tokens, rows), weights, strict=True):
            yield part, weight

    @contextmanager
    def _single(self) -> Iterator[None]:
        """Within, this is the only rank also to those functions of accelerate that TRL calls by themselves."""
        states = PartialState(), self.accelerator.state  # type: ignore[attr-defined]
        before = [(state.distributed_type, state.process_index) for state in states]
        try:
            for state in states:
                state.distributed_type, state.process_index = DistributedType.NO, 0
            yield
        finally:
            for state, kept in zip(states, before, strict=True):
                state.distributed_type, state.process_index = kept

    # ---- what is dealt out

    def _generate_single_turn(self, prompt_ids: list[Any], *args: Any, **kwargs: Any) -> Any:
        """Write answers as TRL does, in less time, and computed as training computes them.

        Args:
            prompt_ids: of all prompts.
            args, kwargs: whatever else this version of TRL passes.

        Returns:
            ids of all answers; where TRL's returns log-probabilities, too, with None in their place.
        """
        if not self.whole or sharing.count() == 1:
            return self._write(None, prompt_ids, *args, **kwargs)
        own = sharing.own_share(len(prompt_ids))
        whole = gathered(self.model) if self.is_fsdp_enabled else nullcontext()  # type: ignore[attr-defined]
        with drawn_together(len(prompt_ids)) as places, whole:
            made = self._write(places, [prompt_ids[at] for at in own], *args, **kwargs) if own else None
        ids = [] if made is None else made[0] if self.with_logps else made
        every = sharing.joined(ids)
        return (every, None) if self.with_logps else every

    def _write(self, places: Places | None, *args: Any, **kwargs: Any) -> Any:
        # Around all steps, so that float32 weights are rounded once for them and not for each token.
        with quicker(self.model, places), self.accelerator.autocast():  # type: ignore[attr-defined]
            return super()._generate_single_turn(*args, **kwargs)  # type: ignore[misc]

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, logits_to_keep: int,
        batch_size: int | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Log-probabilities of answers: of a micro-batch, or each rank some of an update's by the frozen reference.

        Args:
            model: which says them.
            input_ids, attention_mask: prompts and answers, (B, P + C).
            logits_to_keep: C.
            batch_size: not read where an update is whole; then it is the plan's.
            kwargs: passed on.
        """
        ask = super()._get_per_token_logps_and_entropies  # type: ignore[misc]
        if not self.whole or not self._scoring:
            return ask(model, input_ids, attention_mask, logits_to_keep, batch_size, **kwargs)
        own = sharing.own_share(len(input_ids))
        # All ranks ask equally often.
        most = -(-len(input_ids) // sharing.count())
        rows = torch.tensor([*own, *[0] * (most - len(own))])
        found, *rest = ask(
            model, input_ids[rows], attention_mask[rows], logits_to_keep, self.setup.plan.micro_batch, **kwargs
        )
        every = sharing.gathered(found[: len(own)].cpu())
        return torch.cat(every).to(found.device), *rest

    # ---- what is reported

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Report the answers of this step with their rewards."""
        kept: Any = self._logs  # type: ignore[attr-defined]
        names = list(kept["rewards"])
        answers = list(zip(kept["prompt"], kept["completion"], strict=True))[-SAMPLES_SHOWN:]
        first = len(kept["prompt"]) - len(answers)
        if self.model.training and answers:  # type: ignore[attr-defined]
            self.setup.on_samples(
                self.state.global_step,  # type: ignore[attr-defined]
                [
                    {
                        "prompt": last_text(prompt),
                        "text": last_text(answer),
                        "rewards": {name: kept["rewards"][name][first + i] for name in names},
                    }
                    for i, (prompt, answer) in enumerate(answers)
                ],
            )
        super().log(logs, start_time)  # type: ignore[misc]


def last_text(value: Any) -> str:
    """The text of an answer or prompt, which TRL gives as messages where the prompt is a conversation."""
    return str(value[-1]["content"]) if isinstance(value, list) and value else str(value or "")


def _tokens(inputs: Inputs) -> int:
    return int(inputs["completion_mask"].sum())


def _part(made: Inputs, places: list[int]) -> Inputs:
    """Some answers. Prompts stay as wide as those of all: some models count positions from the padding."""
    rows = torch.tensor(places)
    part = {name: one[rows] for name, one in made.items() if name != "num_items_in_batch"}
    longest = max(1, int(part["completion_mask"].sum(1).max()))
    for name in _ANSWERS:
        if name in part:
            part[name] = part[name][:, :longest]
    # A mean over an update's tokens is made one over the micro-batch, which `grouped` weights; TRL divides this number
    # by the number of ranks.
    return {**part, "num_items_in_batch": part["completion_mask"].sum() * sharing.count()}

"""What PPO learns from: answers that the policy writes to a batch of prompts, their scores, and both as tensors.

A batch is a dict of tensors, prompts padded at the left and answers at the right, so that all answers begin at P:

    input_ids, attention_mask    (B, P + L)    . . p p p a a a .
    completion_mask              (B, L)                  1 1 1 0
    logps, values, …             (B, L)        figures of the answers' tokens
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import cycle, islice

import torch
from torch.nn import functional
from torch.utils.data import Sampler
from transformers import GenerationConfig

from studio.chat.prompting import turn_end
from studio.data.prepare.units import Prompt
from studio.errors import StudioError
from studio.train.ranks import sharing
from studio.train.rewards.functions import Reward, make_rewards
from studio.train.rewards.scoring import pad_id, scoring_by
from studio.train.setup import Setup
from studio.train.trainers.actors import Actors, SharedScorer
from studio.writing.loop import Places
from studio.writing.quick import quicker

Batch = dict[str, torch.Tensor]
_WHOLE = ("input_ids", "attention_mask")  # of prompt and answer; everything else is of the answer only


class Repeated(Sampler[int]):
    """Places of the rows in batches, each batch as often as it is used; the last is filled up from the first rows.

    Args:
        rows: how many there are.
        batch: rows of a batch.
        times: updates of a batch.
        seed: of the order, another one each epoch; None for the rows' own order.
        epoch: tells which epoch begins.
    """

    def __init__(self, rows: int, batch: int, times: int, seed: int | None, epoch: Callable[[], int]) -> None:
        self._rows, self._batch, self._times, self._seed, self._epoch = rows, batch, times, seed, epoch
        self._batches = math.ceil(rows / batch)

    @property
    def updates(self) -> int:
        """Updates of an epoch."""
        return self._batches * self._times

    def __len__(self) -> int:
        return self.updates * self._batch

    def __iter__(self) -> Iterator[int]:
        order = list(range(self._rows))
        if self._seed is not None:
            generator = torch.Generator().manual_seed(self._seed + self._epoch())
            order = torch.randperm(self._rows, generator=generator).tolist()
        for batch in in_batches(order, self._batch):
            yield from batch * self._times


def in_batches(order: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield places in batches of `size`; the last is filled up from the first places, again and again where need be."""
    places = cycle(order)
    for _ in range(math.ceil(len(order) / size)):
        yield list(islice(places, size))


@contextmanager
def drawn_together(rows: int) -> Iterator[Places]:
    """Within, this rank draws the tokens of its share of some answers (`sharing.own_share`) with the numbers that one
    process would draw for them; behind it the first rank, whose numbers they were, stands where that process would.
    """
    places = Places(torch.tensor(sharing.own_share(rows), dtype=torch.long), rows, torch.Generator())
    places.generator.set_state(sharing.first(torch.get_rng_state))
    yield places
    places.catch_up(int(sharing.most(places.steps)), int(sharing.most(places.width)))
    if sharing.number() == 0:
        torch.set_rng_state(places.generator.get_state())


class Writer:
    """Writes answers with the policy.

    Attributes:
        ends: ids of the tokens that end an answer.
    """

    def __init__(self, setup: Setup, actors: Actors) -> None:
        self._model, self._tokenizer, self._method = actors.base, setup.tokenizer, setup.config.method
        self._pad = pad_id(setup.tokenizer)
        given = getattr(actors.base.generation_config, "eos_token_id", None)
        ends = {self._tokenizer.eos_token_id, *(given if isinstance(given, list) else [given])}
        if self._tokenizer.chat_template is not None:
            ends.add(turn_end(self._tokenizer))  # where the template ends a turn with another token, as chat knows
        self.ends = sorted(end for end in ends if end is not None)

    def write(self, prompts: Sequence[Prompt], sample: bool) -> Batch:
        """Write one answer to each prompt, by torch's global random numbers, or greedily; each rank writes some.

        The model's own generation settings (its top_p, its repetition penalty) are left out: PPO needs the
        probabilities that the answers were really drawn with.
        """
        device = self._model.device
        width = max(prompt.length for prompt in prompts)
        ids = torch.full((len(prompts), width), self._pad, device=device)
        attention = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            ids[i, width - prompt.length :] = torch.tensor(prompt.prompt_ids, device=device)
            attention[i, width - prompt.length :] = 1
        drawn = {"temperature": self._method.temperature, "top_k": 0, "top_p": 1.0} if sample else {}
        config = GenerationConfig(
            do_sample=sample, max_new_tokens=self._method.max_completion_length, use_cache=True,
            eos_token_id=self.ends or None, pad_token_id=self._pad, **drawn,
        )  # fmt: skip
        answers = self._answers(ids, attention, config)
        ended = torch.isin(answers, torch.tensor(self.ends, device=device)).long()
        mask = (ended.cumsum(-1) - ended == 0).long()  # up to the first token that ends the answer, and that token
        return {
            "input_ids": torch.cat([ids, answers], 1), "attention_mask": torch.cat([attention, mask], 1),
            "completion_mask": mask,
        }  # fmt: skip

    def _answers(self, ids: torch.Tensor, attention: torch.Tensor, config: GenerationConfig) -> torch.Tensor:
        """Answers (B, L) to prompts (B, P) as one process would write them, however many write some of them."""
        if sharing.count() == 1:
            return self._generate(ids, attention, config)
        rows = len(ids)
        share = sharing.own_share(rows)
        own = slice(share.start, share.stop)
        with drawn_together(rows) if config.do_sample else nullcontext() as places:
            written = self._generate(ids[own], attention[own], config, places) if share else ids[:0, :0]
        every = [some for some in sharing.gathered(written.cpu()) if len(some)]
        longest = max(some.shape[1] for some in every)
        filled = [functional.pad(some, (0, longest - some.shape[1]), value=self._pad) for some in every]
        return torch.cat(filled).to(ids.device)

    def _generate(
        self, ids: torch.Tensor, attention: torch.Tensor, config: GenerationConfig, places: Places | None = None
    ) -> torch.Tensor:
        """Answers (B, L) to prompts (B, P), by the model's own method."""
        kept, self._model.generation_config = self._model.generation_config, config
        try:
            with quicker(self._model, places):
                written: torch.Tensor = self._model.generate(ids, attention_mask=attention)
        finally:
            self._model.generation_config = kept
        return written[:, ids.shape[1] :]

    def texts(self, batch: Batch) -> list[str]:
        """The answers as text, without the tokens that end them."""
        answers = batch["input_ids"][:, -batch["completion_mask"].shape[1] :].tolist()
        lengths = batch["completion_mask"].sum(-1).tolist()
        return [
            self._tokenizer.decode([one for one in ids[:length] if one not in self.ends], skip_special_tokens=True)
            for ids, length in zip(answers, lengths, strict=True)
        ]


def micro_batches(batch: Batch, size: int) -> Iterator[Batch]:
    """Cut a batch into some of `size` answers, each without padding that it does not need."""
    length = batch["completion_mask"].shape[1]
    width = batch["input_ids"].shape[1] - length
    for at in range(0, len(batch["input_ids"]), size):
        part = {name: tensor[at : at + size] for name, tensor in batch.items()}
        asked = int(part["attention_mask"][:, :width].sum(-1).max())
        answered = int(part["completion_mask"].sum(-1).max())
        whole = slice(width - asked, width + answered)
        yield {name: tensor[:, whole if name in _WHOLE else slice(answered)] for name, tensor in part.items()}


def rows_of(batch: Batch, places: range) -> Batch:
    """Some answers of a batch, one behind the other."""
    return {name: tensor[places.start : places.stop] for name, tensor in batch.items()}


@dataclass
class Experience:
    """A batch of answers with all that its updates need, and the figures that are reported of it."""

    batch: Batch
    figures: dict[str, float]


@dataclass(frozen=True)
class Scored:
    """Scores of some answers.

    Attributes:
        totals: weighted sums, where a reward that is None counts 0.
        parts: the rewards by name.
    """

    totals: list[float]
    parts: dict[str, list[float | None]]

    @property
    def mean(self) -> float:
        """Mean of the totals."""
        return sum(self.totals) / len(self.totals)

    def means(self) -> dict[str, float]:
        """Mean of each reward over the answers that it could score."""
        given = {name: [one for one in values if one is not None] for name, values in self.parts.items()}
        return {f"rewards/{name}/mean": sum(values) / len(values) for name, values in given.items() if values}


class Rewards:
    """The rewards of a run with their weights; the same for its training and its validation rows."""

    def __init__(self, setup: Setup, actors: Actors) -> None:
        method = setup.config.method
        self._weights = [float(weight) for weight in method.reward_weights or [1.0] * len(method.rewards)]
        shared = "model" in method.rewards and SharedScorer.fits(setup, actors)
        others = [name for name in method.rewards if not (shared and name == "model")]
        config = setup.config.model_copy(update={"method": method.model_copy(update={"rewards": others})})
        made = {reward.name: reward for reward in make_rewards(replace(setup, config=config), setup.train)}
        if shared:
            assert setup.scorer is not None  # or it would not fit
            scorer = SharedScorer(actors, setup.scorer, pad_id(setup.tokenizer))
            made["model"] = Reward("model", scoring_by(scorer, setup.tokenizer), setup.train)
        self._rewards = [made[name] for name in method.rewards]
        self._validation = [replace(reward, rows=setup.validation) for reward in self._rewards]

    def __call__(self, places: Sequence[int], answers: Sequence[str], validation: bool = False) -> Scored:
        """Score answers to the rows at these places.

        Raises:
            StudioError: a reward is not finite.
        """
        totals = [0.0] * len(answers)
        parts: dict[str, list[float | None]] = {}
        for reward, weight in zip(self._validation if validation else self._rewards, self._weights, strict=True):
            parts[reward.name] = scores = scored(reward, places, answers)
            for i, score in enumerate(scores):
                if score is not None and not math.isfinite(score):
                    raise StudioError(
                        f"the reward {reward.name} of a completion is {score}", where="method.rewards",
                        fix="Return a finite number, or None where a completion cannot be scored",
                    )  # fmt: skip
                totals[i] += weight * (score or 0.0)
        return Scored(totals, parts)


def scored(reward: Reward, places: Sequence[int], answers: Sequence[str]) -> list[float | None]:
    """Scores of all answers on every rank.

    A reward model scores some answers on each rank. Others are cheap and may be a person's own code, which is called
    once, with all answers.

    Args:
        reward: what scores them.
        places: of their rows.
        answers: their texts, all of them.
    """
    if reward.name != "model":
        return sharing.first(lambda: reward(places, answers))
    return sharing.by_shares(lambda own: reward([places[at] for at in own], [answers[at] for at in own]), len(places))

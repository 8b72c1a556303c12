"""Answers that people judged, and how likely a model finds them: the measure of runs on pairs and on rated answers.

Of a pair the chosen answer should be the likelier one, of rated answers the good ones. Before and after training are
compared by the mean log-probability of an answer's tokens, so that a long answer is not unlikely for its length alone.
How much the training has moved each answer, summed over its tokens, is DPO's and KTO's own reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from studio.data.formats.answers import Example
from studio.data.masks.masker import Masker
from studio.data.prepare.units import Pair, Rated, both_answers, encode
from studio.errors import InputError
from studio.evaluate.answers import FORCED, answer_logits, positions, require_room
from studio.methods import RowKind
from studio.methods.preference import Ranked, good_above_bad
from studio.models.plan.batches import split


@dataclass(frozen=True)
class Judged:
    """An answer that is good or bad.

    Attributes:
        row: its number in the file; those of a pair share it.
        prompt, answer: as text, to be shown.
        prompt_ids, answer_ids: as the method would train on them.
        good: chosen, or rated good.
        among: what it is compared with: the answers of its pair, or those to its prompt.
    """

    row: int
    prompt: str
    answer: str
    prompt_ids: list[int]
    answer_ids: list[int]
    good: bool
    among: tuple[Any, ...]


def judged(kind: RowKind, examples: Sequence[Example], masker: Masker, where: str) -> list[Judged]:
    """Return the answers of rows, those of a pair one after the other, the chosen one first.

    Args:
        kind: pairs or rated.
        examples: rows of that kind.
        masker: as in training.
        where: the file, for the error.

    Raises:
        InputError: a row cannot be masked, or there is no good answer or no bad one.
    """
    parts: list[tuple[list[int], list[int], bool, tuple[Any, ...]]] = []
    for unit in encode(kind, examples, masker):
        if isinstance(unit, Pair):
            among = (unit.path, unit.row)
            parts.append((unit.prompt_ids, unit.chosen_ids, True, among))
            parts.append((unit.prompt_ids, unit.rejected_ids, False, among))
        elif isinstance(unit, Rated):
            parts.append((unit.prompt_ids, unit.completion_ids, unit.label, tuple(unit.prompt_ids)))
    texts = [one for example in examples for one in both_answers(example)]
    decode = masker.tokenizer.decode
    found = [
        Judged(one.row, _prompt(one), decode(answer, skip_special_tokens=True), prompt, answer, good, among)
        for one, (prompt, answer, good, among) in zip(texts, parts, strict=True)
    ]
    if len({one.good for one in found}) < 2:
        missing = "bad" if found and found[0].good else "good"
        raise InputError(
            f"no answer is rated {missing}, so there is nothing to compare", where=where,
            fix="Choose rows with good and bad answers",
        )  # fmt: skip
    return found


def likelihoods(model: Any, answers: Sequence[Judged], on_done: Callable[[int], None]) -> list[float]:
    """Return the log-probability of each answer, summed over its tokens.

    Args:
        model: a causal language model (or PEFT model) in evaluation mode.
        answers: what it is asked about.
        on_done: called with the number of answers so far.

    Raises:
        InputError: the model has no positions for so long an answer.
    """
    found: dict[int, float] = {}
    lengths, places = [len(one.prompt_ids) + len(one.answer_ids) for one in answers], positions(model)
    for one, length in zip(answers, lengths, strict=True):
        require_room(one.row, length, places)
    for batch in split(lengths, FORCED):
        rows = [(answers[at].prompt_ids, answers[at].answer_ids) for at in batch]
        for at, logits in zip(batch, answer_logits(model, rows), strict=True):
            ids = torch.tensor(answers[at].answer_ids, device=logits.device)
            found[at] = -float(functional.cross_entropy(logits.float(), ids, reduction="sum"))
        on_done(len(found))
    return [found[at] for at in range(len(answers))]


def accuracy(answers: Sequence[Judged], scores: Sequence[float]) -> float:
    """Return the share of good answers that score above the bad ones that they are compared with.

    Args:
        answers: good and bad ones.
        scores: of each.
    """
    share = good_above_bad([Ranked(one.among, one.good, score) for one, score in zip(answers, scores, strict=True)])
    assert share is not None  # `judged` has seen to it that both kinds are there
    return share


def _prompt(example: Example) -> str:
    """What was asked last."""
    asked = [message for message in example.messages or [] if message["role"] != "assistant"]
    return str(asked[-1]["content"]) if asked else example.prompt or ""

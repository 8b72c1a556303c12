"""Greedy answers of a transformers model to many questions, and whether they are exactly right.

The expected answer is tried first: the model's choice at each of its positions is compared, and if all agree, greedy
decoding gives exactly this answer, so it need not be generated. On a model that knows its task this is ten times faster
than generating everything. Where a CPU computes, `studio.writing` does both, and reads each prompt once. Elsewhere that
is a pass of its own, left out for the rest if the model gives the expected answer to hardly any of the first questions.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from studio.evaluate.questions import Question
from studio.evaluate.score import exact_match
from studio.models.plan.batches import Batching, split
from studio.writing.quick import quicker, rows_at_once, side_by_side

# Questions with their answers computed at a time: logits of long ones are large, and more bring no speed.
FORCED = Batching(rows=16, tokens=2048)
# After so many questions it shows whether the first pass is worth its time: where it saves this share from generation.
TELLING, WORTH = 16, 1 / 8


@dataclass(frozen=True)
class Answer:
    """What a model said to one question."""

    text: str
    right: bool


def answer_all(
    model: Any, tokenizer: Any, questions: list[Question], max_new_tokens: int, on_done: Callable[[int], None]
) -> list[Answer]:
    """Answer every question greedily.

    Args:
        model: a causal language model (or PEFT model) in evaluation mode.
        tokenizer: its tokenizer.
        questions: what is asked.
        max_new_tokens: where an answer is cut.
        on_done: called with the number of questions answered so far.
    """
    answers: dict[int, Answer] = {}
    with quicker(model) as drafting:
        if not drafting:
            answers = _as_expected(model, questions, on_done)
        writer = _Writer(model, tokenizer, max_new_tokens, _Count(len(answers), on_done), drafting)
        order = sorted(range(len(questions)), key=lambda at: len(questions[at].prompt_ids))
        left = [at for at in order if at not in answers]
        longest = max((len(questions[at].prompt_ids) for at in left), default=0) + max_new_tokens
        size = rows_at_once(model, longest) if left and _skips_padding(model) else 1
        for batch in _batches(left, size):
            for at, text in zip(batch, writer.texts([questions[at] for at in batch]), strict=True):
                answers[at] = Answer(text, exact_match(questions[at].expected, text))
    return [answers[at] for at in range(len(questions))]


def _as_expected(model: Any, questions: list[Question], on_done: Callable[[int], None]) -> dict[int, Answer]:
    """The answers, by their question's place, that are as expected; not all are looked for if few are found."""
    answers: dict[int, Answer] = {}
    lengths = [len(question.prompt_ids) + len(question.answer_ids) for question in questions]
    tried = 0
    for batch in split(lengths, FORCED):
        if tried >= TELLING and len(answers) < WORTH * tried:
            break
        tried += len(batch)
        for at, right in zip(batch, _forced(model, [questions[at] for at in batch]), strict=True):
            if right:
                answers[at] = Answer(questions[at].expected, True)
        on_done(len(answers))
    return answers


def _skips_padding(model: Any) -> bool:
    """Whether padding before a prompt changes nothing: it would go into the state that RWKV and others read on from."""
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    return "past_key_values" in inspect.signature(plain.forward).parameters


def _forced(model: Any, questions: list[Question]) -> list[bool]:
    """For each question: does the model choose every token of the expected answer, given those before it?"""
    rows = [(question.prompt_ids, question.answer_ids) for question in questions]
    found = zip(answer_logits(model, rows), questions, strict=True)
    return [logits.argmax(-1).tolist() == question.answer_ids for logits, question in found]


@torch.inference_mode()
def answer_logits(model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> Iterator[torch.Tensor]:
    """Yield for each row the (A, V) logits that choose its answer's tokens, on the model's device.

    Args:
        model: a causal language model (or PEFT model) in evaluation mode.
        rows: (prompt ids, A answer ids), computed together.
    """
    length = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for at, (prompt, answer) in enumerate(rows):  # padded on the right: causal attention never sees it
        ids[at, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        mask[at, : len(prompt) + len(answer)] = 1
    device = next(model.parameters()).device
    keep = length - min(len(prompt) for prompt, _ in rows) + 1
    with side_by_side(model):
        logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), logits_to_keep=keep).logits
    first = length - logits.shape[1]  # position of the first kept row of logits
    for at, (prompt, answer) in enumerate(rows):
        begin = len(prompt) - 1 - first
        yield logits[at, begin : begin + len(answer)]


class _Count:
    """Counts answers, which several threads write."""

    def __init__(self, done: int, on_done: Callable[[int], None]) -> None:
        self.done, self._on_done, self._lock = done, on_done, threading.Lock()

    def __call__(self, more: int) -> None:
        with self._lock:
            self.done += more
            self._on_done(self.done)


@dataclass(frozen=True)
class _Writer:
    """How answers are generated.

    Attributes:
        model, tokenizer: which write them.
        most: longest answer, tokens.
        ended: called with the number of answers that are ready.
        drafting: the expected answers are tried meanwhile.
    """

    model: Any
    tokenizer: Any
    most: int
    ended: _Count
    drafting: bool

    @torch.inference_mode()
    def texts(self, questions: Sequence[Question]) -> list[str]:
        """The answers to some questions, computed together."""
        length = max(len(one.prompt_ids) for one in questions)
        device = next(self.model.parameters()).device
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        ids = torch.full((len(questions), length), pad)
        mask = torch.zeros_like(ids)
        for at, one in enumerate(questions):  # padded on the left, so that all answers begin at one position
            ids[at, length - len(one.prompt_ids) :] = torch.tensor(one.prompt_ids)
            mask[at, length - len(one.prompt_ids) :] = 1
        told: dict[str, Any] = {"eos_token_id": self._ends(questions)}
        if self.drafting:
            told |= {"drafts": [one.answer_ids for one in questions], "on_end": self.ended}
        done = self.ended.done + len(questions)
        output = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=self.most,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,  # which tried answers, GGUF files and Chat do not have either
            pad_token_id=pad,
            **told,
        )
        self.ended(done - self.ended.done)  # where nothing was said of single rows
        texts: list[str] = self.tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
        return texts

    def _ends(self, questions: Sequence[Question]) -> list[int] | None:
        """The tokens that end an answer: the model's own, and the one that ends the expected answers, as in Chat."""
        known = getattr(self.model.generation_config, "eos_token_id", None)
        ends = set(known if isinstance(known, list) else [] if known is None else [known])
        ends |= {one.answer_ids[-1] for one in questions if one.answer_ids}.intersection(self.tokenizer.all_special_ids)
        return sorted(ends) or None


def _batches(items: list[int], size: int) -> Iterator[list[int]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]

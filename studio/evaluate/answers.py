"""Greedy answers of a transformers model to many questions, and whether they are exactly right.

The expected answer is tried first: the model's choice at each of its positions is compared, and if all agree, its end
included, greedy decoding gives exactly this answer, so it need not be generated. On a model that knows its task this is
ten times faster than generating everything. Where a CPU computes, `studio.writing` does both, and reads each prompt
once. Elsewhere that is a pass of its own, left out for the rest if the model gives the expected answer to hardly any of
the first questions.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from studio.chat.prompting import end_marks
from studio.errors import InputError
from studio.evaluate.questions import Question
from studio.evaluate.score import exact_match
from studio.kernels.recognized import base_of
from studio.models.plan.batches import Batching, split
from studio.writing.quick import quicker, rows_at_once, side_by_side

# Questions with their answers computed at a time: logits of long ones are large, and more bring no speed.
FORCED = Batching(rows=16, tokens=2048)
# After so many questions it shows whether the first pass is worth its time: where it saves this share from generation.
TELLING, WORTH = 16, 1 / 8


@dataclass(frozen=True)
class Answer:
    """What a model said to one question; it is right if it has ended and is the expected answer, as tokens or text."""

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
        max_new_tokens: where an answer is cut; it is cut too where the model has no more positions.
        on_done: called with the number of questions answered so far.

    Raises:
        InputError: a prompt leaves no position for an answer.
    """
    answers: dict[int, Answer] = {}
    places = positions(model)
    for one in questions:
        require_room(one.row, len(one.prompt_ids) + 1, places)
    with quicker(model) as drafting:
        count, ends = _Count(on_done), _ends(model, tokenizer, questions)
        writer = _Writer(model, tokenizer, max_new_tokens, places, ends, count, drafting)
        if not drafting:
            answers = _as_expected(writer, questions)
        order = sorted(range(len(questions)), key=lambda at: len(questions[at].prompt_ids))
        left = [at for at in order if at not in answers]
        longest = max((len(questions[at].prompt_ids) for at in left), default=0) + max_new_tokens
        size = rows_at_once(model, longest) if left and _skips_padding(model) else 1
        for batch in _batches(left, size, lambda at: writer.room(questions[at]) == max_new_tokens):
            answers.update(zip(batch, writer.answers([questions[at] for at in batch]), strict=True))
    return [answers[at] for at in range(len(questions))]


def positions(model: Any) -> int | None:
    """How many positions a model has a place for; None where they are computed (rotary ones) or not counted.

    RWKV reads on from a state, and only says with how long rows it was trained.

    Args:
        model: a causal language model (or PEFT model).
    """
    config = model.config.get_text_config()
    rotary = getattr(config, "rope_parameters", None) is not None
    return None if rotary or not _skips_padding(model) else getattr(config, "max_position_embeddings", None)


def require_room(row: int, tokens: int, places: int | None) -> None:
    """Refuse a row that a model has no positions for.

    Args:
        row: its number.
        tokens: that are read, or written, at least.
        places: of `positions`.

    Raises:
        InputError: there are more tokens than positions.
    """
    if places is not None and tokens > places:
        raise InputError(
            f"it takes {tokens} tokens or more, answer included, and the model has positions for {places}",
            where=f"row {row}", fix="Leave the row out",
        )  # fmt: skip


def _as_expected(writer: _Writer, questions: list[Question]) -> dict[int, Answer]:
    """The answers, by their question's place, that are as expected; not all are looked for if few are found."""
    answers: dict[int, Answer] = {}
    fit = [at for at, question in enumerate(questions) if writer.may_be(question)]
    lengths = [len(questions[at].prompt_ids) + len(questions[at].answer_ids) for at in fit]
    tried = 0
    for part in split(lengths, FORCED) if fit else []:
        if tried >= TELLING and len(answers) < WORTH * tried:
            break
        tried += len(part)
        batch = [questions[fit[at]] for at in part]
        for at, question, right in zip(part, batch, _forced(writer.model, batch), strict=True):
            if right:
                answers[fit[at]] = writer.answer(question, question.answer_ids)
        writer.ended(len(answers) - writer.ended.done)
    return answers


def _ends(model: Any, tokenizer: Any, questions: Sequence[Question]) -> frozenset[int]:
    """The tokens that end an answer: the model's own, and the one that ends the expected answers, as in Chat."""
    known = model.generation_config.eos_token_id
    marks = set().union(*end_marks(tokenizer))
    last = {one.answer_ids[-1] for one in questions if one.answer_ids}
    return frozenset(known if isinstance(known, list) else [] if known is None else [known]) | (last & marks)


@contextmanager
def plainly(model: Any) -> Iterator[None]:
    """Let `generate` take the likeliest token each time, whatever else the model's generation config asks for.

    Penalties, suppressed tokens, least lengths and beams are left out where an answer is tried, in GGUF files and in
    Chat, too.

    Args:
        model: a causal language model (or PEFT model).
    """
    inner = base_of(model)
    own, inner.generation_config = inner.generation_config, GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = own


def _skips_padding(model: Any) -> bool:
    """Whether padding before a prompt changes nothing: it would go into the state that RWKV and others read on from."""
    return "past_key_values" in inspect.signature(base_of(model).forward).parameters


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

    def __init__(self, on_done: Callable[[int], None]) -> None:
        self.done, self._on_done, self._lock = 0, on_done, threading.Lock()

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
        places: of `positions`.
        ends: tokens that end an answer.
        ended: called with the number of answers that are ready.
        drafting: the expected answers are tried meanwhile.
    """

    model: Any
    tokenizer: Any
    most: int
    places: int | None
    ends: frozenset[int]
    ended: _Count
    drafting: bool

    def room(self, question: Question) -> int:
        """The longest answer to a question, in tokens."""
        return self.most if self.places is None else min(self.most, self.places - len(question.prompt_ids))

    def may_be(self, question: Question) -> bool:
        """Whether the expected answer is one that can be written: it ends, once, before it would be cut."""
        ids = question.answer_ids
        return 0 < len(ids) <= self.room(question) and ids[-1] in self.ends and self.ends.isdisjoint(ids[:-1])

    def answer(self, question: Question, ids: list[int]) -> Answer:
        """What was written, with whatever fills it behind its end."""
        end = next((at for at, token in enumerate(ids) if token in self.ends), None)
        text = str(self.tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False))
        expected = question.answer_ids
        expected = expected[:-1] if expected and expected[-1] in self.ends else expected
        # A tokenizer that normalizes, or a template that rewrites, gives other characters for the same tokens.
        return Answer(text, end is not None and (ids[:end] == expected or exact_match(question.expected, text)))

    @torch.inference_mode()
    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers to some questions of the same room, computed together."""
        length = max(len(one.prompt_ids) for one in questions)
        device = next(self.model.parameters()).device
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        ids = torch.full((len(questions), length), pad)
        mask = torch.zeros_like(ids)
        for at, one in enumerate(questions):  # padded on the left, so that all answers begin at one position
            ids[at, length - len(one.prompt_ids) :] = torch.tensor(one.prompt_ids)
            mask[at, length - len(one.prompt_ids) :] = 1
        told: dict[str, Any] = {"eos_token_id": sorted(self.ends) or None}
        if self.drafting:
            told |= {"drafts": [one.answer_ids for one in questions], "on_end": self.ended}
        done = self.ended.done + len(questions)
        with plainly(self.model):
            output = self.model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=self.room(questions[0]),
                do_sample=False, pad_token_id=pad, **told,
            )  # fmt: skip
        self.ended(done - self.ended.done)  # where nothing was said of single rows
        written = output[:, length:].tolist()
        return [self.answer(question, row) for question, row in zip(questions, written, strict=True)]


def _batches(items: list[int], size: int, together: Callable[[int], bool]) -> Iterator[list[int]]:
    """Cut items into parts of a size; those that cannot be computed together with others are parts of their own."""
    shared = [one for one in items if together(one)]
    for begin in range(0, len(shared), size):
        yield shared[begin : begin + size]
    yield from ([one] for one in items if not together(one))

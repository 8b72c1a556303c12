"""Rows as a trainer takes them: answers, pairs, rated answers, prompts, each as token ids.

All have the same few figures, so that lengths, limits, splits and findings treat them alike. The ids of an answer
begin with its first supervised token and end with its last: the masks of `data.masks.masker` decide for every method.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from studio.alike import alike
from studio.data.files.datafiles import place
from studio.data.formats.answers import Example
from studio.data.formats.conversations import Message
from studio.data.masks.masked import Masked
from studio.data.masks.masker import Masker
from studio.data.masks.overlay import counted, cut_runs
from studio.data.prepare.compact import kept, kept_ids, kept_small
from studio.errors import InputError
from studio.methods import RowKind


class Unit:
    """A row as tokens: what `prepare` needs of it, where a row is one sequence of all its ids.

    Attributes:
        row, path: where it came from.
        notes: what is worth a finding (`Masked.notes`).
    """

    row: int
    path: str
    notes: tuple[str, ...]

    @property
    def length(self) -> int:
        """Tokens of its longest sequence."""
        return sum(map(len, kept_ids(self)))

    @property
    def tokens(self) -> int:
        """Tokens of all its sequences."""
        return self.length

    @property
    def repeats(self) -> int:
        """How many of them repeat a prefix of another of its sequences."""
        return 0

    @property
    def supervised(self) -> int:
        """How many of them the loss counts."""
        raise NotImplementedError

    @property
    def key(self) -> bytes:
        """16 bytes, equal for equal rows."""
        return _digest(*kept_ids(self))

    def cut(self, limit: int) -> Unit | None:
        """The row within `limit` tokens a sequence, or None if nothing to learn is left."""
        raise NotImplementedError


@kept_small
@dataclass
class Encoded(Unit):
    """An answer with its context.

    Attributes:
        input_ids: (T,) token ids.
        labels: (T,) the ids that the loss counts, -100 elsewhere; at least one after the first is not -100.
    """

    input_ids: list[int]
    labels: list[int]
    row: int
    path: str
    notes: tuple[str, ...] = ()

    @property
    def supervised(self) -> int:
        """Tokens that the loss counts."""
        return counted(kept(self, "labels"))

    def cut(self, limit: int) -> Encoded | None:
        """Keep the first `limit` tokens; None if no label is left that a token before it could predict."""
        runs: Any = cut_runs(kept(self, "labels"), 0, limit)
        if not runs or runs[-1] <= 1:
            return None
        return Encoded(kept(self, "input_ids")[:limit], runs, self.row, self.path, self.notes)


@kept_small
@dataclass
class Pair(Unit):
    """A prompt with a better and a worse answer: (P,), (C,) and (R,) token ids."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    row: int
    path: str
    notes: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        """Tokens of the prompt with the longer answer."""
        prompt, *answers = map(len, kept_ids(self))
        return prompt + max(answers)

    @property
    def tokens(self) -> int:
        """Tokens of both sequences, the prompt in each."""
        return len(kept(self, "prompt_ids")) + sum(map(len, kept_ids(self)))

    @property
    def repeats(self) -> int:
        """Tokens of the prompt, and of what both answers begin with."""
        prompt, *answers = kept_ids(self)
        return len(prompt) + alike(*answers)

    @property
    def supervised(self) -> int:
        """Tokens of both answers."""
        return len(kept(self, "chosen_ids")) + len(kept(self, "rejected_ids"))

    def cut(self, limit: int) -> Pair | None:
        """Keep the start of both answers; None if they are equal then, or the prompt fills the limit."""
        prompt, *answers = kept_ids(self)
        left = limit - len(prompt)
        chosen, rejected = (ids[: max(0, left)] for ids in answers)
        if left < 1 or chosen == rejected:
            return None
        return replace(self, prompt_ids=prompt, chosen_ids=chosen, rejected_ids=rejected)


@kept_small
@dataclass
class Rated(Unit):
    """A prompt (P,) and an answer (C,) that is good or not."""

    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool
    row: int
    path: str
    notes: tuple[str, ...] = ()

    @property
    def supervised(self) -> int:
        """Tokens of the answer."""
        return len(kept(self, "completion_ids"))

    @property
    def key(self) -> bytes:
        """Equal for equal rows."""
        return _digest(*kept_ids(self), array("i", [self.label]))

    def cut(self, limit: int) -> Rated | None:
        """Keep the start of the answer; None if the prompt fills the limit."""
        prompt, answer = kept_ids(self)
        left = limit - len(prompt)
        return replace(self, prompt_ids=prompt, completion_ids=answer[:left]) if left >= 1 else None


@kept_small
@dataclass
class Prompt(Unit):
    """What the model is asked; it writes the answer itself.

    Attributes:
        prompt_ids: (P,) token ids, up to where the answer begins.
        prompt: the messages or the text, as reward functions are given it.
        answer: what an answer is compared with; None if the row has none.
        columns: the row's other keys.
    """

    prompt_ids: list[int]
    prompt: list[Message] | str
    answer: str | None
    row: int
    path: str
    columns: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def supervised(self) -> int:
        """None of them: what counts is written in training."""
        return 0

    def cut(self, limit: int) -> Prompt | None:
        """A prompt is never cut, since its end is the question."""
        return None


def common_prefix(units: Sequence[Unit]) -> int:
    """Return how many tokens all rows begin with; of those with a prompt, within it.

    Args:
        units: of one kind, at least one.
    """
    prefixes = [kept_ids(one)[0] for one in units]
    return alike(min(prefixes), max(prefixes))


def encode(kind: RowKind, examples: Sequence[Example], masker: Masker) -> list[Unit]:
    """Return rows as units of that kind, in order; a pair makes two rated answers.

    Args:
        kind: what the method learns from.
        examples: of a format that has this kind.
        masker: of the run's tokenizer and template.

    Raises:
        InputError: a row cannot be masked, or its two answers do not share the prompt's tokens.
    """
    if kind == "answers":
        return [_plain(one) for one in masker.encode(examples)]
    if kind == "prompts":
        return [_prompt(one, masker.prompt(one)) for one in examples]
    chosen = masker.encode(examples)
    if kind == "rated":
        worse = [i for i, one in enumerate(examples) if one.rejected is not None]
        rejected = dict(zip(worse, masker.encode([_rejected(examples[i]) for i in worse]), strict=True))
        units: list[Unit] = []
        for i, (example, good) in enumerate(zip(examples, chosen, strict=True)):
            units.append(_rated(good, True if example.label is None else example.label))
            if i in rejected:
                units.append(_rated(rejected[i], False))
        return units
    rejected_ = masker.encode([_rejected(one) for one in examples])
    return [_pair(good, bad) for good, bad in zip(chosen, rejected_, strict=True)]


def _plain(masked: Masked) -> Encoded:
    trained: Any = masked.trained
    return Encoded(masked.input_ids, trained, masked.row, masked.path, masked.notes)


def _prompt(example: Example, masked: Masked) -> Prompt:
    asked = example.messages if example.messages is not None else example.prompt or ""
    return Prompt(masked.input_ids, asked, example.answer, example.row, example.path, example.columns, masked.notes)


def both_answers(example: Example) -> list[Example]:
    """A row as examples with one answer each: one, or for a pair the better and the worse."""
    return [example] if example.rejected is None else [example, _rejected(example)]


def _rejected(example: Example) -> Example:
    if isinstance(example.rejected, str):
        return replace(example, completion=example.rejected, rejected=None)
    return replace(example, messages=example.rejected, rejected=None)


def _span(masked: Masked) -> tuple[int, int]:
    """Where the answer begins and ends."""
    return masked.trained[0], masked.trained[-1]


def _digest(*parts: array[int]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(len(part).to_bytes(8))
        found.update(part)
    return found.digest()


def _rated(masked: Masked, label: bool) -> Rated:
    start, end = _span(masked)
    ids = masked.input_ids
    return Rated(ids[:start], ids[start:end], label, masked.row, masked.path, masked.notes)


def _pair(good: Masked, bad: Masked) -> Pair:
    (start, end), (other, other_end) = _span(good), _span(bad)
    start = min(start, other)
    if good.input_ids[:start] != bad.input_ids[:start]:
        raise InputError(
            "the prompt tokens of the two answers differ, so they cannot be compared",
            where=place(good.path, good.row),
            fix="Start both answers without whitespace, or use a chat template that renders the prompt the same for "
            "both",
        )
    notes = tuple(dict.fromkeys(good.notes + bad.notes))
    prompt, chosen, rejected = good.input_ids[:start], good.input_ids[start:end], bad.input_ids[start:other_end]
    if chosen == rejected:
        raise InputError(
            "the two answers have identical tokens", where=place(good.path, good.row), fix="Remove the row"
        )
    return Pair(prompt, chosen, rejected, good.row, good.path, notes)

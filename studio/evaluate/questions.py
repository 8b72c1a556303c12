"""Rows of a file as questions with one expected answer, as text and as tokens.

The tokens come from the same masks as in training, so a question is rendered exactly as it was trained on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from studio.config.data import DataSource
from studio.config.jobs import COMPARED
from studio.data.files.datafiles import place, read_rows
from studio.data.formats.answers import Example, counted_turn, split_prompt
from studio.data.formats.rows import fitting_kind, fitting_kinds
from studio.data.masks.masker import Masker
from studio.data.masks.overlay import IGNORED
from studio.data.sources.locate import of_file
from studio.data.sources.reading import Reading, in_turns
from studio.errors import InputError
from studio.methods import RowKind


@dataclass(frozen=True)
class Question:
    """One held-out row.

    Attributes:
        row: its number in the file.
        prompt: what is shown of the question (the last message, or the plain prompt).
        expected: the expected answer's text.
        prompt_ids: tokens before the answer.
        answer_ids: tokens of the expected answer with its end of turn.
    """

    row: int
    prompt: str
    expected: str
    prompt_ids: list[int]
    answer_ids: list[int]


def read_examples(
    path: Path, tokenizer: Any, limit: int | None = None, source: DataSource | None = None, kind: RowKind = "answers"
) -> tuple[RowKind, list[Example]]:
    """Return the rows of a file, and what they are: of this kind if they can be, else of that for which they are made.

    Args:
        path: rows in any readable format, each with an answer.
        tokenizer: with its chat template.
        limit: first rows to read; None for all.
        source: how columns are mapped; None: recognized by their names.
        kind: what the evaluated run learned from.

    Raises:
        InputError: the file or a row cannot be used.
    """
    return examples_of(path, tokenizer.chat_template, limit, source, kind)


def examples_of(
    path: Path, template: str | None, limit: int | None = None, source: DataSource | None = None,
    kind: RowKind = "answers",
) -> tuple[RowKind, list[Example]]:  # fmt: skip
    """Return what `read_examples` does, of a tokenizer's chat template alone.

    Args:
        path, limit, source, kind: as `read_examples`.
        template: of the tokenizer; None for none.

    Raises:
        InputError: the file or a row cannot be used.
    """
    rows = list(itertools.islice(read_rows(path), limit))
    if not rows:
        raise InputError("the file has no rows", where=str(path), fix="Choose a file with expected answers")
    turns, source, here = in_turns(template), source or DataSource(path=str(path)), of_file(path)
    number, first = rows[0]
    mapped = Reading(source, here, kind).mapped(first, number)
    found = kind if kind in fitting_kinds(mapped) else fitting_kind(mapped)
    read: RowKind = found if found in COMPARED else "answers"
    reading = Reading(source, here, read, turns)
    format_name, _ = reading.format(rows[:1])
    return read, [reading.example(row, number, format_name) for number, row in rows]


def read_questions(
    path: Path, tokenizer: Any, limit: int | None = None, source: DataSource | None = None
) -> list[Question]:
    """Read the rows of `path` as questions.

    Args:
        path, tokenizer, limit, source: as `read_examples`.

    Raises:
        InputError: the file or a row cannot be used, or its rows are pairs or ratings, which expect no answer.
    """
    kind, examples = read_examples(path, tokenizer, limit, source)
    if kind != "answers":
        raise InputError(
            "the rows are answers to compare, and not questions with an expected answer", where=str(path),
            fix="Choose a file with expected answers",
        )  # fmt: skip
    return questions_of(examples, tokenizer)


def questions_of(
    examples: Sequence[Example], tokenizer: Any, control_tokens: Literal["refuse", "keep"] = "keep"
) -> list[Question]:
    """Turn rows into questions; of a conversation the last answer that counts is expected.

    Args:
        examples: rows with an answer.
        tokenizer: with its chat template.
        control_tokens: as the training reads them.

    Raises:
        InputError: a row cannot be rendered, or has no prompt or no answer.
    """
    questions = []
    examples = [_up_to_what_counts(example) for example in examples]
    masker = Masker(tokenizer, "last", control_tokens)
    for example, masked in zip(examples, masker.encode(examples), strict=True):
        prompt, expected = split_prompt(example)
        begin = next(at for at, label in enumerate(masked.labels) if label != IGNORED)
        if not begin:
            raise InputError(
                "the prompt is empty, so there is nothing to ask", where=place(example.path, example.row),
                fix="Add a prompt, or remove the row",
            )  # fmt: skip
        end = max(at for at, label in enumerate(masked.labels) if label != IGNORED) + 1
        questions.append(
            Question(
                row=example.row,
                prompt=prompt if isinstance(prompt, str) else prompt[-1]["content"],
                expected=expected,
                prompt_ids=masked.input_ids[:begin],
                answer_ids=masked.input_ids[begin:end],
            )
        )
    return questions


def _up_to_what_counts(example: Example) -> Example:
    """The row without its last turns, where their answers have weight 0: training does not ask for those either."""
    last = counted_turn(example)
    if last is None or not any(one["role"] == "assistant" for one in (example.messages or [])[last + 1 :]):
        return example
    return replace(example, messages=(example.messages or [])[: last + 1])

"""Pairs whose two answers are whole conversations: what the prompt is, and which keys of the row were read for it.

The two begin alike, and what they share is the prompt. What the row has beside them, a `prompt`, `messages`, an
instruction or a `system` text, may say the same once more, hold the system prompt, or hold the turns before. Nothing
of it is left out in silence: it is part of the prompt, or refused, or named among the keys that were not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from studio.alike import alike
from studio.data.files.where import Where, is_given
from studio.data.formats.conversations import Message, with_system

# The prompt, the rest with the better answer, the rest with the worse one, and the keys that were read.
Split = tuple[list[Message], list[Message], list[Message], tuple[str, ...]]


@dataclass(frozen=True)
class Asked:
    """What a row says of the prompt beside its two answers.

    Attributes:
        messages: of the prompt; none where the row has no prompt.
        keys: that were read for it.
        is_text: whether it is a text that became a message, not a list of them.
    """

    messages: list[Message]
    keys: tuple[str, ...]
    is_text: bool = False


def split_pair(asked: Asked, better: list[Message], worse: list[Message], row: dict[str, Any], where: Where) -> Split:
    """Split two whole conversations into their prompt and how each ends.

    Args:
        asked: the row's prompt; it may have none.
        better, worse: the conversations, at least one message each.
        row: whose `system` is the system prompt, where it has one.
        where: file and row number, for errors.

    Raises:
        InputError: the two share no prompt, the row's prompt is another one, or there are two system prompts.
    """
    shared, better, worse = _shared(better, worse, where)
    if not asked.messages:
        return with_system(shared, row, where), better, worse, (*asked.keys, "system")
    key = next((key for key in asked.keys if key in row), "")
    said, before = _parts(asked.messages)
    system, turns = _parts(shared)
    system = _one_system(said, system, "system" if is_given(row.get("system")) else key, where)
    # Turns up to an answer may also be a copy of one of the two conversations, as some sets of the Hub have it.
    answered = bool(before) and before[-1]["role"] == "assistant"
    copies = (turns, turns + better, turns + worse) if answered else (turns,)
    if any(_begins(before, one) for one in copies):
        return system + turns, better, worse, asked.keys
    if answered and not turns:
        raise where.error("the prompt ends with an assistant message", key, "End it with a user message")
    if answered or not turns:
        return system + before + turns, better, worse, asked.keys
    if asked.is_text:
        # It is written otherwise than the conversations, which are taken as they are.
        return system + turns, better, worse, ("system",)
    what = f"{key} is not how chosen and rejected begin"
    raise where.error(what, key, f"Remove {key}, or let chosen and rejected be the answers alone")


def _shared(
    better: list[Message], worse: list[Message], where: Where
) -> tuple[list[Message], list[Message], list[Message]]:
    """What two whole conversations share, and how each ends."""
    if len(better) == len(worse) == 1:
        what = "the row has no prompt: it is missing or empty, and chosen and rejected are single answers"
        fix = "Fill in prompt, or write chosen and rejected as conversations (lists of messages)"
        raise where.error(what, "chosen", fix)
    same = min(alike(better, worse), min(len(better), len(worse)) - 1)
    if not same or better[same]["role"] != "assistant" or worse[same]["role"] != "assistant":
        raise where.error("chosen and rejected do not begin with the same prompt", "chosen", "Put it in prompt")
    return better[:same], better[same:], worse[same:]


def _parts(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """The system message at the beginning, in a list that may be empty, and the turns behind it."""
    begun = messages[0]["role"] == "system"
    return messages[:begun], messages[begun:]


def _begins(before: Sequence[Message], turns: Sequence[Message]) -> bool:
    """Whether some turns are the first ones of others; blanks around a text make no difference."""
    return len(before) <= len(turns) and all(
        _compared(one) == _compared(other) for one, other in zip(before, turns, strict=False)
    )


def _compared(turn: Message) -> tuple[Any, ...]:
    return turn["role"], turn["content"].strip(), turn.get("tool_calls")


def _one_system(said: list[Message], system: list[Message], key: str, where: Where) -> list[Message]:
    """The system message of the prompt or of the conversations, in a list; an empty one counts only alone."""
    given = [one for one in (*system, *said) if one["content"].strip()] or [*system, *said]
    if len({one["content"].strip() for one in given}) > 1:
        what = "the row has a system prompt, and chosen and rejected begin with another one"
        raise where.error(what, key, "Remove one of the two")
    return given[:1]

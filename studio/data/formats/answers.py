"""Rows with answers to imitate: messages, prompt and completion, instruction, or text.

What a row means is one `Example`, however it was written. `conversations` reads turns, `rows` decides which format a
file has, `preference` reads pairs, ratings and prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from studio.data.files.datafiles import place
from studio.data.files.where import Where, emptiness, is_given, kind, short
from studio.data.formats.conversations import (
    Message,
    conversation,
    is_message,
    messages_of,
    require_answer,
    with_system,
)
from studio.errors import InputError

FormatName = Literal["messages", "prompt_completion", "instruction", "text", "preference", "rated", "prompts"]
FORMATS: tuple[FormatName, ...] = ("messages", "prompt_completion", "instruction", "text")
_USED: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "system"),
    "prompt_completion": ("prompt", "completion", "system"),
    "instruction": ("instruction", "input", "output", "system", "history"),
    "text": ("text",),
}
LABELS = ("label", "kto_tag")


@dataclass(frozen=True)
class Example:
    """One row, understood.

    Exactly one of `messages`, `text` and `prompt` is given; a prompt has a `completion` unless the model writes it.

    Attributes:
        row: its number in the file, from 1.
        path: name of the file.
        format: how the row was written.
        messages: the conversation; assistant turns are answers to be learned.
        trained_from: index of the first message whose answer may be learned (a chat completion: the first after the
            prompt).
        tools: the functions that a conversation offers, in OpenAI's shape; the chat template writes them.
        prompt: plain text before the completion; no chat template is used.
        completion: plain text to be learned.
        text: plain text of which every token is learned.
        rejected: the same prompt with the worse answer, whole messages or the plain answer.
        label: whether the answer is a good one.
        answer: what a written answer is compared with, for the methods whose model writes it.
        columns: the row's other keys, which a reward function is given.
        unused: keys of the row that were not read, and of its turns, such as "messages[].timestamp".
        lost: those of `unused` whose names say that they belong to the prompt: a context, a system prompt.
    """

    row: int
    path: str
    format: FormatName
    messages: list[Message] | None = None
    trained_from: int = 0
    tools: list[dict[str, Any]] | None = None
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    rejected: list[Message] | str | None = None
    label: bool | None = None
    answer: str | None = None
    columns: dict[str, Any] = field(default_factory=dict, compare=False)
    unused: tuple[str, ...] = field(default=(), compare=False)
    lost: tuple[str, ...] = field(default=(), compare=False)


@dataclass
class Unread:
    """Keys of rows that were not read.

    Attributes:
        counts: how many rows have each.
        rated: how many rows have a rating among them that the method does not learn from.
        lost: how many rows have each of those that belong to the prompt by their names.
    """

    counts: Counter[str] = field(default_factory=Counter)
    rated: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    def add(self, example: Example) -> None:
        """Count those of one more row."""
        self.counts.update(example.unused)
        self.lost.update(example.lost)
        # A text with a label is one of a class, not a rated answer.
        self.rated += example.text is None and any(key in LABELS for key in example.unused)

    def __add__(self, other: Unread) -> Unread:
        return Unread(self.counts + other.counts, self.rated + other.rated, self.lost + other.lost)


def parse_answer(row: dict[str, Any], where: Where, format: FormatName) -> Example:
    """Return what a row of one of the answer `FORMATS` means.

    Args:
        row: one row, its keys already those of a format.
        where: file and row number, for errors.
        format: an answer format; preference and rated rows are parsed elsewhere.
    """
    unused = tuple(key for key in row if key not in _USED[format])
    name, number = where.name, where.number
    if format == "messages":
        return Example(number, name, format, messages=conversation(row, where), unused=unused)
    if format == "prompt_completion":
        return _prompt_completion(row, where, unused)
    if format == "instruction":
        return Example(number, name, format, messages=_instruction(row, where), unused=unused)
    text = where.text(row, "text")
    if why := emptiness(text):
        raise where.error(f"the text {why}", "text", "Add text, or remove the row")
    return Example(number, name, format, text=text, unused=unused)


def as_conversation(example: Example) -> Example:
    """Return a row of plain question and answer as one user and one assistant turn; any other row as it is.

    A pair's worse answer becomes a turn too. A prompt without an answer becomes the user's turn alone.
    """
    if example.prompt is None:
        return example
    asked: list[Message] = [{"role": "user", "content": example.prompt}]
    answers = [
        [*asked, {"role": "assistant", "content": text}] if isinstance(text, str) else None
        for text in (example.completion, example.rejected)
    ]
    return replace(
        example, messages=answers[0] or asked, rejected=answers[1], trained_from=1 if answers[0] else 0, prompt=None,
        completion=None,
    )  # fmt: skip


def counted_turn(example: Example) -> int | None:
    """Return the place of the last message that training asks for; None where none is, as all have weight 0."""
    messages = list(enumerate(example.messages or []))
    asked = [at for at, one in messages[example.trained_from :] if one["role"] == "assistant" and one.get("weight", 1)]
    return asked[-1] if asked else None


def split_prompt(example: Example) -> tuple[list[Message] | str, str]:
    """Return (prompt, expected answer) for an evaluation.

    The prompt is the messages before the last assistant turn whose weight is not 0, or, for a row of plain prompt and
    completion, that text (which goes to the model as it is, without a chat template, as in training).

    Raises:
        InputError: the row has no answer to expect.
    """
    if example.messages is not None:
        last = counted_turn(example)
        if last is not None and "tool_calls" in example.messages[last]:
            raise InputError(
                "the last answer is a tool call, and only text can be compared",
                where=place(example.path, example.row),
                fix="Evaluate on rows that end with a text answer",
            )
        if last:
            return example.messages[:last], example.messages[last]["content"]
    elif example.prompt is not None and example.completion is not None:
        return example.prompt, example.completion
    raise InputError(
        "the row has no prompt with an expected answer",
        where=place(example.path, example.row),
        fix="Evaluate on rows with messages, prompt and completion, or instruction and output",
    )


def _prompt_completion(row: dict[str, Any], where: Where, unused: tuple[str, ...]) -> Example:
    prompt, completion = where.need(row, "prompt"), where.need(row, "completion")
    name = where.name
    chat = [isinstance(value, list) and bool(value) and is_message(value[0]) for value in (prompt, completion)]
    if any(chat):
        if not all(chat):
            plain = "prompt" if chat[1] else "completion"
            raise where.error("the other one is a list of messages, this one is not", plain, "Write both the same way")
        before = with_system(messages_of(prompt, "prompt", where), row, where)
        after = messages_of(completion, "completion", where)
        require_answer(after, "completion", where)
        return Example(
            where.number, name, "prompt_completion", messages=before + after, trained_from=len(before), unused=unused
        )
    answer = where.text(row, "completion")
    if why := emptiness(answer):
        raise where.error(f"the completion {why}", "completion", "Add it, or remove the row")
    asked = where.text(row, "prompt")
    if is_given(row.get("system")):
        # A system text has its place in a conversation only, so the two become one.
        before = with_system([{"role": "user", "content": asked}], row, where)
        turns = [*before, {"role": "assistant", "content": answer}]
        return Example(where.number, name, "prompt_completion", messages=turns, trained_from=len(before), unused=unused)
    return Example(where.number, name, "prompt_completion", prompt=asked, completion=answer, unused=unused)


def _instruction(row: dict[str, Any], where: Where) -> list[Message]:
    return [*instruction_prompt(row, where), {"role": "assistant", "content": _output(row, where)}]


def _output(row: dict[str, Any], where: Where) -> str:
    output = where.text(row, "output")
    if why := emptiness(output):
        raise where.error(f"the answer {why}", "output", "Add it, or remove the row")
    return output


def instruction_prompt(row: dict[str, Any], where: Where) -> list[Message]:
    """Return the messages before the answer of an alpaca row: system, history, instruction with its input."""
    messages: list[Message] = []
    if system := where.text(row, "system", default=""):
        messages.append({"role": "system", "content": system})
    history = where.json_text(row.get("history") or [], "history")
    if not isinstance(history, list):
        raise where.error(
            f"expected a list of [question, answer], got {kind(history)}", "history", 'Write [["...", "..."]]'
        )
    for i, pair in enumerate(history):
        label = f"history[{i}]"
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise where.error(f"expected a pair [question, answer]: {short(pair)}", label, "Write two strings")
        question, answer = (where.text({str(j): part}, str(j), label) for j, part in enumerate(pair))
        if why := emptiness(answer):
            raise where.error(f"the answer {why}", f"{label}[1]", "Add it, or remove the pair")
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    parts = [where.text(row, "instruction"), where.text(row, "input", default="")]
    # One line break between the two, as most tools that read this format have it.
    messages.append({"role": "user", "content": "\n".join(part for part in parts if part)})
    return messages

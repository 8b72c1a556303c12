"""Rows with answers to imitate: messages, prompt and completion, instruction, or text.

Nothing is dropped in silence: keys that change what would be learned (tool calls, images, weights) are refused by
name. `rows` decides which format a file has; `preference` reads pairs, ratings and prompts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from studio.data.sources import place
from studio.errors import InputError

FormatName = Literal["messages", "prompt_completion", "instruction", "text", "preference", "rated", "prompts"]
Message = dict[str, str]
FORMATS: tuple[FormatName, ...] = ("messages", "prompt_completion", "instruction", "text")
ROLES = ("system", "user", "assistant", "tool")
# Names that ShareGPT files use, and the role each of them is.
SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip
_USED: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "system"),
    "prompt_completion": ("prompt", "completion"),
    "instruction": ("instruction", "input", "output", "system", "history"),
    "text": ("text",),
}
_REFUSED_IN_MESSAGE = (
    "tool_calls", "function_call", "weight", "thinking", "reasoning", "reasoning_content", "images", "audio",
)  # fmt: skip
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
        prompt: plain text before the completion; no chat template is used.
        completion: plain text to be learned.
        text: plain text of which every token is learned.
        rejected: the same prompt with the worse answer, whole messages or the plain answer.
        label: whether the answer is a good one.
        answer: what a written answer is compared with, for the methods whose model writes it.
        columns: the row's other keys, which a reward function is given.
        unused: keys of the row that were not read.
    """

    row: int
    path: str
    format: FormatName
    messages: list[Message] | None = None
    trained_from: int = 0
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    rejected: list[Message] | str | None = None
    label: bool | None = None
    answer: str | None = None
    columns: dict[str, Any] = field(default_factory=dict, compare=False)
    unused: tuple[str, ...] = field(default=(), compare=False)


def parse_answer(row: dict[str, Any], where: Where, format: FormatName) -> Example:
    """Return what a row of one of the answer `FORMATS` means."""
    unused = tuple(key for key in row if key not in _USED[format])
    name, number = Path(where.path).name, where.number
    if format == "messages":
        return Example(number, name, format, messages=conversation(row, where), unused=unused)
    if format == "prompt_completion":
        return _prompt_completion(row, where, unused)
    if format == "instruction":
        return Example(number, name, format, messages=_instruction(row, where), unused=unused)
    text = where.text(row, "text")
    if not text.strip():
        raise where.error("the text is empty", "text", "Write a text, or remove the row")
    return Example(number, name, format, text=text, unused=unused)


def split_prompt(example: Example) -> tuple[list[Message] | str, str]:
    """Return (prompt, expected answer) for an evaluation.

    The prompt is the messages before the last assistant turn, or, for a row of plain prompt and completion, that
    text (which goes to the model as it is, without a chat template, as in training).

    Raises:
        InputError: the row has no answer to expect.
    """
    if example.messages is not None:
        last = max(i for i, message in enumerate(example.messages) if message["role"] == "assistant")
        if last:
            return example.messages[:last], example.messages[last]["content"]
    elif example.prompt is not None and example.completion is not None:
        return example.prompt, example.completion
    raise InputError(
        "the row has no question with an expected answer",
        where=place(example.path, example.row),
        fix="Evaluate on rows of messages, prompt and completion, or instruction and output",
    )


class Where:
    """The place of a row, and the checks whose errors name it."""

    def __init__(self, path: Path | str, number: int) -> None:
        self.path, self.number = path, number

    def error(self, what: str, key: str = "", fix: str = "") -> InputError:
        """An error at this row's key, to be raised."""
        return InputError(what, where=place(self.path, self.number, key), fix=fix)

    def need(self, row: dict[str, Any], key: str, within: str = "") -> Any:
        """Value at `key`, which must be there."""
        if key not in row:
            keys = ", ".join(map(str, row)) or "none"
            raise InputError(
                f"key '{key}' is missing; keys are: {keys}",
                where=place(self.path, self.number, within),
                fix=f"Add '{key}' to the row, or name the file's format in data.train",
            )
        return row[key]

    def text(self, row: dict[str, Any], key: str, within: str = "", default: str | None = None) -> str:
        """Text at `key`; a list of {"type": "text"} parts is joined, anything else refused."""
        label = f"{within}.{key}" if within else key
        if default is not None and row.get(key) is None:
            return default
        value = self.need(row, key, within)
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            return "".join(self._part(part, f"{label}[{i}]") for i, part in enumerate(value))
        raise self.error(f"a text is needed, not {_kind(value)}: {_short(value)}", label, "Write it in double quotes")

    def _part(self, part: Any, label: str) -> str:
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
            return cast(str, part["text"])
        kind = part.get("type") if isinstance(part, dict) else None
        what = f"content of type '{kind}' is not read" if kind else f'not a {{"type": "text"}} part: {_short(part)}'
        raise self.error(what, label, "Use text only")


def conversation(row: dict[str, Any], where: Where, answered: bool = True) -> list[Message]:
    """Return the messages of a row; with `answered`, one of them must be an answer."""
    if "messages" in row or "conversations" not in row:
        key, role_key, content_key = "messages", "role", "content"
    else:
        key, role_key, content_key = "conversations", "from", "value"
    turns = where.need(row, key)
    if key == "conversations" and isinstance(turns, list) and turns and isinstance(turns[0], dict):
        # Some files have the outer name of ShareGPT and the inner ones of OpenAI.
        role_key, content_key = ("role", "content") if "role" in turns[0] else (role_key, content_key)
    messages = messages_of(turns, key, where, role_key, content_key)
    if row.get("system") is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": where.text(row, "system")})
    if answered:
        _require_answer(messages, key, where)
    return messages


def messages_of(
    turns: Any, key: str, where: Where, role_key: str = "role", content_key: str = "content"
) -> list[Message]:
    """Return the checked messages of a list."""
    if not isinstance(turns, list) or not turns:
        what = "the list is empty" if turns == [] else f"a list of messages is needed, not {_kind(turns)}"
        raise where.error(what, key, f'Write [{{"{role_key}": "user", "{content_key}": "..."}}, ...]')
    return [_message(turn, f"{key}[{i}]", where, role_key, content_key) for i, turn in enumerate(turns)]


def _message(turn: Any, label: str, where: Where, role_key: str, content_key: str) -> Message:
    if not isinstance(turn, dict):
        raise where.error(
            f"a message is an object, not {_kind(turn)}: {_short(turn)}",
            label,
            f'Write {{"{role_key}": "user", "{content_key}": "..."}}',
        )
    for key in _REFUSED_IN_MESSAGE:
        if turn.get(key) not in (None, [], "", {}):
            raise where.error(
                f"'{key}' is not read yet", f"{label}.{key}", f"Remove '{key}', or write it into the content"
            )
    role = where.need(turn, role_key, label)
    known = SHAREGPT_ROLES if role_key == "from" else {name: name for name in ROLES}
    if not isinstance(role, str) or role not in known:
        raise where.error(
            f"unknown role {_short(role)}", f"{label}.{role_key}", f"Use one of: {', '.join(dict.fromkeys(known))}"
        )
    content = where.text(turn, content_key, label)
    if known[role] == "assistant" and not content.strip():
        raise where.error("the assistant's answer is empty", f"{label}.{content_key}", "Write it, or remove the row")
    return {"role": known[role], "content": content}


def _require_answer(messages: list[Message], key: str, where: Where) -> None:
    if not any(message["role"] == "assistant" for message in messages):
        roles = ", ".join(dict.fromkeys(message["role"] for message in messages))
        what = f"there is no assistant turn, so nothing to learn; roles are: {roles}"
        raise where.error(what, key, "Add the answer, or remove the row")


def _prompt_completion(row: dict[str, Any], where: Where, unused: tuple[str, ...]) -> Example:
    prompt, completion = where.need(row, "prompt"), where.need(row, "completion")
    name = Path(where.path).name
    chat = [isinstance(value, list) and bool(value) and is_message(value[0]) for value in (prompt, completion)]
    if any(chat):
        if not all(chat):
            plain = "prompt" if chat[1] else "completion"
            raise where.error("the other half is a list of messages, this is not", plain, "Write both the same way")
        before, after = messages_of(prompt, "prompt", where), messages_of(completion, "completion", where)
        _require_answer(after, "completion", where)
        return Example(
            where.number, name, "prompt_completion", messages=before + after, trained_from=len(before), unused=unused
        )
    answer = where.text(row, "completion")
    if not answer.strip():
        raise where.error("the completion is empty", "completion", "Write it, or remove the row")
    return Example(
        where.number, name, "prompt_completion", prompt=where.text(row, "prompt"), completion=answer, unused=unused
    )


def is_message(value: Any) -> bool:
    """Whether a value looks like a message of a conversation."""
    return isinstance(value, dict) and "role" in value


def _instruction(row: dict[str, Any], where: Where) -> list[Message]:
    return [*instruction_prompt(row, where), {"role": "assistant", "content": _output(row, where)}]


def _output(row: dict[str, Any], where: Where) -> str:
    output = where.text(row, "output")
    if not output.strip():
        raise where.error("the answer is empty", "output", "Write it, or remove the row")
    return output


def instruction_prompt(row: dict[str, Any], where: Where) -> list[Message]:
    """Return the messages before the answer of an alpaca row: system, history, instruction with its input."""
    messages: list[Message] = []
    if system := where.text(row, "system", default=""):
        messages.append({"role": "system", "content": system})
    history = row.get("history") or []
    if not isinstance(history, list):
        raise where.error(
            f"a list of [question, answer] is needed, not {_kind(history)}", "history", 'Write [["...", "..."]]'
        )
    for i, pair in enumerate(history):
        label = f"history[{i}]"
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise where.error(f"a pair [question, answer] is needed: {_short(pair)}", label, "Write two texts")
        question, answer = (where.text({str(j): part}, str(j), label) for j, part in enumerate(pair))
        if not answer.strip():
            raise where.error("the answer is empty", f"{label}[1]", "Write it, or remove the pair")
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    parts = [where.text(row, "instruction"), where.text(row, "input", default="")]
    # One line break between the two, as most tools that read this format have it.
    messages.append({"role": "user", "content": "\n".join(part for part in parts if part)})
    return messages


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
    return names.get(type(value), "a number")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

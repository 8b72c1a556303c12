"""Rows that say which answer is better, whether one is good, or only what is asked.

Pairs are written in five ways: `prompt` with `chosen` and `rejected`; both as whole conversations (`conversation_pairs`
says what the prompt is then); alpaca keys; ShareGPT turns with the two last answers beside them; messages likewise.
Texts stay texts (no chat template), messages stay messages, as with plain answers.
"""

from __future__ import annotations

from typing import Any

from studio.data.files.where import Where, as_truth, emptiness, is_given, kind, short
from studio.data.formats.answers import LABELS, Example, FormatName, instruction_prompt, parse_answer, split_prompt
from studio.data.formats.conversation_pairs import Asked, split_pair
from studio.data.formats.conversations import LIST_KEYS, Message, conversation, is_message, messages_of, with_system

_RATED: dict[FormatName, tuple[str, ...]] = {
    "messages": LIST_KEYS, "prompt_completion": ("completion",), "instruction": ("instruction",),
}  # fmt: skip
ANSWER_KEYS = ("answer", "solution", "ground_truth", "reference")


def pair(row: dict[str, Any], where: Where) -> Example:
    """Return a pair: the prompt with the better answer, and with the worse one.

    Raises:
        InputError: a key is missing, the two do not share a prompt, it ends with an answer, or the answers are equal.
    """
    name = where.name
    chosen, rejected = where.need(row, "chosen"), where.need(row, "rejected")
    plain = not is_given(row.get("system"))
    if plain and isinstance(chosen, str) and isinstance(rejected, str) and isinstance(row.get("prompt"), str):
        for key, text in (("chosen", chosen), ("rejected", rejected)):
            _require_text(text, key, where)
        _require_different(chosen, rejected, where)
        return Example(
            where.number, name, "preference", prompt=row["prompt"], completion=chosen, rejected=rejected,
            unused=_unused(row, "prompt", "chosen", "rejected"),
        )  # fmt: skip
    asked = _prompt(row, where)
    before, used = asked.messages, asked.keys
    better, worse = (_answer(row[key], key, where) for key in ("chosen", "rejected"))
    if not before or any(answer[0]["role"] != "assistant" for answer in (better, worse)):
        before, better, worse, used = split_pair(asked, better, worse, row, where)
    else:
        _require_open(before, next(key for key in used if key in row), where)
    for key, answer in (("chosen", better), ("rejected", worse)):
        if not any(message["role"] == "assistant" for message in answer):
            raise where.error("there is no assistant message", key, "Add the answer as an assistant message")
    _require_different(better, worse, where)
    return Example(
        where.number, name, "preference", messages=before + better, trained_from=len(before), rejected=before + worse,
        unused=_unused(row, *used, "chosen", "rejected"),
    )  # fmt: skip


def rated(row: dict[str, Any], where: Where) -> Example:
    """Return an answer with its rating.

    Raises:
        InputError: the label is neither true nor false, or there is no answer.
    """
    key = next((key for key in LABELS if key in row), LABELS[0])
    label = as_truth(where.need(row, key))
    if not isinstance(label, int | float) or label not in (True, False):
        shown = kind(label) if label is None else short(label)
        raise where.error(
            f"a label must be true or false, not {shown}", key, "Write true for a good answer, else false"
        )
    rest = {name: value for name, value in row.items() if name != key}
    for format, keys in _RATED.items():
        if any(name in rest for name in keys):
            example = parse_answer(rest, where, format)
            changes = {"format": "rated", "label": bool(label)}
            if example.messages is not None and not example.trained_from:
                # The rating is of the last answer; earlier ones are context.
                last = max(i for i, one in enumerate(example.messages) if one["role"] == "assistant")
                changes |= {"trained_from": last, "messages": example.messages[: last + 1]}
            return Example(**{**example.__dict__, **changes})
    raise where.error(
        f"there is no answer for the label; keys are: {', '.join(row)}", "", "Add prompt and completion, or messages"
    )


def has_answer(row: dict[str, Any]) -> bool:
    """Whether a row has the keys of an answer that could be rated."""
    return any(name in row for keys in _RATED.values() for name in keys)


def prompt(row: dict[str, Any], where: Where, format: FormatName) -> Example:
    """Return a prompt that the model will answer, with what the answer is compared with, if the row has it.

    Args:
        row: one row, its keys already those of a format.
        where: file and row number, for errors.
        format: of prompts, or an answer format, whose last answer becomes the one to compare with.

    Raises:
        InputError: there is no prompt.
    """
    name = where.name
    if format == "prompts":
        asked, answer = where.need(row, "prompt"), _right_answer(row, where)
        columns = {key: value for key, value in row.items() if key != "prompt"}
        if isinstance(asked, list):
            messages = with_system(messages_of(asked, "prompt", where), row, where)
            _require_open(messages, "prompt", where)
            return Example(where.number, name, format, messages=messages, answer=answer, columns=columns)
        text = where.text(row, "prompt")
        _require_text(text, "prompt", where)
        if is_given(row.get("system")):
            messages = with_system([{"role": "user", "content": text}], row, where)
            return Example(where.number, name, format, messages=messages, answer=answer, columns=columns)
        return Example(where.number, name, format, prompt=text, answer=answer, columns=columns)
    if format == "messages":
        turns = conversation(row, where, answered=False)
        columns = {key: value for key, value in row.items() if key not in LIST_KEYS}
        if turns[-1]["role"] != "assistant":
            return Example(
                where.number, name, format, messages=turns, answer=_right_answer(row, where), columns=columns
            )
    else:
        columns = dict(row)
    asked, answer = split_prompt(parse_answer(row, where, format))
    if isinstance(asked, str):
        _require_text(asked, "prompt", where)
        return Example(where.number, name, format, prompt=asked, answer=answer, columns=columns)
    return Example(where.number, name, format, messages=asked, answer=answer, columns=columns)


def _prompt(row: dict[str, Any], where: Where) -> Asked:
    """The messages of the prompt (none where the two conversations hold it) and the keys that were read."""
    if "instruction" in row:
        keys = ("instruction", "input", "system", "history")
        return Asked(instruction_prompt(row, where), keys, is_text=True)
    if any(key in row for key in LIST_KEYS):
        return Asked(conversation(row, where, answered=False), (*LIST_KEYS, "system"))
    value = row.get("prompt")
    if isinstance(value, list) and value and is_message(value[0]):
        return Asked(with_system(messages_of(value, "prompt", where), row, where), ("prompt", "system"))
    if isinstance(value, str) and value.strip():
        text: Message = {"role": "user", "content": value}
        return Asked(with_system([text], row, where), ("prompt", "system"), is_text=True)
    # A prompt of any other kind was not read, so it must be named.
    return Asked([], () if is_given(value) and not isinstance(value, str) else ("prompt",))


def _answer(value: Any, key: str, where: Where) -> list[Message]:
    if value is None:
        raise where.error(f"{key} is null", key, "Add the answer, or remove the row")
    if isinstance(value, str):
        _require_text(value, key, where)
        return [{"role": "assistant", "content": value}]
    return messages_of([value] if isinstance(value, dict) else value, key, where)


def _right_answer(row: dict[str, Any], where: Where) -> str | None:
    key = next((key for key in ANSWER_KEYS if row.get(key) is not None), None)
    if key is None:
        return None
    value = row[key]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else where.text(row, key)


def _require_open(messages: list[Message], key: str, where: Where) -> None:
    if messages[-1]["role"] == "assistant":
        raise where.error("the prompt ends with an assistant message", key, "End it with a user message")


def _require_text(text: str, key: str, where: Where) -> None:
    if why := emptiness(text):
        raise where.error(f"{key} {why}", key, "Add it, or remove the row")


def _require_different(better: Any, worse: Any, where: Where) -> None:
    if better == worse:
        raise where.error(
            "chosen and rejected are identical", "rejected", "Remove the row, or write a different rejected answer"
        )


def _unused(row: dict[str, Any], *used: str) -> tuple[str, ...]:
    return tuple(key for key in row if key not in used)

"""A conversation as text by the tokenizer's own chat template, with nothing of it lost.

Templates differ in how they want tool calls: arguments as an object or as JSON text, an empty content or none. They
are never read: each way is tried with marked parts, and the one that writes all of them is taken. A part that no way
writes would vanish from the training text, so the row is refused with the reason.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from studio.data.formats.conversations import Message
from studio.data.masks.spans import Render, TemplateRefusedError, unused_word
from studio.data.sandbox.bounds import Budget, OutOfBoundsError
from studio.data.sandbox.process import SANDBOX, Refusal

Tools = list[dict[str, Any]]


class LostError(Exception):
    """The template leaves out a part of the row; the text says which, after "the model's chat template ...".

    Args:
        reason: which part.
        fix: what to do.
    """

    def __init__(self, reason: str, fix: str) -> None:
        self.fix = fix
        super().__init__(reason)


@dataclass(frozen=True)
class CallWay:
    """How a template wants tool calls.

    Attributes:
        as_text: arguments as JSON text, not as an object.
        content: whether a message that only calls has a content, an empty one.
    """

    as_text: bool = False
    content: bool = True


_WAYS = [CallWay(as_text, content) for as_text in (False, True) for content in (True, False)]
_READ = ("role", "content", "name", "tool_call_id", "reasoning_content")
_CORRECT = "Set data.template to a built-in one, or fix the template in the model's folder"
_OTHER_TEMPLATE = "Set data.template: chatml, use a model whose template renders them, or remove them from the row"


class Renderer:
    """The chat template of one tokenizer as a function of messages."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._ways = list(_WAYS)
        self._budget = Budget()
        self._reasons: bool | None = None

    def of(self, messages: Sequence[Message], tools: Tools | None = None) -> Render:
        """Return the template as a function of a conversation like this one.

        Raises:
            LostError: the template does not write the tools, the calls or the reasoning.
            TemplateRefusedError: from the template.
        """
        if any("reasoning_content" in message for message in messages) and not self._writes_reasoning():
            fix = "Put it in the content the way the model writes it, or remove it"
            raise LostError("does not render reasoning_content, so it would be lost", fix)
        called = tools or any("tool_calls" in message for message in messages)
        way = self._way(messages, tools) if called else CallWay()
        return lambda turns, prompt: self.text(turns, prompt, tools, way)

    def text(self, messages: Sequence[Message], add_generation_prompt: bool, tools: Tools | None, way: CallWay) -> str:
        """Render.

        Args:
            messages: of one conversation.
            add_generation_prompt: end with what begins an answer.
            tools: functions the model may call; None for none.
            way: how this template takes tool calls.

        Raises:
            TemplateRefusedError: whatever the template raises; it is a program that others wrote.
            OutOfBoundsError: it takes too much time or memory.
        """
        (text,) = self._apply([[_turn(message, way) for message in messages]], add_generation_prompt, tools)
        if isinstance(text, Refusal):
            raise TemplateRefusedError(text)
        return text

    def many(self, conversations: Sequence[Sequence[Message]], add_generation_prompt: bool) -> list[str | None]:
        """Render conversations without tools and calls in one go, which is faster; None for what the template refuses.

        Args:
            conversations: the messages of each.
            add_generation_prompt: whether the texts end where the model begins to answer.

        Raises:
            OutOfBoundsError: the template takes too much; `at` says for which.
        """
        if not conversations:
            return []
        way = CallWay()
        turns = [[_turn(message, way) for message in messages] for messages in conversations]
        texts = self._apply(turns, add_generation_prompt, None)
        return [None if isinstance(text, Refusal) else text for text in texts]

    def _apply(self, conversations: list[Any], add_generation_prompt: bool, tools: Tools | None) -> list[str]:
        """The renderings, as transformers' `apply_chat_template` makes them, or what the template raised."""
        if type(self.tokenizer).apply_chat_template is not _own_method():  # code that the person let in
            return [self._by_its_own(turns, add_generation_prompt, tools) for turns in conversations]
        try:
            template = self.tokenizer.get_chat_template(None, tools or None)
        except ValueError as error:
            return [Refusal(error) for _ in conversations]
        shared = {
            "tools": tools or None, "documents": None, "add_generation_prompt": add_generation_prompt,
            **{name: str(token) for name, token in self.tokenizer.special_tokens_map.items()},
        }  # fmt: skip
        items = [{"messages": [_aliased(turn) for turn in turns]} for turns in conversations]
        try:
            return SANDBOX.render("chat", template, shared, items, self._budget)
        except OutOfBoundsError as error:
            raise OutOfBoundsError(
                f"the model's chat template {error.what}", where="chat template", fix=_CORRECT, at=error.at
            ) from error

    def _by_its_own(self, turns: list[Any], add_generation_prompt: bool, tools: Tools | None) -> str:
        from jinja2 import TemplateError

        given = {"tools": tools} if tools else {}
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=add_generation_prompt, **given
                )
            )
        except (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            return Refusal(str(error) or type(error).__name__)

    def require_kept(self, render: Render, messages: Sequence[Message], text: str, prompt: bool = False) -> None:
        """Refuse a rendering that lacks what a user, a system or a tool says.

        Args:
            render: from `of`.
            messages: the conversation.
            text: its rendering.
            prompt: whether that was with the generation prompt.

        Raises:
            LostError: a message is not in the text, not even in other words.
        """
        folded: str | None = None
        for i, message in enumerate(messages):
            content = message["content"].strip()
            if message["role"] == "assistant" or not content or content in text:
                continue
            # Upper case or JSON quotes are no loss; a word of letters would still be seen through either.
            folded = text.casefold() if folded is None else folded
            if content.casefold() in folded:
                continue
            word = unused_word("xk", text)
            marked = [{**one, "content": word} if k == i else one for k, one in enumerate(messages)]
            if word not in render(marked, prompt).casefold():
                fix = "Move it into the user message, or set data.template to one that renders it"
                raise LostError(f"leaves out message {i + 1} ({message['role']})", fix)

    def _way(self, messages: Sequence[Message], tools: Tools | None) -> CallWay:
        marked, marked_tools, marks = _marked(messages, tools)
        errors: list[Exception] = []
        for way in self._ways:
            try:
                text = self.text(marked, False, marked_tools, way)
            except TemplateRefusedError as error:
                errors.append(error)
                continue
            if (lost := next((what for word, what in marks if not _written(word, text)), None)) is None:
                self._ways.sort(key=lambda one: one != way)  # the next row will want the same
                return way
            errors.append(LostError(lost, _OTHER_TEMPLATE))
        raise next((error for error in errors if isinstance(error, LostError)), errors[0])

    def _writes_reasoning(self) -> bool:
        if self._reasons is None:
            word = unused_word("xr", "")
            answer = {"role": "assistant", "content": "b", "reasoning_content": word}
            # transformers gives the template older names of the key as well.
            self._reasons = word in self.text([{"role": "user", "content": "a"}, answer], False, None, CallWay())
        return self._reasons


def _own_method() -> Any:
    from transformers import PreTrainedTokenizerBase

    return PreTrainedTokenizerBase.apply_chat_template


def _aliased(turn: dict[str, Any]) -> dict[str, Any]:
    """A message as transformers hands it on: without keys of no value, and its reasoning under two more names."""
    turn = {key: value for key, value in turn.items() if value is not None}
    reasoning = turn.get("reasoning_content")
    return turn if reasoning is None else {"thinking": reasoning, **turn}


def words_of(value: Any) -> str:
    """Return all texts in a value, as JSON; also those inside JSON text."""
    return json.dumps(value, ensure_ascii=False)


def _turn(message: Message, way: CallWay) -> dict[str, Any]:
    """A message as the template is given it. Keys without a value are left out: some templates ask only for the key."""
    turn: dict[str, Any] = {key: message[key] for key in _READ if key in message}
    if "tool_calls" in message:
        if not turn["content"] and not way.content:
            del turn["content"]
        turn["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _arguments(call["function"]["arguments"], way)}}
            for call in message["tool_calls"]
        ]
    return turn


def _arguments(given: Any, way: CallWay) -> Any:
    if way.as_text:
        return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return json.loads(given) if isinstance(given, str) else given


def _marked(
    messages: Sequence[Message], tools: Tools | None
) -> tuple[list[Message], Tools | None, list[tuple[str, str]]]:
    """The conversation with its parts swapped for words, and [(word, what it would mean if it were missing)]."""
    numbers = itertools.count()
    stem = unused_word("xt", words_of([list(messages), tools]))
    marks: list[tuple[str, str]] = []

    def mark(what: str) -> str:
        # A letter behind each number, so that no word is the beginning of another.
        marks.append((f"{stem}{next(numbers)}z", what))
        return marks[-1][0]

    never = "does not render the row's tools, so the model would never see them"
    named = [{**tool, "function": {**tool["function"], "name": mark(never)}} for tool in tools or ()]
    turns: list[Message] = []
    for i, message in enumerate(messages):
        turn = dict(message)
        if "tool_calls" in message:
            lost = f"does not fully render the tool calls of message {i + 1}, so they would be lost"
            if message["content"].strip():
                turn["content"] = mark(f"leaves out the text next to the tool calls of message {i + 1}")
            turn["tool_calls"] = [
                {**call, "function": {"name": mark(lost), "arguments": {mark(lost): mark(lost)}}}
                for call in message["tool_calls"]
            ]
        turns.append(turn)
    return turns, named or None, marks


def _written(word: str, text: str) -> bool:
    """Whether a mark is there as JSON or plain text has it, not escaped twice and not as Python shows it."""
    return re.search(rf"(?<!\\\")(?<!'){re.escape(word)}", text) is not None

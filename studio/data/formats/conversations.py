"""The turns of a conversation, as OpenAI, ShareGPT and their relatives write them.

A message is a dict with `role` and `content` (a text), and where the row has them `tool_calls` (OpenAI's shape, the
arguments as given: an object or JSON text), `name`, `tool_call_id`, `reasoning_content`, and `weight` 0 for an answer
that is not learned. Nothing is left out in silence: what cannot be kept is refused by name, and keys that are not read
are noted in `Where.unread`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studio.data.files.where import Where, emptiness, is_given, kind, names_of, short

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
# What files call the roles; the call turns of ShareGPT are answers of the assistant.
SYNONYMS = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "ai": "assistant", "chatbot": "assistant", "bing": "assistant", "bard": "assistant", "claude": "assistant",
    "tool": "tool", "observation": "tool", "function": "tool", "ipython": "tool", "tool_response": "tool",
    "function_response": "tool",
    "function_call": "call", "tool_call": "call", "tool_calls": "call",
}  # fmt: skip
# What may stand behind a turn, and at the beginning ("").
_AFTER = {
    "": ("system", "user"), "system": ("user",), "user": ("assistant",), "assistant": ("user",),
    "call": ("tool", "user"), "tool": ("tool", "assistant"),
}  # fmt: skip
_TAGGED = {"user": "user", "assistant": "assistant", "system": "system", "observation": "tool", "function": "call"}
_ROLE_KEYS = ("role", "from", "speaker", "author")
_CONTENT_KEYS = ("content", "value", "text", "message", "utterance")
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
# What says whether an answer is learned: OpenAI's weight, ms-swift's loss, Axolotl's train and training.
_MARKS = ("weight", "loss", "train", "training")
_REFUSED = ("images", "image", "audio", "videos", "refusal")
LIST_KEYS = ("messages", "conversations")


def conversation(row: dict[str, Any], where: Where, answered: bool = True) -> list[Message]:
    """Return the messages of a row; with `answered`, one of them must be an answer.

    Args:
        row: with `messages` or `conversations`.
        where: file and row number, for errors.
        answered: False for prompts, which the model is to answer.

    Raises:
        InputError: a turn cannot be understood, or there is nothing to learn.
    """
    key = "conversations" if "messages" not in row and "conversations" in row else "messages"
    messages = with_system(messages_of(where.need(row, key), key, where), row, where)
    if answered:
        require_answer(messages, key, where)
    return messages


def with_system(messages: list[Message], row: dict[str, Any], where: Where) -> list[Message]:
    """Return the messages with the row's own `system` text before them, unless they begin with the same one.

    Args:
        messages: at least one.
        row: its `system`, where it has one, is the system prompt.
        where: file and row number, for errors.

    Raises:
        InputError: they begin with another.
    """
    if not is_given(row.get("system")):
        return messages
    system = where.text(row, "system")
    if messages[0]["role"] != "system":
        return [{"role": "system", "content": system}, *messages]
    if messages[0]["content"].strip() != system.strip():
        what = "the row has a system prompt, and its messages begin with another one"
        raise where.error(what, "system", "Remove one of the two")
    return messages


def require_answer(messages: list[Message], key: str, where: Where) -> None:
    """Refuse a conversation without an answer.

    Args:
        messages: of the whole conversation.
        key: that holds them, for the error.
        where: file and row number, for the error.

    Raises:
        InputError: no message is the assistant's.
    """
    if not any(message["role"] == "assistant" for message in messages):
        roles = ", ".join(dict.fromkeys(message["role"] for message in messages))
        what = f"there is no assistant message, so nothing to train on; roles are: {roles}"
        raise where.error(what, key, "Add the answer, or remove the row")


def out_of_order(messages: Sequence[Message]) -> bool:
    """Whether turns do not follow each other as in a conversation: instructions, then question, answer, question …

    Calls and their results may stand between a question and its answer. A question at the end has no answer.
    """
    last = ""
    for message in messages:
        if message["role"] not in _AFTER[last]:
            return True
        last = "call" if "tool_calls" in message else message["role"]
    return last == "user"


def turn_notes(messages: Sequence[Message]) -> tuple[str, ...]:
    """Return what is worth a finding of the turns of a conversation with answers: "turns", "no_question"."""
    empty = any(one["role"] == "user" and emptiness(one["content"]) for one in messages)
    return ("turns",) * out_of_order(messages) + ("no_question",) * empty


def is_message(value: Any) -> bool:
    """Whether a value looks like a message of a conversation."""
    return isinstance(value, dict) and any(key in value for key in _ROLE_KEYS)


def messages_of(turns: Any, key: str, where: Where) -> list[Message]:
    """Return the checked messages of a list, or of a text that is the list as JSON.

    Args:
        turns: with role and content under any of the known names.
        key: that holds them, for errors.
        where: file and row number, for errors; its tags name a file's own keys and roles.

    Raises:
        InputError: a turn cannot be understood.
    """
    turns = where.json_text(turns, key)
    if not isinstance(turns, list) or not turns:
        what = "the list is empty" if turns == [] else f"expected a list of messages, got {kind(turns)}"
        raise where.error(what, key, 'Write [{"role": "user", "content": "..."}, ...]')
    return [_Turn(turn, f"{key}[{i}]", where).message() for i, turn in enumerate(turns)]


def tools_of(row: dict[str, Any], where: Where) -> list[dict[str, Any]] | None:
    """Return the tools that a row offers, in OpenAI's shape; None if there are none.

    `tools` is a list of {"type": "function", "function": {...}} or of bare functions, or either as JSON text; so is
    the older `functions`.

    Raises:
        InputError: one of them is no function with a name.
    """
    key = next((key for key in ("tools", "functions") if is_given(row.get(key))), None)
    if key is None:
        return None
    given = where.json_text(row[key], key)
    if not isinstance(given, list):
        raise where.error(f"expected a list of functions, got {kind(given)}", key, "Write [{...}, ...]")
    found = []
    for i, tool in enumerate(given):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            what = f"expected a function with a name, got {short(tool)}"
            fix = 'Write {"type": "function", "function": {"name": "...", "parameters": {...}}}'
            raise where.error(what, f"{key}[{i}]", fix)
        found.append({"type": "function", "function": function})
    return found or None


class _Turn:
    """One turn as the file has it."""

    def __init__(self, turn: Any, label: str, where: Where) -> None:
        if not isinstance(turn, dict):
            what = f"a message must be an object, not {kind(turn)}: {short(turn)}"
            raise where.error(what, label, 'Write {"role": "user", "content": "..."}')
        self.turn, self.label, self.where = turn, label, where
        self.role_key = where.tags.get("role") or next((key for key in _ROLE_KEYS if key in turn), "")
        usual = "value" if self.role_key == "from" and "content" not in turn else "content"
        keys = (usual, *_CONTENT_KEYS)
        self.content_key = where.tags.get("content") or next((key for key in keys if key in turn), usual)
        if not self.role_key:
            keys_here = names_of(turn)
            raise where.error(
                f"cannot tell which key holds the role; keys are: {keys_here}",
                label,
                "Rename it to role, or set the file's tags, such as role=speaker, content=utterance",
            )
        texts = {key: turn[key] for key in _CONTENT_KEYS if isinstance(turn.get(key), str) and turn[key].strip()}
        if "content" not in where.tags and len(set(texts.values())) > 1:
            what = f"the message has several text fields: {', '.join(texts)}"
            raise where.error(what, label, "Remove all but one, or set the file's tags, such as content=text")
        self.read = {self.role_key, self.content_key, *_MARKS, *_REFUSED}

    def message(self) -> Message:
        for key in _REFUSED:
            if is_given(self.turn.get(key)):
                raise self._error(f"'{key}' is not supported", key, f"Remove '{key}', or move it into the content")
        role = self._role()
        message = self._called() if role == "call" else self._said(role)
        self._add_weight(message)
        self._note_unread(message)
        return message

    def _called(self) -> Message:
        calls = self._calls(self.where.need(self.turn, self.content_key, self.label), self.content_key)
        return {"role": "assistant", "content": "", "tool_calls": calls}

    def _said(self, role: str) -> Message:
        message: Message = {"role": role, "content": ""}
        calls = self._tool_calls() if role == "assistant" else []
        if not calls or self.turn.get(self.content_key) is not None:
            message["content"] = self.where.text(self.turn, self.content_key, self.label)
        if calls:
            message["tool_calls"] = calls
        elif role == "assistant" and (why := emptiness(message["content"])):
            raise self._error(f"the assistant's answer {why}", self.content_key, "Add it, or remove the row")
        if role == "assistant":
            self._add_reasoning(message)
        if role == "tool":
            message |= {
                key: self.where.text(self.turn, key, self.label)
                for key in ("name", "tool_call_id")
                if is_given(self.turn.get(key))
            }
            self.read |= {"name", "tool_call_id"}
        return message

    def _error(self, what: str, key: str, fix: str) -> Exception:
        return self.where.error(what, f"{self.label}.{key}", fix)

    def _role(self) -> str:
        given = self.where.need(self.turn, self.role_key, self.label)
        own = {self.where.tags[tag]: role for tag, role in _TAGGED.items() if tag in self.where.tags}
        known = {**SYNONYMS, **own}
        word = given if not isinstance(given, str) or given in own else given.strip().lower()
        if not isinstance(word, str) or word not in known:
            fix = f"Use one of: {', '.join(ROLES)}"
            if isinstance(given, str):  # only texts can be named in tags
                fix += "; or set the file's tags, such as user=customer, assistant=agent"
            raise self._error(f"unknown role {short(given)}", self.role_key, fix)
        return known[word]

    def _tool_calls(self) -> list[dict[str, Any]]:
        key = next((key for key in ("tool_calls", "function_call") if is_given(self.turn.get(key))), None)
        return [] if key is None else self._calls(self.turn[key], key)

    def _calls(self, value: Any, key: str) -> list[dict[str, Any]]:
        self.read.add(key)
        given = self.where.json_text(value, f"{self.label}.{key}")
        calls = [given] if isinstance(given, dict) else given
        if not isinstance(calls, list) or not calls:
            raise self._error(f"expected a call with name and arguments: {short(value)}", key, _CALL_FIX)
        return [self._call(call, f"{key}[{i}]") for i, call in enumerate(calls)]

    def _call(self, call: Any, key: str) -> dict[str, Any]:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise self._error(f"expected a call with a name, got {short(call)}", key, _CALL_FIX)
        arguments = function.get("arguments", function.get("parameters", {}))
        read = self.where.json_text(arguments, f"{self.label}.{key}.arguments")
        if not isinstance(read, dict):
            what = f"arguments must be an object or JSON text of one, not {short(arguments)}"
            raise self._error(what, f"{key}.arguments", 'Write {"city": "Paris"}, or {} for a call without arguments')
        identity = {"id": str(call["id"])} if is_given(call.get("id")) else {}
        return {**identity, "type": "function", "function": {"name": function["name"], "arguments": arguments}}

    def _add_reasoning(self, message: Message) -> None:
        key = next((key for key in _REASONING_KEYS if is_given(self.turn.get(key))), None)
        if key is not None:
            message["reasoning_content"] = self.where.text(self.turn, key, self.label)
            self.read.add(key)

    def _add_weight(self, message: Message) -> None:
        marks = {key: self._mark(key) for key in _MARKS if self.turn.get(key) is not None}
        if len(set(marks.values())) > 1:
            what = f"{' and '.join(marks)} contradict each other"
            raise self._error(what, next(reversed(marks)), "Remove all but one")
        for key, trained in marks.items():
            if message["role"] != "assistant" and trained:
                fix = f"Remove the {key}, or set method.train_on: all to train on every token"
                raise self._error(f"a {message['role']} message is never trained on", key, fix)
            if message["role"] == "assistant" and not trained:
                message["weight"] = 0

    def _mark(self, key: str) -> bool:
        """Whether a mark says that the answer is learned: a weight as a number, the others as true or false, too."""
        value = self.turn[key]
        if value not in (0, 1) or (key == "weight" and isinstance(value, bool)):
            no, yes, what = ("0", "1", "a weight") if key == "weight" else ("false", "true", key)
            fix = f"Set it to {no} to use the answer as context only, or to {yes} to train on it"
            raise self._error(f"{what} must be {no} or {yes}, not {short(value)}", key, fix)
        return bool(value)

    def _note_unread(self, message: Message) -> None:
        """Name the keys that say something and were not read; what only says the same once more is no loss."""
        if self.turn.keys() <= self.read:
            return
        same = [self.turn.get(self.content_key), message["content"], message.get("reasoning_content")]
        for key, value in self.turn.items():
            if key in self.read or not is_given(value) or value in same:
                continue
            if key in _ROLE_KEYS and isinstance(value, str) and SYNONYMS.get(value.strip().lower()) == message["role"]:
                continue
            self.where.unread.add(f"{self.label.rpartition('[')[0]}[].{key}")


_CALL_FIX = 'Write {"name": "...", "arguments": {...}}'

"""A chat template taken apart into what stands around each message, so that it can be written in another language.

Only conversations of system, user and assistant: the template is rendered for some with known words in them, what
stands between the words is read off, and whether that is all there is to it is found by rendering other conversations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

Message = dict[str, str]
_SYSTEM, _QUESTION, _ANSWER, _NEXT = "studioSystemText", "studioQuestionOne", "studioAnswerOne", "studioQuestionTwo"


@dataclass(frozen=True)
class Turns:
    """What stands around messages.

    Attributes:
        start: token that begins a text, where the template writes it itself; "" where it does not.
        head: then, before a conversation that does not begin with a system message.
        system: (before, after) of a system message; None: the template takes none.
        user: (before, after) of a question.
        assistant: (before, after) of an answer.
        closing: after the last question, where the answer begins.
    """

    start: str
    head: str
    system: tuple[str, str] | None
    user: tuple[str, str]
    assistant: tuple[str, str]
    closing: str

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt of a conversation that ends with a question."""
        around = {"system": self.system or ("", ""), "user": self.user, "assistant": self.assistant}
        head = "" if messages and messages[0]["role"] == "system" else self.head
        parts = [
            before + message["content"] + after for message in messages for before, after in [around[message["role"]]]
        ]
        return self.start + head + "".join(parts) + self.closing

    def in_go(self, start: bool) -> str:
        """Return the same in Go's template language, with the names that Ollama gives (`.Messages`, `.Role`).

        Args:
            start: with the token that begins a text; without it for programs that add it by themselves.
        """
        cases = [("user", self.user), ("assistant", self.assistant)]
        cases = [("system", self.system), *cases] if self.system else cases
        branches = "{{ else if eq .Role ".join(
            f'"{role}" }}}}{_literal(before)}{{{{ .Content }}}}{_literal(after)}' for role, (before, after) in cases
        )
        head = _literal(self.head)
        begin = f'{{{{ if ne (index .Messages 0).Role "system" }}}}{head}{{{{ end }}}}' if head else ""
        body = f"{{{{ range .Messages }}}}{{{{ if eq .Role {branches}{{{{ end }}}}{{{{ end }}}}"
        first = _literal(self.start) if start else ""
        return f"{{{{ if .Messages }}}}{first}{begin}{body}{_literal(self.closing)}{{{{ end }}}}"


def taken_apart(render: Callable[[list[Message]], str], start: str = "", end: str = "") -> Turns | None:
    """Read off what stands around messages; None where a template does something else with them.

    Args:
        render: gives the prompt of a conversation; raises whatever it likes for one that the template refuses.
        start: text of the token that begins a text; "" for none.
        end: text that ends an answer, behind which the parts are divided as a person would; "" for none.
    """
    question, then = {"role": "user", "content": _QUESTION}, {"role": "user", "content": _NEXT}
    answer, system = {"role": "assistant", "content": _ANSWER}, {"role": "system", "content": _SYSTEM}
    talks = [_between(render, talk) for talk in ([question], [question, answer, then], [system, question])]
    alone, several, told = talks
    if alone is None or several is None or several[0] != alone[0] or several[3] != alone[1]:
        return None
    if told is not None and told[2] != alone[1]:
        return None
    # SmolLM2's begins every turn, too, and is none of these.
    begun = bool(start) and "".join(several).count(start) == 1 and all(t[0].startswith(start) for t in talks if t)
    for talk in (alone, several, told):
        if begun and talk is not None:
            talk[0] = talk[0].removeprefix(start)
    befores = [alone[0], several[2], *([told[1]] if told else [])]
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*map(reversed, befores), strict=False))
    before = "".join(letters[0] for letters in same)[::-1]
    before = before[len(_through(before, end)) :]
    after = _through(alone[1], end)
    after = after if several[1].startswith(after) else ""

    def rest(text: str) -> str:
        return text[: len(text) - len(before)]

    return Turns(
        start=start if begun else "",
        head=rest(alone[0]),
        system=(told[0], rest(told[1])) if told else None,
        user=(before, after),
        assistant=(several[1][len(after) :], rest(several[2])),
        closing=alone[1][len(after) :],
    )


def _through(text: str, end: str) -> str:
    """The text up to the first `end` and the blanks behind it; "" where that does not stand in it."""
    found = re.match(rf".*?{re.escape(end)}\s*", text, re.DOTALL) if end else None
    return found[0] if found else ""


def differing(turns: Turns, prompts: Iterable[tuple[str, Sequence[Message], str]]) -> tuple[list[str], list[str]]:
    """Find conversations that a template renders otherwise than Ollama would.

    Args:
        turns: what was read off.
        prompts: (name, messages, the template's own rendering).

    Returns:
        Names of those that differ only because the template removes blanks around messages, and of all others.
    """
    blanks: list[str] = []
    others: list[str] = []
    for name, messages, text in prompts:
        joined = _joined(messages)
        if turns.render(joined) == text:
            continue
        stripped = [message | {"content": message["content"].strip()} for message in joined]
        (blanks if turns.render(stripped) == text else others).append(name)
    return blanks, others


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Messages of one role that follow each other as one, with a blank line between: Ollama does that first."""
    found: list[Message] = []
    for message in messages:
        if found and found[-1]["role"] == message["role"]:
            found[-1] = message | {"content": f"{found[-1]['content']}\n\n{message['content']}"}
        else:
            found.append(message)
    return found


def _between(render: Callable[[list[Message]], str], messages: list[Message]) -> list[str] | None:
    """What stands before, between and after the messages' words; None unless each stands there once, in order."""
    try:
        rest: str = render(messages)
    except Exception:  # a template raises whatever it likes
        return None
    found = []
    for message in messages:
        if rest.count(message["content"]) != 1:
            return None
        before, _, rest = rest.partition(message["content"])
        found.append(before)
    return [*found, rest]


def _literal(text: str) -> str:
    # A brace at the end would open Go's next action with it.
    return re.sub(r"\{\{|\{\Z", lambda found: f'{{{{ "{found[0]}" }}}}', text)


def as_values(turns: Turns | None) -> dict[str, Any] | None:
    """Return the turns as JSON can hold them."""
    return None if turns is None else dict(vars(turns))


def from_values(values: dict[str, Any]) -> Turns:
    """Return the turns of `as_values`."""
    system = values["system"]
    pairs = {name: tuple(values[name]) for name in ("user", "assistant")}
    return Turns(**values | pairs | {"system": tuple(system) if system else None})

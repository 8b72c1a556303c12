"""Control tokens spelt in a row's text: `<|im_end|>` in a question would end the turn.

A tokenizer reads such a string as the token, so a row could write markup of its own. It is refused with its place.
transformers could read it as ordinary text, llama.cpp and other servers of an exported model could not: the same
words would then mean two things, so there is no such choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from studio.data.files.datafiles import place
from studio.data.formats.answers import Example
from studio.data.masks.rendering import Renderer, words_of
from studio.data.masks.spans import TemplateRefusedError
from studio.errors import InputError


class ControlTokenError(InputError):
    """A text spells a control token of the model."""


class ControlTokens:
    """The control tokens of one tokenizer.

    Special tokens, other added tokens in the usual brackets, and those that the template writes around a question.
    Tags that an answer may hold (`<think>`, `<tool_call>`) are none.

    Args:
        tokenizer: a transformers tokenizer.
        renderer: its chat template.
        special, added: its special tokens, and all added ones.
        keep: whether plain texts may spell them.
    """

    def __init__(
        self, tokenizer: Any, renderer: Renderer, special: Iterable[str], added: Iterable[str], keep: bool
    ) -> None:
        self._tokenizer, self.keep = tokenizer, keep
        self._pattern = any_of({*special, *_markup(renderer, [word for word in added if word.strip()])})

    def require_messages(self, example: Example) -> None:
        """Refuse a conversation with a control token in any of its texts, calls or tools.

        Raises:
            InputError: there is one.
        """
        for part, text in texts_of(example):
            if self._pattern is not None and (match := self._pattern.search(text)):
                what = f"{part} contains {match.group()!r}"
                fix = "Write it another way, for example with a space in it"
                if example.format not in ("messages", "instruction"):
                    fix += "; for texts that already have the model's own markup, set data.control_tokens: keep"
                raise _spelt(example, what, "", fix)

    def require_text(self, example: Example, texts: Mapping[str, str]) -> None:
        """Refuse plain texts with a control token; a BOS at the start and an EOS at the end are added anyway.

        Args:
            example: the row.
            texts: its texts by their keys, in order.

        Raises:
            InputError: there is one, and they are not to be kept.
        """
        if self.keep or self._pattern is None:
            return
        first, last = next(iter(texts)), list(texts)[-1]
        for key, text in texts.items():
            inner = text.removeprefix(self._tokenizer.bos_token or "") if key == first else text
            inner = inner.removesuffix(self._tokenizer.eos_token or "") if key == last else inner
            if match := self._pattern.search(inner):
                fix = "Remove it, or set data.control_tokens: keep if the texts already have the model's own markup"
                raise _spelt(example, f"the text contains {match.group()!r}", key, fix)

    def note(self, text: str) -> tuple[str, ...]:
        """Return ("control",) if a plain text spells a control token."""
        return ("control",) if self._pattern is not None and self._pattern.search(text) else ()


def texts_of(example: Example) -> Iterable[tuple[str, str]]:
    """Yield (which part, its text) of everything that a template is given."""
    for i, message in enumerate(example.messages or ()):
        part = f"message {i + 1} ({message['role']})"
        yield part, message["content"]
        yield part, message.get("reasoning_content", "")
        for call in message.get("tool_calls", ()):
            yield part, words_of(call["function"])
    if example.tools:
        yield "the list of tools", words_of(example.tools)


def _markup(renderer: Renderer, added: Iterable[str]) -> set[str]:
    bracketed = {word for word in added if word.startswith(("<|", "<\uff5c"))}
    if not renderer.tokenizer.chat_template:
        return bracketed
    question = [{"role": "user", "content": "a"}]
    try:
        text = renderer.of(question)(question, False)
    except TemplateRefusedError:
        return bracketed
    return bracketed | {word for word in added if word in text}


def _spelt(example: Example, what: str, key: str, fix: str) -> ControlTokenError:
    return ControlTokenError(
        f"{what}, which the tokenizer turns into a special token",
        where=place(example.path, example.row, key),
        fix=fix,
    )


def any_of(words: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds any of the words, the longest first; None without words."""
    longest_first = sorted((word for word in words if word), key=lambda word: (-len(word), word))
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

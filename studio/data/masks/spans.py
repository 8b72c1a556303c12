"""Where the answers stand in a rendered conversation, for any chat template.

The template is only ever called, never read: an answer starts where the generation prompt of the messages before it
ends, and its end is found by rendering once more with the answer swapped for a marker. What these renderings do not
fix to the character is refused with the reason. It knows characters only; `masks` turns them into tokens.

    <|im_start|>user\\n2+2?<|im_end|>\\n<|im_start|>assistant\\n4<|im_end|>\\n
    |---- rendering of the messages before it, generation prompt included ----|
                                                           start ^^^^^^^^^^^ end
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from studio.data.formats.conversations import Message

# (messages, add_generation_prompt) -> text
Render = Callable[[Sequence[Message], bool], str]


class UnmaskableError(Exception):
    """The template does not show exactly where an answer begins or ends; the text says why.

    Args:
        reason: why.
        only_middle: True if the last answer of the conversation does not have this trouble.
    """

    def __init__(self, reason: str, only_middle: bool = False) -> None:
        self.only_middle = only_middle
        super().__init__(reason)


class TemplateRefusedError(Exception):
    """The template itself raised an error for these messages; the text is the template's."""


@dataclass(frozen=True)
class Span:
    """One answer in the rendered text, in characters.

    Attributes:
        start: first character that the model writes (what follows the generation prompt).
        content_end: end of what became of the message's content; in a tool call, of its last function's name.
        end: end of the turn; `text[content_end:end]` is what tells the model to stop.
        rewritten: the template changed the content by more than the blanks around it.
        prompt_extra: what the generation prompt has and the training text has not ("" as a rule).
        header: True if the template has no generation prompt, so the turn's header is part of the span.
        other_context: True if the last answer's prompt has another text further before it than training has.
    """

    start: int
    content_end: int
    end: int
    rewritten: bool = False
    prompt_extra: str = ""
    header: bool = False
    other_context: bool = False


@dataclass(frozen=True)
class TurnEnds:
    """The tokens that can end a turn.

    Attributes:
        special: pattern of the tokenizer's special tokens; None if it has none.
        added: pattern of its other added tokens that are not only blanks; None if it has none.
        breaks: whether the blanks that follow such a token belong to the turn.
    """

    special: re.Pattern[str] | None
    added: re.Pattern[str] | None
    breaks: bool = False

    def of(self, tail: str) -> str:
        """Return the part of `tail` (what follows the last answer of a text) that ends the turn.

        It reaches through the first special token. So the line break that ChatML has after `<|im_end|>` is not part
        of it (the model has stopped by then) unless `breaks` asks for it, nor is the second end mark that Phi-3 adds
        to a whole text. A template without any such token ends its turns with the text itself, blanks included.
        """
        for pattern in (self.special, self.added):
            if pattern is not None and (match := pattern.search(tail)):
                behind = tail[match.end() :]
                return tail[: len(tail) - len(behind.lstrip() if self.breaks else behind)]
        return tail

    def is_special(self, text: str) -> bool:
        """Whether a special token stands in `text`."""
        return self.special is not None and self.special.search(text) is not None


def locate_answers(
    render: Render, messages: Sequence[Message], wanted: Sequence[int], ends: TurnEnds
) -> tuple[str, list[Span]]:
    """Return the rendered conversation and the spans of the wanted answers.

    Args:
        render: the chat template as a function.
        messages: the conversation.
        wanted: indices of assistant messages, ascending.
        ends: tokens that can end a turn.

    Raises:
        UnmaskableError: a span cannot be told exactly.
        TemplateRefusedError: from `render`.
    """
    full = render(messages, False)
    spans = [_Search(render, messages, index, full, ends).span() for index in wanted]
    for one, two in itertools.pairwise(spans):
        if one.end > two.start:
            raise UnmaskableError("two answers overlap in the rendered text")
    return full, spans


class _Search:
    """The search for one answer."""

    def __init__(self, render: Render, messages: Sequence[Message], index: int, full: str, ends: TurnEnds) -> None:
        self.render, self.messages, self.index, self.full, self.ends = render, messages, index, full, ends
        self.mark = unused_word("xa", full)

    def span(self) -> Span:
        swapped = _swap(self.messages, self.index, self.mark)
        before, after = self._split(self.render(swapped, False), self.mark)
        if not self.full.endswith(after):
            raise UnmaskableError(f"the text after {self._name} depends on what the answer says")
        content_end = len(self.full) - len(after)
        span = self._start(before, content_end)
        shown = self.full[span.start : content_end]
        message = self.messages[self.index]
        said = [message["content"].strip(), message.get("reasoning_content", "").strip()]
        if not shown.strip():
            raise UnmaskableError(f"the template renders nothing of {self._name}")
        last = self.index == len(self.messages) - 1
        tail = after if last else self._split(self.render(swapped[: self.index + 1], False), self.mark)[1]
        stop = self.ends.of(tail)
        if "tool_calls" in message and not self.ends.is_special(stop):
            raise UnmaskableError(f"the template has no special token after {self._name}, a tool call")
        if not after.startswith(stop):
            raise UnmaskableError(
                f"{self._name} is followed by {after[:20]!r}, but at the end of a text by {tail[:20]!r}: "
                "cannot tell which part of that ends the turn",
                only_middle=not last,
            )
        return replace(span, end=content_end + len(stop), rewritten=any(part not in shown for part in said))

    def _start(self, before: str, content_end: int) -> Span:
        """The span with its start set: the end of the generation prompt.

        A rendering of the messages so far is a prefix of the whole in nearly every template. Where it is not (a system
        text that moves to the last question, a prompt that opens `<think>`), the prompt is compared with the training
        text from the message before the answer on.
        """
        head = self._prompt(self.messages[: self.index])
        if head is not None and self.full.startswith(head) and len(head) <= content_end:
            inserted = before[len(head) :] if before.startswith(head) else ""
            # Before a call there may be a mark that the model writes itself.
            header = "tool_calls" not in self.messages[self.index] and self.ends.is_special(inserted)
            return Span(len(head), content_end, content_end, header=header)
        if not self.full.startswith(before) or len(before) > content_end:
            raise UnmaskableError(f"the text before {self._name} depends on what the answer says")
        extra = 0
        prompt_extra = ""
        other_context = False
        if head is not None and self.index > 0:
            prompt, text = self._after_previous(before)
            final = not any(message["role"] == "assistant" for message in self.messages[self.index + 1 :])
            other_context = final and not self.full.startswith(head.removesuffix(prompt))
            if text.startswith(prompt):
                extra = len(text) - len(prompt)
            elif prompt.startswith(text):
                prompt_extra = prompt[len(text) :]
            else:
                raise UnmaskableError(
                    f"the generation prompt {prompt[-40:]!r} is not what comes before {self._name}: {text[-40:]!r}"
                )
        return Span(
            len(before) - extra, content_end, content_end, prompt_extra=prompt_extra, other_context=other_context
        )

    def _after_previous(self, before: str) -> tuple[str, str]:
        """What follows the message before the answer: (in the generation prompt, in the training text)."""
        previous = unused_word("xb", self.full + self.mark)
        marked = _swap(self.messages, self.index - 1, previous)
        prompt = self._split(self.render(marked[: self.index], True), previous)[1]
        whole = self._split(self.render(_swap(marked, self.index, self.mark), False), previous)[1]
        if self.mark not in whole:
            raise UnmaskableError(f"the template does not render {self._name} after the previous message")
        text = self._split(whole, self.mark)[0]
        if not before.endswith(text):
            raise UnmaskableError(f"the text before {self._name} depends on the previous message")
        return prompt, text

    def _prompt(self, messages: Sequence[Message]) -> str | None:
        """The rendering with the generation prompt; None where the template refuses to end there."""
        try:
            return self.render(messages, True)
        except TemplateRefusedError:
            return None

    def _split(self, text: str, mark: str) -> tuple[str, str]:
        parts = text.split(mark)
        if len(parts) != 2:
            times = "not at all" if len(parts) == 1 else f"{len(parts) - 1} times"
            raise UnmaskableError(f"the template renders a message's content {times}")
        return parts[0], parts[1]

    @property
    def _name(self) -> str:
        return f"the answer in message {self.index + 1}"


def _swap(messages: Sequence[Message], index: int, word: str) -> list[Message]:
    """The messages with one said as `word`: its content, or the name of its last call."""
    message = messages[index]
    if "tool_calls" in message:
        *calls, last = message["tool_calls"]
        changed = {**message, "tool_calls": [*calls, {**last, "function": {**last["function"], "name": word}}]}
    else:
        changed = {**message, "content": word}
    return [*messages[:index], changed, *messages[index + 1 :]]


def unused_word(stem: str, text: str) -> str:
    """Return a word that `text` does not hold."""
    # Letters only, and no word: nothing that a template would trim, split, escape or look for.
    word = f"studio{stem}mark"
    while word in text:
        word += "q"
    return word

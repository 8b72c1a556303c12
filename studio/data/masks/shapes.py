"""Where answers stand in conversations of a shape that was searched before.

`spans` renders a conversation several times to find its answers. Rows of a set are alike: the same roles in the same
order, of which the template writes the same text around the contents. That text is learned from the first such row.
A later row is rendered as it is, and once up to each answer with the generation prompt; only if both are to the
character what the learned text and its own contents make, its answers stand where theirs did. Any other row is
searched as before. Of a template that never looks at contents (`oblivious`) only one row in a batch is rendered.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from studio.data.formats.conversations import Message
from studio.data.masks.oblivious import only_writes_contents
from studio.data.masks.rendering import Renderer
from studio.data.masks.spans import Render, Span, TemplateRefusedError, unused_word
from studio.data.sandbox.bounds import OutOfBoundsError

# What a message may have: tools, calls and reasoning are written in too many ways.
_PLAIN = {"role", "content", "weight"}

Key = tuple[tuple[str, ...], tuple[int, ...]]
Located = tuple[str, list[Span]]
# (messages, indices of the wanted answers, ascending)
Conversation = tuple[Sequence[Message], Sequence[int]]


@dataclass(frozen=True)
class Shape:
    """What a template writes around the contents of conversations with the same roles.

    Attributes:
        pieces: (messages + 1) texts: before the first content, between two, behind the last.
        lead: for each wanted answer, characters from where the model begins to write to its content.
        stop: for each, characters behind its content that end the turn.
        trims: for each message, whether the blanks around its content are left out; None if it cannot be told.
    """

    pieces: tuple[str, ...]
    lead: tuple[int, ...]
    stop: tuple[int, ...]
    trims: tuple[bool, ...] | None = None

    def contents(self, messages: Sequence[Message], text: str) -> list[str] | None:
        """The contents as they stand in a rendering, with or without the blanks around them; None for another text."""
        whole = [message["content"] for message in messages]
        for contents in (whole, [one.strip() for one in whole]):
            if self.text(contents) == text:
                return contents
        return None

    def text(self, contents: Sequence[str]) -> str:
        """The text with these contents."""
        parts = itertools.chain.from_iterable(zip(self.pieces, contents, strict=False))
        return "".join([*parts, self.pieces[-1]])

    def known(self, messages: Sequence[Message], wanted: Sequence[int]) -> Located | None:
        """The text and the spans without a rendering, of a template that never looks at contents."""
        if self.trims is None:
            return None
        pairs = zip(messages, self.trims, strict=True)
        contents = [one["content"].strip() if trims else one["content"] for one, trims in pairs]
        if not all(contents[index].strip() for index in wanted):
            return None
        return self.text(contents), self.spans(contents, wanted)

    def spans(self, contents: Sequence[str], wanted: Sequence[int]) -> list[Span]:
        """Where the wanted answers stand in that text."""
        starts, at = [], 0
        for piece, content in zip(self.pieces, contents, strict=False):
            starts.append(at + len(piece))
            at += len(piece) + len(content)
        found = []
        for index, lead, stop in zip(wanted, self.lead, self.stop, strict=True):
            end = starts[index] + len(contents[index])
            found.append(Span(starts[index] - lead, end, end + stop))
        return found


class Shapes:
    """The shapes that one tokenizer's template has shown so far.

    Args:
        renderer: the template.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._oblivious = only_writes_contents(renderer.tokenizer.chat_template or "")
        self._known: dict[Key, Shape | None] = {}

    def unseen(self, conversations: Mapping[int, Conversation]) -> list[int]:
        """Return the number of one conversation of each shape that was not searched yet."""
        new: dict[Key, int] = {}
        for number, (messages, wanted) in conversations.items():
            key = _key(messages, wanted)
            if key is not None and key not in self._known:
                new.setdefault(key, number)
        return list(new.values())

    def locate(self, conversations: Sequence[Conversation]) -> list[Located | None]:
        """Return text and spans of conversations, as `spans.locate_answers` does; None where it has to search."""
        shapes = [self._shape(messages, wanted) for messages, wanted in conversations]
        found: list[Located | None] = [None] * len(conversations)
        if self._oblivious:
            for i, shape in enumerate(shapes):
                found[i] = None if shape is None else shape.known(*conversations[i])
            # The proof is short, but a rendering is cheap.
            sure = next((i for i, one in enumerate(found) if one is not None), None)
            if sure is None or self._compared([conversations[sure]], [shapes[sure]]) == [found[sure]]:
                return found
            self._oblivious = False
        return self._compared(conversations, shapes)

    def _compared(self, conversations: Sequence[Conversation], shapes: Sequence[Shape | None]) -> list[Located | None]:
        """Render conversations of known shapes and compare them with these."""
        known = [i for i, shape in enumerate(shapes) if shape is not None]
        texts = iter(self._many([conversations[i][0] for i in known], False, known))
        asked = [(i, conversations[i][0][:index]) for i in known for index in conversations[i][1]]
        prompts = iter(self._many([messages for _, messages in asked], True, [i for i, _ in asked]))
        found: list[Located | None] = [None] * len(conversations)
        for i in known:
            messages, wanted = conversations[i]
            found[i] = _matched(shapes[i], messages, wanted, next(texts), [next(prompts) for _ in wanted])
        return found

    def _many(self, conversations: Sequence[Sequence[Message]], prompt: bool, of: Sequence[int]) -> list[str | None]:
        try:
            return self._renderer.many(conversations, prompt)
        except OutOfBoundsError as error:
            error.at = of[error.at]
            raise

    def learn(
        self, render: Render, messages: Sequence[Message], wanted: Sequence[int], text: str, spans: Sequence[Span]
    ) -> None:
        """Keep what a searched conversation shows of its shape.

        Args:
            render: the template, as it was searched with.
            messages, wanted: the conversation and its wanted answers.
            text, spans: what `locate_answers` found.
        """
        key = _key(messages, wanted)
        if key is not None and key not in self._known:
            self._known[key] = _learned(render, messages, wanted, text, spans)

    def _shape(self, messages: Sequence[Message], wanted: Sequence[int]) -> Shape | None:
        key = _key(messages, wanted)
        return None if key is None else self._known.get(key)


def _key(messages: Sequence[Message], wanted: Sequence[int]) -> Key | None:
    if any(not _PLAIN.issuperset(message) for message in messages):
        return None
    return tuple(message["role"] for message in messages), tuple(wanted)


def _matched(
    shape: Shape | None, messages: Sequence[Message], wanted: Sequence[int], text: str | None, prompts: list[str | None]
) -> Located | None:
    if shape is None or text is None:
        return None
    contents = shape.contents(messages, text)
    if contents is None or not all(contents[index].strip() for index in wanted):
        return None
    spans = shape.spans(contents, wanted)
    for span, prompt in zip(spans, prompts, strict=True):
        if prompt is None or len(prompt) != span.start or not text.startswith(prompt):
            return None
    return text, spans


def _learned(
    render: Render, messages: Sequence[Message], wanted: Sequence[int], text: str, spans: Sequence[Span]
) -> Shape | None:
    """The shape of a searched conversation; None where its parts are not the same text every time."""
    if any(span != Span(span.start, span.content_end, span.end) for span in spans):
        return None  # something about it is worth a note, which is found by searching
    stem = unused_word("xs", text)
    # A letter behind each number, so that no word is the beginning of another.
    words = [f"{stem}{i}z" for i in range(len(messages))]
    try:
        marked = render([{**one, "content": word} for one, word in zip(messages, words, strict=True)], False)
    except TemplateRefusedError:
        return None
    pieces = tuple(_between(marked, words))
    if len(pieces) != len(messages) + 1:
        return None
    bare = Shape(pieces, (0,) * len(wanted), (0,) * len(wanted))
    if (contents := bare.contents(messages, text)) is None:
        return None
    lead, stop = [], []
    for index, found, whole in zip(wanted, spans, bare.spans(contents, wanted), strict=True):
        lead.append(whole.start - found.start)
        stop.append(found.end - whole.end)
        # Both ends have to lie in the texts around the content, which are the same in every row.
        inside = 0 <= lead[-1] <= len(pieces[index]) and 0 <= stop[-1] <= len(pieces[index + 1])
        if not inside or found.content_end != whole.content_end:
            return None
    return Shape(pieces, tuple(lead), tuple(stop), _trims(render, messages, words, pieces))


def _trims(
    render: Render, messages: Sequence[Message], words: Sequence[str], pieces: Sequence[str]
) -> tuple[bool, ...] | None:
    """For each message whether blanks around its content are left out, by a rendering with some."""
    try:
        text = render([{**one, "content": f" {word} "} for one, word in zip(messages, words, strict=True)], False)
    except TemplateRefusedError:
        return None
    trims, at = [], 0
    for piece, word in zip(pieces, words, strict=False):
        at += len(piece)
        trims.append(not text.startswith(f" {word} ", at))
        at += len(word) if trims[-1] else len(word) + 2
    contents = [word if trim else f" {word} " for word, trim in zip(words, trims, strict=True)]
    return tuple(trims) if Shape(tuple(pieces), (), ()).text(contents) == text else None


def _between(text: str, words: Sequence[str]) -> Iterator[str]:
    """The parts of a text around words that it has once each and in order; nothing more from where it has not."""
    for word in words:
        parts = text.split(word)
        if len(parts) != 2:
            return
        before, text = parts
        yield before
    yield text

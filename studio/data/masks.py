"""Loss masks: which tokens of an example the model is trained to write.

A conversation is rendered by the tokenizer's own chat template, tokenized whole and once, and the answers' character
spans (`spans`) are laid over the token offsets. No template is known by name and none needs `{% generation %}`.
A token that lies across the start of an answer is context: the model is never asked for it. It is counted.

    <|im_start|> user \\n 2 + 2 ? <|im_end|> \\n <|im_start|> assistant \\n 4 <|im_end|> \\n
         .        .   .  . . . .     .       .       .           .      .  #     #       .
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from studio.data.control import ControlTokens, any_of
from studio.data.formats import Example
from studio.data.overlay import IGNORED, lay_over, loses_text
from studio.data.rendering import LostError, Renderer
from studio.data.sources import place
from studio.data.spans import Render, Span, TemplateRefusedError, TurnEnds, UnmaskableError, locate_answers
from studio.data.templates import usable_templates
from studio.errors import InputError

TrainOn = Literal["assistant", "last", "all"]


@dataclass
class Masked:
    """An example as tokens, before any cut.

    Attributes:
        input_ids: (T,) token ids.
        labels: (T,) the same ids where the loss counts, -100 elsewhere.
        row, path: where the example came from.
        notes: what is worth a finding: "straddling", "rewritten", "prompt_extra", "header",
            "other_context", "control", "no_stop", "lost".
        text: the text that the tokens tile.
        ends: (T,) character at which each token ends in `text`; an added BOS or EOS has no characters.
    """

    input_ids: list[int]
    labels: list[int]
    row: int
    path: str
    notes: tuple[str, ...] = ()
    text: str = field(default="", repr=False)
    ends: list[int] = field(default_factory=list, repr=False)

    @property
    def supervised(self) -> int:
        """Number of tokens that the loss counts."""
        return len(self.labels) - self.labels.count(IGNORED)


@dataclass(frozen=True)
class Piece:
    """One token as a person sees it. A character made of several tokens is shown at its first."""

    text: str
    id: int
    trained: bool
    special: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"text": self.text, "id": self.id, "trained": self.trained, "special": self.special}


class Masker:
    """Turns examples into masked tokens with one tokenizer.

    Args:
        tokenizer: a transformers tokenizer with a fast backend (it reports offsets).
        train_on: assistant (every answer), last (only the last one) or all (every token of the text). An answer of
            weight 0 is context in the first two.
        control_tokens: what a text that spells a control token means: refuse, or keep it as that token. Texts of
            messages are refused either way, since chat and export would write something else.

    Raises:
        InputError: the tokenizer reports no offsets.
    """

    def __init__(
        self, tokenizer: Any, train_on: TrainOn = "assistant", control_tokens: Literal["refuse", "keep"] = "keep"
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                f"the tokenizer {type(tokenizer).__name__} does not tell which characters a token covers",
                where="model.path",
                fix="Use a model whose folder has a tokenizer.json",
            )
        self.tokenizer, self.train_on = tokenizer, train_on
        self._renderer = Renderer(tokenizer)
        special = set(tokenizer.all_special_tokens)
        added = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
        special |= {content for content, is_special in added.items() if is_special}
        self._special_ids = set(tokenizer.convert_tokens_to_ids(sorted(special)))
        self._ends = TurnEnds(any_of(special), any_of(text for text in added if text not in special and text.strip()))
        self._control = ControlTokens(tokenizer, self._renderer, special, added, control_tokens == "keep")

    def encode(self, examples: Sequence[Example]) -> list[Masked]:
        """Return the examples as masked tokens, in order; faster with some hundreds at a time.

        Raises:
            InputError: a row has nothing to learn, or the chat template cannot render or show it exactly.
        """
        masked: list[Masked | None] = [None] * len(examples)
        chats = [i for i, example in enumerate(examples) if example.messages is not None]
        rendered = [self._rendered(examples[i]) for i in chats]
        if chats:
            texts = [text for text, _, _ in rendered]
            ids, offsets = self._tokens(texts, special=False)
            for at, i in enumerate(chats):
                text, spans, notes = rendered[at]
                masked[i] = self._masked(examples[i], ids[at], offsets[at], text, spans, notes)
        for i, example in enumerate(examples):
            if example.text is not None:
                self._control.require_text(example, {"text": example.text})
                masked[i] = self._plain(example, example.text, 0)
            elif example.prompt is not None and example.completion is not None:
                self._control.require_text(example, {"prompt": example.prompt, "completion": example.completion})
                trained_from = 0 if self.train_on == "all" else len(example.prompt)
                masked[i] = self._plain(example, example.prompt + example.completion, trained_from)
        done = [one for one in masked if one is not None]
        for example, one in zip(examples, done, strict=True):
            # The first token has none before it that could predict it, so its label never counts.
            if all(label == IGNORED for label in one.labels[1:]):
                if any(message.get("weight", 1) == 0 for message in example.messages or ()):
                    raise InputError(
                        "every answer has weight 0, so there is nothing to learn from the row",
                        where=place(one.path, one.row),
                        fix="Give one of them weight 1, or remove the row",
                    )
                raise InputError(
                    "the row has 0 supervised tokens, so there is nothing to learn from it",
                    where=place(one.path, one.row),
                    fix="Write a longer answer" + ("" if self.train_on == "all" else ", or set method.train_on: all"),
                )
        return done

    def prompt(self, example: Example) -> Masked:
        """Return a prompt as tokens, up to where the model begins its answer; none of them is trained on.

        Raises:
            InputError: the chat template refuses the messages, or there is none.
        """
        if example.messages is None:
            text = example.prompt or ""
            self._control.require_text(example, {"prompt": text})
            (ids,), (offsets,) = self._tokens([text], special=True)
            while ids and ids[-1] == self.tokenizer.eos_token_id and offsets[-1] == (0, 0):
                ids, offsets = ids[:-1], offsets[:-1]
            return self._masked(example, ids, offsets, text, [], self._control.note(text))
        text, _, notes = self._rendered(example, prompt=True)
        (ids,), (offsets,) = self._tokens([text], special=False)
        return self._masked(example, ids, offsets, text, [], notes)

    def pieces(self, masked: Masked) -> list[Piece]:
        """Return the tokens as text with what happens to them; the texts joined are the rendered text."""
        pieces, at = [], 0
        for token, label, end in zip(masked.input_ids, masked.labels, masked.ends, strict=False):
            text = masked.text[at:end]
            special = token in self._special_ids
            if not text and special and (end == 0 or end == len(masked.text)):
                text = str(self.tokenizer.convert_ids_to_tokens(token))
            pieces.append(Piece(text, token, label != IGNORED, special))
            at = max(at, end)
        return pieces

    def stop_text(self) -> str | None:
        """Return what ends an answer in this template, None if the tokenizer has no template.

        Raises:
            InputError: the template cannot show where an answer ends.
        """
        if not self.tokenizer.chat_template:
            return None
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        try:
            text, spans = locate_answers(self._renderer.of(messages), messages, [1], self._ends)
        except (TemplateRefusedError, UnmaskableError) as error:
            raise InputError(
                f"the model's chat template does not show where an answer ends: {error}",
                where="model.path",
                fix="Set method.train_on: all, or correct the template",
            ) from error
        return text[spans[0].content_end : spans[0].end]

    def _rendered(self, example: Example, prompt: bool = False) -> tuple[str, list[tuple[int, int]], tuple[str, ...]]:
        """The text of a conversation, the spans that count (none in a prompt), and the notes."""
        messages = example.messages or []
        where = place(example.path, example.row)
        self._require_template(example)
        self._control.require_messages(example)
        if self.train_on == "all" and any(message.get("weight", 1) == 0 for message in messages):
            raise InputError(
                "an answer has weight 0, but every token is to be trained on",
                where=where,
                fix="Set method.train_on: assistant, or remove the weight",
            )
        try:
            render = self._renderer.of(messages, example.tools)
            text, spans = self._located(render, example, prompt)
            self._renderer.require_kept(render, messages, text, prompt)
        except TemplateRefusedError as error:
            raise InputError(
                f"the model's chat template refuses the row: {error}",
                where=where,
                fix="Change the order or the roles of its messages to what the model expects",
            ) from error
        except LostError as error:
            raise InputError(
                f"the model's chat template {error}",
                where=where,
                fix=error.fix,
            ) from error
        except UnmaskableError as error:
            raise InputError(
                f"the answers cannot be told exactly from the rest in this model's chat template: {error}",
                where=where,
                fix=f"Set method.train_on: {'last or all' if error.only_middle else 'all'}, or correct the template",
            ) from error
        if self.train_on == "all" and not prompt:
            return text, [(0, len(text))], self._notes(spans)
        return text, [(span.start, span.end) for span in spans], self._notes(spans)

    def _located(self, render: Render, example: Example, prompt: bool) -> tuple[str, list[Span]]:
        messages = example.messages or []
        if prompt or self.train_on == "all":
            return render(messages, prompt), []
        answers = [i for i, one in enumerate(messages) if one["role"] == "assistant" and i >= example.trained_from]
        counted = [i for i in answers if messages[i].get("weight", 1)]
        return locate_answers(render, messages, counted[-1:] if self.train_on == "last" else counted, self._ends)

    def _require_template(self, example: Example) -> None:
        if not self.tokenizer.chat_template:
            names = " or ".join(usable_templates(self.tokenizer))
            own = f"Set data.template to {names}" if names else "Use rows of prompt and completion"
            raise InputError(
                "the model's tokenizer has no chat template, so a conversation cannot be written as text",
                where=place(example.path, example.row),
                fix=f"{own}, or model.path to the instruct or chat variant of the model",
            )

    def _notes(self, spans: Sequence[Span]) -> tuple[str, ...]:
        notes = []
        if any(span.rewritten for span in spans):
            notes.append("rewritten")
        if any(span.prompt_extra for span in spans):
            notes.append("prompt_extra")
        if any(span.header for span in spans):
            notes.append("header")
        if any(span.other_context for span in spans):
            notes.append("other_context")
        if any(span.end == span.content_end for span in spans):
            notes.append("no_stop")
        return tuple(notes)

    def _tokens(self, texts: Sequence[str], special: bool) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=special,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            truncation=False,
            padding=False,
            verbose=False,
        )
        return encoded["input_ids"], encoded["offset_mapping"]

    def _masked(
        self,
        example: Example,
        ids: list[int],
        offsets: list[tuple[int, int]],
        text: str,
        spans: Sequence[tuple[int, int]],
        notes: tuple[str, ...],
    ) -> Masked:
        labels, ends, straddling = lay_over(ids, offsets, spans)
        if straddling:
            notes = (*notes, "straddling")
        if loses_text(text, offsets):
            notes = (*notes, "lost")
        return Masked(list(ids), labels, example.row, example.path, notes, text, ends)

    def _plain(self, example: Example, text: str, trained_from: int) -> Masked:
        """Text without a template: BOS if the tokenizer adds one, the text, EOS.

        The prompt is tokenized by itself, since that is how the model meets it when it is used, so no token lies
        across the start of the completion.
        """
        parts = [text] if trained_from == 0 else [text[:trained_from], text[trained_from:]]
        ids: list[int] = []
        ends: list[int] = []
        at, start = 0, 0
        lost = False
        for number, part in enumerate(parts):
            (part_ids,), (offsets,) = self._tokens([part], special=number == 0)
            if number == 0 and len(parts) == 2:
                # An EOS that the tokenizer adds to the prompt would stand in the middle.
                while part_ids and part_ids[-1] == self.tokenizer.eos_token_id and offsets[-1] == (0, 0):
                    part_ids, offsets = part_ids[:-1], offsets[:-1]
            lost = lost or loses_text(part, offsets)
            start = len(ids)
            ids += part_ids
            ends += [at + end for _, end in offsets]
            at += len(part)
        if len(parts) == 1:
            start = 0
        ids, ends, start = self._trim_added(ids, ends, start, len(text))
        labels = [IGNORED] * start + ids[start:]
        notes: tuple[str, ...] = () if self.tokenizer.eos_token_id is not None else ("no_stop",)
        notes = (*notes, *self._control.note(text))
        if lost:
            notes = (*notes, "lost")
        return Masked(ids, labels, example.row, example.path, notes, text, ends)

    def _trim_added(self, ids: list[int], ends: list[int], start: int, length: int) -> tuple[list[int], list[int], int]:
        """Leave one BOS and one EOS where the text brought its own, and see to an EOS at the end."""
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            ids, ends, start = ids[1:], ends[1:], max(0, start - 1)
        if eos is not None and ids[-2:] == [eos, eos]:
            ids, ends = ids[:-1], ends[:-1]
        if eos is not None and ids[-1:] != [eos]:
            ids, ends = [*ids, eos], [*ends, length]
        running = 0
        for k, end in enumerate(ends):
            # Added tokens report (0, 0).
            running = max(running, end)
            ends[k] = running
        return ids, ends, start

"""Loss masks: which tokens of an example the model is trained to write.

A conversation is rendered by the tokenizer's own chat template, tokenized whole and once, and the answers' character
spans (`spans`) are laid over the token offsets. No template is known by name and none needs `{% generation %}`.
A token that lies across the start of an answer is context: the model is never asked for it. It is counted.

    <|im_start|> user \\n 2 + 2 ? <|im_end|> \\n <|im_start|> assistant \\n 4 <|im_end|> \\n
         .        .   .  . . . .     .       .       .           .      .  #     #       .
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from studio.data.files.datafiles import place
from studio.data.formats.answers import Example
from studio.data.formats.conversations import Message, turn_notes
from studio.data.masks.control import ControlTokens, any_of, texts_of
from studio.data.masks.masked import Masked, Piece, placed, require_short
from studio.data.masks.overlay import Runs, add_run, lay_over, running_ends
from studio.data.masks.rendering import LostError, Renderer
from studio.data.masks.shapes import Shapes
from studio.data.masks.spans import Span, TemplateRefusedError, TurnEnds, UnmaskableError, locate_answers
from studio.data.masks.templates import usable_templates
from studio.data.sandbox.bounds import OutOfBoundsError
from studio.data.tokens.bytelevel import lay_over_pieces, pieces_of
from studio.data.tokens.plaintext import Texts
from studio.errors import InputError
from studio.methods import TrainOn

# (text, the characters of it that count as (start, end), notes)
Rendered = tuple[str, list[tuple[int, int]], tuple[str, ...]]


class Masker:
    """Turns examples into masked tokens with one tokenizer.

    Args:
        tokenizer: a transformers tokenizer with a fast backend (it reports offsets).
        train_on: assistant (every answer), turns (that, with the line break after it), last (only the last one) or
            all (every token of the text). An answer of weight 0 is context in all but the last.
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
                f"the tokenizer {type(tokenizer).__name__} does not report character offsets",
                where="model.path",
                fix="Use a model whose folder has a tokenizer.json",
            )
        self.tokenizer, self.train_on = tokenizer, train_on
        self._renderer, self._texts = Renderer(tokenizer), Texts(tokenizer)
        self._shapes = Shapes(self._renderer)
        self._pieces = pieces_of(tokenizer)
        special = set(tokenizer.all_special_tokens)
        added = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
        special |= {content for content, is_special in added.items() if is_special}
        self._special_ids = set(tokenizer.convert_tokens_to_ids(sorted(special)))
        others = any_of(text for text in added if text not in special and text.strip())
        self._ends = TurnEnds(any_of(special), others, breaks=train_on == "turns")
        self._control = ControlTokens(tokenizer, self._renderer, special, added, control_tokens == "keep")

    def encode(self, examples: Sequence[Example]) -> list[Masked]:
        """Return the examples as masked tokens, in order; faster with some hundreds at a time.

        Raises:
            InputError: a row has nothing to learn, or the chat template cannot render or show it exactly.
        """
        masked: list[Masked | None] = [None] * len(examples)
        chats = [i for i, example in enumerate(examples) if example.messages is not None]
        if chats:
            rendered = self._all_rendered([examples[i] for i in chats])
            encoded = self._tokens([examples[i] for i in chats], [text for text, _, _ in rendered])
            for i, one, (text, spans, notes) in zip(chats, encoded, rendered, strict=True):
                notes = (*notes, *turn_notes(examples[i].messages or ()))
                masked[i] = self._masked(examples[i], one, text, spans, notes)
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
            if not one.trained or one.trained[-1] <= 1:
                if any(message.get("weight", 1) == 0 for message in example.messages or ()):
                    raise InputError(
                        "every answer has weight 0, so there is nothing to train on",
                        where=place(one.path, one.row),
                        fix="Set one of them to 1, or remove the row",
                    )
                raise InputError(
                    "the row has 0 supervised tokens, so there is nothing to train on",
                    where=place(one.path, one.row),
                    fix="Write a longer answer" + ("" if self.train_on == "all" else ", or set method.train_on: all"),
                )
        return done

    def fingerprint(self) -> str:
        """Return a hash that changes with anything that could make other tokens of the same row."""
        tokenizer = self.tokenizer
        parts = [
            tokenizer.backend_tokenizer.to_str(), repr(tokenizer.chat_template), repr(tokenizer.special_tokens_map),
            self.train_on, str(self._control.keep),
        ]  # fmt: skip
        messages: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        if tokenizer.chat_template:
            parts.append(repr(self._renderer.many([messages], False)))  # a template may write today's date
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def prompt(self, example: Example) -> Masked:
        """Return a prompt as tokens, up to where the model begins its answer; none of them is trained on.

        Raises:
            InputError: the chat template refuses the messages, or there is none.
        """
        if example.messages is None:
            text = example.prompt or ""
            self._control.require_text(example, {"prompt": text})
            with placed(example, text):
                ids, offsets = self._texts.prompt(text)
            laid = lay_over(text, offsets, [])
            lost = ("lost",) if laid.lost else ()
            notes = (*self._control.note(text), *lost)
            return Masked(ids, laid.trained, example.row, example.path, notes, text, lambda: laid.ends)
        self._require_usable(example)
        text, _, notes = self._rendered(example, prompt=True)
        (encoded,) = self._tokens([example], [text])
        return self._masked(example, encoded, text, [], notes)

    def pieces(self, masked: Masked, most: int | None = None) -> list[Piece]:
        """Return the tokens as text with what happens to them; the texts joined are the rendered text.

        Args:
            masked: a row.
            most: leave out the tokens behind so many; None for none.
        """
        pieces, at = [], 0
        whole = zip(masked.input_ids, masked.labels, masked.ends, strict=False)
        for token, label, end in itertools.islice(whole, most):
            text = masked.text[at:end]
            special = token in self._special_ids
            if not text and special and (end == 0 or end == len(masked.text)):
                text = str(self.tokenizer.convert_ids_to_tokens(token))
            pieces.append(Piece(text, token, label == token, special))
            at = max(at, end)
        return pieces

    def stop_text(self) -> str | None:
        """Return what ends an answer in this template, without a line break; None if the tokenizer has no template.

        Raises:
            InputError: the template cannot show where an answer ends.
        """
        if not self.tokenizer.chat_template:
            return None
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        try:
            ends = replace(self._ends, breaks=False)
            text, spans = locate_answers(self._renderer.of(messages), messages, [1], ends)
        except (TemplateRefusedError, UnmaskableError) as error:
            raise InputError(
                f"cannot tell from the model's chat template where an answer ends: {error}",
                where="model.path",
                fix="Set method.train_on: all, or fix the template",
            ) from error
        return text[spans[0].content_end : spans[0].end]

    def _all_rendered(self, examples: Sequence[Example]) -> list[Rendered]:
        """Render conversations; those of a shape that was searched before are only compared with it."""
        for example in examples:
            self._require_usable(example)
        done: list[Rendered | None] = [None] * len(examples)
        asked = {i: (one.messages or [], self._wanted(one)) for i, one in enumerate(examples) if not one.tools}
        for i in self._shapes.unseen(asked):
            done[i] = self._rendered(examples[i])
        left = {i: one for i, one in asked.items() if done[i] is None}
        try:
            located = self._shapes.locate(list(left.values()))
        except OutOfBoundsError as error:
            example = examples[list(left)[error.at]]
            raise error.placed(place(example.path, example.row)) from error
        for i, found in zip(left, located, strict=True):
            if found is not None:
                text, spans = found
                done[i] = text, self._counted(text, spans), self._notes(spans)
        return [one or self._rendered(example) for one, example in zip(done, examples, strict=True)]

    def _rendered(self, example: Example, prompt: bool = False) -> Rendered:
        """Render a conversation and search it for its answers (of a prompt none)."""
        messages = example.messages or []
        where = place(example.path, example.row)
        wanted = () if prompt else self._wanted(example)
        try:
            render = self._renderer.of(messages, example.tools)
            text, spans = (
                locate_answers(render, messages, wanted, self._ends) if wanted else (render(messages, prompt), [])
            )
            self._renderer.require_kept(render, messages, text, prompt)
        except OutOfBoundsError as error:
            raise error.placed(where) from error
        except TemplateRefusedError as error:
            raise InputError(
                f"the model's chat template rejects the row: {error}",
                where=where,
                fix="Change the roles or the order of its messages to what the template expects",
            ) from error
        except LostError as error:
            raise InputError(
                f"the model's chat template {error}",
                where=where,
                fix=error.fix,
            ) from error
        except UnmaskableError as error:
            raise InputError(
                f"cannot tell exactly which tokens are the answers in this model's chat template: {error}",
                where=where,
                fix=f"Set method.train_on: {'last or all' if error.only_middle else 'all'}, or fix the template",
            ) from error
        if not prompt and not example.tools:
            self._shapes.learn(render, messages, wanted, text, spans)
        return text, [] if prompt else self._counted(text, spans), self._notes(spans)

    def _wanted(self, example: Example) -> tuple[int, ...]:
        """Indices of the answers that are searched for."""
        if self.train_on == "all":
            return ()
        messages = example.messages or []
        counted = [
            i for i, one in enumerate(messages)
            if one["role"] == "assistant" and i >= example.trained_from and one.get("weight", 1)
        ]  # fmt: skip
        return tuple(counted[-1:] if self.train_on == "last" else counted)

    def _counted(self, text: str, spans: Sequence[Span]) -> list[tuple[int, int]]:
        """The characters that the loss counts."""
        return [(0, len(text))] if self.train_on == "all" else [(span.start, span.end) for span in spans]

    def _require_usable(self, example: Example) -> None:
        self._require_template(example)
        require_short(example, *(text for _, text in texts_of(example)))
        self._control.require_messages(example)
        if self.train_on == "all" and any(message.get("weight", 1) == 0 for message in example.messages or ()):
            raise InputError(
                "an answer has weight 0, but method.train_on is all",
                where=place(example.path, example.row),
                fix="Set method.train_on: assistant, or remove the weight",
            )

    def _require_template(self, example: Example) -> None:
        if not self.tokenizer.chat_template:
            names = " or ".join(usable_templates(self.tokenizer))
            own = f"Set data.template to {names}" if names else "Use rows with prompt and completion"
            raise InputError(
                "the model's tokenizer has no chat template, so conversations cannot be rendered",
                where=place(example.path, example.row),
                fix=f"{own}, or set model.path to the model's instruct or chat variant",
            )

    def _tokens(self, examples: Sequence[Example], texts: Sequence[str]) -> list[Any]:
        for example, text in zip(examples, texts, strict=True):
            require_short(example, text)
        try:
            return self._texts.encode(texts, special=False)
        except OutOfBoundsError as error:
            example = examples[error.at]
            raise error.placed(place(example.path, example.row)) from error

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

    def _masked(
        self, example: Example, encoded: Any, text: str, spans: Sequence[tuple[int, int]], notes: tuple[str, ...]
    ) -> Masked:
        ids = encoded.ids
        fits = self._pieces is not None and self._pieces.fit(text)
        if (found := lay_over_pieces(encoded, spans) if fits else None) is not None:
            trained, straddling = found
        else:
            trained, _, straddling, lost = lay_over(text, encoded.offsets, spans)
            notes = (*notes, "lost") if lost else notes
        if straddling:
            notes = (*notes, "straddling")
        return Masked(ids, trained, example.row, example.path, notes, text, lambda: running_ends(encoded.offsets))

    def _plain(self, example: Example, text: str, trained_from: int) -> Masked:
        """Text without a template, trained on from a character on."""
        with placed(example, text):
            plain = self._texts.whole(text, trained_from)
        trained: Runs = array("i")
        add_run(trained, plain.start, len(plain.ids))
        notes: tuple[str, ...] = () if self.tokenizer.eos_token_id is not None else ("no_stop",)
        notes = (*notes, *self._control.note(text))
        if plain.lost:
            notes = (*notes, "lost")
        return Masked(plain.ids, trained, example.row, example.path, notes, text, lambda: plain.ends)

"""Texts as tokens: the tokenizer's call, and what it adds to a text that no template renders.

Such a text is BOS if the tokenizer adds one, the text, EOS: once each, also where the text brings its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from studio.data.masks.overlay import Offsets, loses_text
from studio.data.tokens.boundedtokens import encode_within


class PlainText(NamedTuple):
    """A text with what is added to it.

    Attributes:
        ids: (T,) token ids.
        ends: (T,) character at which each ends; an added token has none of its own.
        start: place of the first token that is trained on.
        lost: whether a character has no token.
    """

    ids: list[int]
    ends: list[int]
    start: int
    lost: bool


class Texts:
    """Tokenizes texts.

    Args:
        tokenizer: a transformers tokenizer with a fast backend.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # Whatever an earlier caller has set would stay in the backend. It is set once: not while a thread tokenizes.
        tokenizer("", truncation=False, padding=False, split_special_tokens=False)

    def encode(self, texts: Sequence[str], special: bool) -> list[Any]:
        """Return the `tokenizers.Encoding` of texts, whole; `special` adds what the tokenizer adds to a text.

        Raises:
            OutOfBoundsError: the tokenizer takes too long on one of them; `at` says which.
        """
        return encode_within(self._tokenizer.backend_tokenizer, list(texts), special)

    def prompt(self, text: str) -> tuple[list[int], Offsets]:
        """Return a text that the model continues: an EOS that the tokenizer adds is left out."""
        (encoded,) = self.encode([text], special=True)
        ids, offsets = encoded.ids, encoded.offsets
        while ids and ids[-1] == self._tokenizer.eos_token_id and offsets[-1] == (0, 0):
            ids, offsets = ids[:-1], offsets[:-1]
        return ids, offsets

    def whole(self, text: str, trained_from: int) -> PlainText:
        """Return a text that is trained on from some character on.

        The prompt before it is tokenized by itself, since that is how the model meets it when it is used, so no token
        lies across the start of the completion.
        """
        if trained_from == 0:
            (encoded,) = self.encode([text], special=True)
            ids, offsets = encoded.ids, encoded.offsets
            lost, start, ends = loses_text(text, offsets), 0, [end for _, end in offsets]
        else:
            prompt, completion = text[:trained_from], text[trained_from:]
            ids, offsets = self.prompt(prompt)
            (rest,) = self.encode([completion], special=False)
            lost = loses_text(prompt, offsets) or loses_text(completion, rest.offsets)
            start, ids = len(ids), ids + rest.ids
            ends = [end for _, end in offsets] + [trained_from + end for _, end in rest.offsets]
        ids, ends, start = self._trim_added(ids, ends, start, len(text))
        return PlainText(ids, ends, start, lost)

    def _trim_added(self, ids: list[int], ends: list[int], start: int, length: int) -> tuple[list[int], list[int], int]:
        """Leave one BOS and one EOS where the text brought its own, and see to an EOS at the end."""
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            ids, ends, start = ids[1:], ends[1:], max(0, start - 1)
        if eos is not None and ids[-2:] == [eos, eos]:
            ids, ends = ids[:-1], ends[:-1]
        if eos is not None and ids[-1:] != [eos]:
            ids, ends = [*ids, eos], [*ends, length]
        # Added tokens report (0, 0).
        return ids, list(itertools.accumulate(ends, max)), start

"""From logits to a token, and from tokens to text that may be sent: the same for both backends.

Pure: numpy in, plain values out. What it does not do: penalties and other processors (temperature, top_p only).
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from studio.errors import StudioError

Logits = npt.NDArray[np.float32]
REPLACEMENT = "\ufffd"  # what decoders write for bytes that are no (or not yet) a character
# A character has at most 4 bytes, so at most 4 byte tokens; longer runs are garbage of the model and shown as such.
_LONGEST_HOLD = 8


class Sampler:
    """Draws tokens for one answer.

    Args:
        temperature: 0 takes the most likely token.
        top_p: only the smallest set of tokens whose probabilities reach this sum can be drawn.
        seed: None draws differently each time.
    """

    def __init__(self, temperature: float = 1.0, top_p: float = 1.0, seed: int | None = None) -> None:
        self.temperature, self.top_p = temperature, top_p
        self._random = np.random.default_rng(None if seed is None else seed % 2**64)

    def __call__(self, logits: Logits) -> int:
        """Choose from logits (V,).

        Raises:
            StudioError: they are no numbers to choose by.
        """
        largest = float(logits.max())
        if not math.isfinite(largest):
            raise StudioError("its numbers overflowed, so no token is likelier than another")
        if self.temperature == 0:
            return int(logits.argmax())
        scaled = (logits.astype(np.float64) - largest) / self.temperature
        weights = np.exp(scaled)
        weights /= weights.sum()
        if self.top_p >= 1:
            return self._draw(weights)
        # Tokens below (1 - p) / V cannot be needed to reach p: sorting the rest is far cheaper than sorting all.
        candidates = np.flatnonzero(weights >= (1 - self.top_p) / weights.size)
        order = candidates[np.argsort(-weights[candidates], kind="stable")]
        reached = np.cumsum(weights[order])
        nucleus = order[: int(np.searchsorted(reached, self.top_p)) + 1]
        return int(nucleus[self._draw(weights[nucleus])])

    def _draw(self, weights: npt.NDArray[np.float64]) -> int:
        total = np.cumsum(weights)
        place = int(np.searchsorted(total, self._random.random() * total[-1], side="right"))
        return min(place, weights.size - 1)


class TextMaker(Protocol):
    """Turns tokens into text piece by piece; pieces joined equal the whole answer decoded."""

    def push(self, token: int) -> str:
        """Take one token; return the text that is now certain."""

    def finish(self) -> str:
        """Return what was still held back."""


class WindowText:
    """Text of tokens through a decoder that needs context (Hugging Face tokenizers).

    Some tokenizers drop the space of the first token they decode, and one character can be several tokens. So a
    window that starts at the previous piece is decoded twice, without and with the new tokens, and the
    difference is the new text; nothing is released while it ends in the middle of a character.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._start = self._read = 0

    def push(self, token: int) -> str:
        """Take one token; return the text that is now certain."""
        self._tokens.append(token)
        return self._release(final=False)

    def finish(self) -> str:
        """Return what was still held back."""
        return self._release(final=True)

    def _release(self, final: bool) -> str:
        held = len(self._tokens) - self._read
        if not held:
            return ""
        text = self._decode(self._tokens[self._start :])
        if text.endswith(REPLACEMENT) and not final and held < _LONGEST_HOLD:
            return ""
        piece = text[len(self._decode(self._tokens[self._start : self._read])) :]
        if piece:  # a skipped special token alone would be no context for what follows
            self._start = self._read
        self._read = len(self._tokens)
        return piece


class ByteText:
    """Text of tokens that are byte strings (llama.cpp)."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Take one token; return the text that is now certain."""
        return self._decoder.decode(self._bytes(token))

    def finish(self) -> str:
        """Return what was still held back."""
        return self._decoder.decode(b"", final=True)


class StopFilter:
    """Ends an answer at the first stop string, which can be spread over several pieces and is not sent."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.met = False

    def push(self, text: str) -> str:
        """Take a piece; return what can be sent. Sets `met` when a stop string is complete."""
        if not self._stops:
            return text
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.met = True
            sent, self._held = self._held[: min(places)], ""
            return sent
        keep = max(self._overlap(stop) for stop in self._stops)
        cut = len(self._held) - keep
        sent, self._held = self._held[:cut], self._held[cut:]
        return sent

    def finish(self) -> str:
        """Return what was held back for a stop string that never came."""
        sent, self._held = self._held, ""
        return sent

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that is a beginning of `stop`."""
        for size in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:size]):
                return size
        return 0

"""The tokenizer's call with an end: patterns in a tokenizer.json are a stranger's and may take for ever over a text.

A call into Rust cannot be ended. Its thread is left behind, the row is named, and the process is spoiled: a data
worker leaves after its answer, a run ends with the sentence anyway.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from studio.data.sandbox.bounds import ROW_SECONDS, OutOfBoundsError

# An ordinary tokenizer does more in a second of a slow core. Seconds are those that this process computed for: on a
# machine that is busy with other things a text may take any time.
_CHARACTERS_A_SECOND = 200_000
_LOOK_SECONDS = 0.05
spoiled = threading.Event()


def encode_within(backend: Any, texts: Sequence[str], special: bool) -> list[Any]:
    """Return the encodings of texts.

    Args:
        backend: a `tokenizers.Tokenizer`.
        texts: whole texts.
        special: whether the tokenizer adds what it adds to a text.

    Raises:
        OutOfBoundsError: one of them takes more than two seconds of a core and one for each 200,000 characters.
    """
    characters = sum(map(len, texts))
    whole = _Call(backend, texts, special)
    if (found := whole.answer(ROW_SECONDS + characters / _CHARACTERS_A_SECOND)) is not None:
        return found
    if not whole.gave_up:
        # From now on each text by itself, in a thread of its own: those of the library are at work for good.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    encodings = []
    for at, text in enumerate(texts):
        call = _Call(backend, [text], special)
        one = call.answer(ROW_SECONDS / 2 + len(text) / _CHARACTERS_A_SECOND)
        if one is None:
            if not call.gave_up:
                spoiled.set()
            what = "gives up on" if call.gave_up else "takes too long on"
            raise OutOfBoundsError(
                f"the model's tokenizer {what} the row ({len(text):,} characters)",
                where="tokenizer.json", fix="Check the patterns in the model's tokenizer.json, or use another model",
                at=at,
            )  # fmt: skip
        encodings += one
    return encodings


class _Call:
    """A call in a thread that nobody waits for at the end of the process.

    Attributes:
        gave_up: the library ended it by itself: a pattern that tried too often is a panic of Rust to it.
    """

    def __init__(self, backend: Any, texts: Sequence[str], special: bool) -> None:
        self.gave_up = False
        self._found: list[Any] | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(backend, texts, special), daemon=True)
        self._thread.start()

    def answer(self, seconds: float) -> list[Any] | None:
        """Return the encodings, or None if so much of the processor was not enough, or they never will be there."""
        began = time.process_time()
        while self._thread.is_alive() and time.process_time() - began < seconds:
            self._thread.join(_LOOK_SECONDS)
        if self._error is not None:
            raise self._error
        return self._found

    def _run(self, backend: Any, texts: Sequence[str], special: bool) -> None:
        try:
            self._found = backend.encode_batch(list(texts), add_special_tokens=special)
        except Exception as error:
            self._error = error
        except BaseException:  # a panic is no Exception
            self.gave_up = True

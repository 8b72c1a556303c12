"""One thread that owns the model and advances all answers in turn, one token each.

One thread, because adapter on/off is state of the one copy of the weights, and because each thread that calls
torch brings an OpenMP team of its own that fights for the same cores. Taking turns by token lets base and tuned
stream side by side. It does not batch: two answers share the speed of one.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from studio.chat.decoding import Logits, Sampler, StopFilter, TextMaker
from studio.errors import StudioError


class Decoder(Protocol):
    """One answer's state inside a model (its key/value cache). Only the engine's thread calls it."""

    def prefill(self) -> bool:
        """Read the next part of the prompt; True once all of it is read and `logits` is the first answer's."""

    def logits(self) -> Logits:
        """Logits (V,) of the next token."""

    def advance(self, token: int) -> None:
        """Read one more token."""


class Backend(Protocol):
    """A loaded model under one or two ids.

    Attributes:
        models: ids that a request can name.
        context: longest prompt and answer together, in tokens.
        parallel: how many answers can be in progress at once; more wait their turn.
        details: facts for /v1/models.
    """

    models: tuple[str, ...]
    context: int
    parallel: int
    details: dict[str, object]

    def prompt(self, model: str, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of the conversation, ready for the answer. Any thread.

        Raises:
            ApiError: the template refuses these messages.
        """

    def ends(self, model: str, token: int) -> bool:
        """Whether this token ends an answer."""

    def text(self, model: str) -> TextMaker:
        """A new token-to-text state."""

    def begin(self, model: str, ids: Sequence[int]) -> Decoder:
        """A new answer. Only the engine's thread calls it."""


@dataclass(frozen=True)
class Piece:
    """Text that was added to the answer."""

    text: str


@dataclass(frozen=True)
class End:
    """The answer is complete. `tokens` counts the answer without its end token."""

    reason: str
    tokens: int


@dataclass(frozen=True)
class Failed:
    """The model failed; `message` is for the person, the traceback is in the log."""

    message: str


Event = Piece | End | Failed


@dataclass
class Answer:
    """One answer to make.

    Args:
        model: model id.
        ids: the prompt's token ids.
        limit: most tokens of the answer.
        sampler: draws the tokens.
        stop: ends the answer at a stop string.
        sink: called from the engine's thread with every event.
    """

    model: str
    ids: Sequence[int]
    limit: int
    sampler: Sampler
    stop: StopFilter
    sink: Callable[[Event], None]
    tokens: int = 0
    cancelled: bool = False
    decoder: Decoder | None = field(default=None, repr=False)
    maker: TextMaker | None = field(default=None, repr=False)
    reading: bool = True


class Engine:
    """Runs answers on a backend; `start` before the first `submit`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._wake = threading.Condition()
        self._waiting: deque[Answer] = deque()
        self._active: list[Answer] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, answer: Answer) -> None:
        """Queue an answer; its sink is called from now on."""
        with self._wake:
            self._waiting.append(answer)
            self._wake.notify()

    def cancel(self, answer: Answer) -> None:
        """Give an answer up; it takes no further step (the one in progress ends first)."""
        answer.cancelled = True

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread after the step in progress, or stop waiting for it after `timeout` seconds."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout)

    @property
    def load(self) -> int:
        """How many answers are in progress or waiting."""
        with self._wake:
            return len(self._active) + len(self._waiting)

    def _run(self) -> None:
        while self._admit():
            for answer in list(self._active):
                if answer.cancelled or self._advance(answer):
                    with self._wake:
                        self._active.remove(answer)
                    answer.decoder = None  # frees its cache now, not when the request object goes

    def _admit(self) -> bool:
        """Wait for work; False when the engine stops."""
        with self._wake:
            self._wake.wait_for(lambda: self._active or self._waiting or self._stopping)
            while self._waiting and len(self._active) < self.backend.parallel:
                self._active.append(self._waiting.popleft())
            return not self._stopping

    def _advance(self, answer: Answer) -> bool:
        """Take one step of one answer; True when it is over."""
        try:
            return self._step(answer)
        except Exception as error:  # the server lives on, the person gets the reason
            traceback.print_exc()
            why = error.sentence if isinstance(error, StudioError) else f"{type(error).__name__}: {error}"
            answer.sink(Failed(f"The model failed: {why}"))
            return True

    def _step(self, answer: Answer) -> bool:
        if answer.decoder is None or answer.maker is None:
            answer.decoder = self.backend.begin(answer.model, answer.ids)
            answer.maker = self.backend.text(answer.model)
        if answer.reading:
            answer.reading = not answer.decoder.prefill()
            if answer.reading:
                return False
        token = answer.sampler(answer.decoder.logits())
        if self.backend.ends(answer.model, token):
            return self._end(answer, answer.maker, "stop")
        answer.tokens += 1
        self._send(answer, answer.stop.push(answer.maker.push(token)))
        if answer.stop.met:
            answer.sink(End("stop", answer.tokens))
            return True
        if answer.tokens >= answer.limit:
            return self._end(answer, answer.maker, "length")
        answer.decoder.advance(token)
        return False

    def _end(self, answer: Answer, maker: TextMaker, reason: str) -> bool:
        self._send(answer, answer.stop.push(maker.finish()))
        if answer.stop.met:
            reason = "stop"
        else:
            self._send(answer, answer.stop.finish())
        answer.sink(End(reason, answer.tokens))
        return True

    @staticmethod
    def _send(answer: Answer, text: str) -> None:
        if text:
            answer.sink(Piece(text))

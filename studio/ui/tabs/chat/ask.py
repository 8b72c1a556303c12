"""Between a chat pane and the chat servers: ask one target, list and unload what is loaded.

Everything that can take long (preparing a model, starting its process) happens in the thread of the turn and is
told as a phase. No key of a server leaves this process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from studio.chat.client import AnswerStats, stream
from studio.errors import InputError, StoppedError
from studio.settings import Settings
from studio.ui.tabs.chat.pane import Ask, Finished, Loading, News, Piece
from studio.ui.tabs.chat.targets import ChatTarget, server_target

if TYPE_CHECKING:
    from studio.chat.manager import ChatManager

LARGEST_ANSWER = 32_768


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. `max_tokens` is the longest answer."""

    temperature: float
    top_p: float
    max_tokens: int

    @classmethod
    def checked(cls, temperature: Any, top_p: Any, max_tokens: Any) -> Sampling:
        """Make one of what the form holds.

        Args:
            temperature: 0 to 2; 0 is greedy decoding.
            top_p: 0.01 to 1.
            max_tokens: 1 to `LARGEST_ANSWER`.

        Raises:
            InputError: a value is missing or out of its bounds.
        """
        bounds = [
            ("Temperature", temperature, 0.0, 2.0), ("Top p", top_p, 0.01, 1.0),
            ("Maximum new tokens", max_tokens, 1, LARGEST_ANSWER),
        ]  # fmt: skip
        for name, value, low, high in bounds:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                raise InputError(
                    f"'{value}' is not a number from {low:g} to {high:g}", where=name, fix="Correct it under Settings"
                )
        return cls(float(temperature), float(top_p), int(max_tokens))


def make_ask(chats: ChatManager, settings: Settings, target: ChatTarget, sampling: Sampling) -> Ask:
    """Return how a pane's thread asks this target.

    Args:
        chats: opens the target's server, or finds it open.
        settings: of the home.
        target: run, file or model.
        sampling: of every answer.
    """

    def ask(messages: list[dict[str, str]], stop: threading.Event, tell: Callable[[News], None]) -> None:
        def loading(phase: str, seconds: float) -> None:
            if stop.is_set():
                raise StoppedError("loading was stopped")
            tell(Loading(phase))

        handle = target.handle
        if handle is None:
            tell(Loading("finding the model"))
            wanted = server_target(settings, target)
            tell(Loading("loading the model"))
            handle = chats.open(wanted, loading)
        tell(Loading("reading the prompt"))
        figures: list[AnswerStats] = []
        pieces = stream(
            handle, target.model_id, messages, on_end=figures.append,
            temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_tokens,
        )  # fmt: skip
        with closing(cast("Generator[str, None, None]", pieces)):  # closing it cancels the answer on the server
            for piece in pieces:
                if stop.is_set():
                    return
                tell(Piece(piece))
        for stats in figures:
            tell(Finished(stats.completion_tokens, stats.finish_reason))

    return ask


def loaded_line(chats: ChatManager) -> str:
    """What is loaded, in one line with its memory; "" when nothing is."""
    parts = [f"{one.target.name} ({one.memory / 1e9:.2f} GB)" for one in chats.loaded()]
    return f"Loaded: {', '.join(parts)}" if parts else ""


def unload_all(chats: ChatManager) -> None:
    """Free the memory of all loaded models."""
    chats.close_all()

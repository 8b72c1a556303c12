"""A chat pane: what it shows, and the thread that writes one answer into it.

One generator of the page shows all panes at a fixed pace (50 ms: a person sees no difference below it), while
a thread for each pane reads from the model. The conversation is the component's value, so it belongs to the
browser tab and the server keeps nothing. What the model writes is text everywhere, never markup.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from studio.errors import StoppedError, StudioError
from studio.ui.errors import UNEXPECTED, logger
from studio.ui.server.theme import script_tags

SHOW_SECONDS = 0.05
# What a browser may send back as a conversation; a longer one is not chatted in any more.
MAX_MESSAGES, MAX_CHARACTERS = 400, 400_000

TEMPLATE = """
<div class="studio chat-pane">
  <p class="muted num chat-speed" role="status"></p>
  <p class="muted chat-hint" hidden></p>
  <div class="chat-messages" role="log" tabindex="0" aria-label="Conversation"></div>
</div>
"""

PaneValue = dict[str, Any]
Message = dict[str, Any]


@dataclass(frozen=True)
class Loading:
    """News from the model: it is not ready yet, and why."""

    text: str


@dataclass(frozen=True)
class Piece:
    """News from the model: more of the answer."""

    text: str


@dataclass(frozen=True)
class Finished:
    """News from the model: the answer is complete.

    Attributes:
        tokens: how many tokens it has, None when the server did not say.
        reason: "stop", or "length" when it was cut at the longest answer.
    """

    tokens: int | None
    reason: str = "stop"


News = Loading | Piece | Finished
# Asks the model a conversation, tells its news as they come, returns at the end or soon after the event is set.
Ask = Callable[[list[dict[str, str]], threading.Event, Callable[[News], None]], None]


def chat_pane(elem_id: str) -> gr.HTML:
    """Make a pane; its value is what `empty_pane` returns."""
    return gr.HTML(
        value=empty_pane(""),
        html_template=TEMPLATE,
        head=script_tags("chat/chat.js"),
        js_on_load="window.studioChat.mount(element, props, watch)",
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes=["chat-pane-box"],
    )


def empty_pane(hint: str) -> PaneValue:
    """Return the value of a pane without a conversation, with a sentence in its place."""
    return {"speed": "", "hint": hint, "busy": False, "messages": []}


def read_messages(value: Any) -> list[Message]:
    """Return the conversation out of a value that came from the browser; anything else in it is left out."""
    raw = value.get("messages") if isinstance(value, dict) else None
    kept: list[Message] = []
    for message in (raw if isinstance(raw, list) else [])[-MAX_MESSAGES:]:
        if isinstance(message, dict) and message.get("role") in ("user", "assistant"):
            kept.append({
                "role": message["role"], "content": str(message.get("content") or "")[:MAX_CHARACTERS],
                "note": str(message.get("note") or "")[:500], "failed": bool(message.get("failed")),
            })  # fmt: skip
    return kept


def conversation(messages: Sequence[Message], system: str) -> list[dict[str, str]]:
    """What the model is asked: the system prompt and the turns that were answered, then the newest question.

    A question whose answer failed or never began is left out, with that answer: templates want turns in pairs.
    """
    asked = [{"role": "system", "content": system}] if system.strip() else []
    for question, answer in zip(messages[:-1:2], messages[1::2], strict=False):
        if answer["content"] and not answer["failed"]:
            asked += [{"role": one["role"], "content": one["content"]} for one in (question, answer)]
    return [*asked, {"role": "user", "content": messages[-1]["content"]}]


@dataclass
class Turn:
    """One answer in the making. The thread writes, `view` reads; both hold the lock.

    Attributes:
        base: the pane's value before the question.
        question: what was asked.
        system: system prompt, "" for none.
        ask: how the model is asked.
        stop: set to end early.
    """

    base: PaneValue
    question: str
    system: str
    ask: Ask
    stop: threading.Event
    text: str = ""
    phase: str = "starting"
    note: str = ""
    failed: bool = False
    over: bool = False
    pieces: int = 0
    tokens: int | None = None
    asked_at: float = 0.0
    first_at: float | None = None
    last_at: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Begin in a thread of its own."""
        threading.Thread(target=self._run, name="chat turn", daemon=True).start()

    def view(self) -> PaneValue:
        """The pane's value now."""
        with self._lock:
            messages = [
                *read_messages(self.base),
                {"role": "user", "content": self.question, "note": "", "failed": False},
                {"role": "assistant", "content": self.text, "note": self._note(), "failed": self.failed},
            ]
            return {"hint": "", "speed": self._speed(), "busy": not self.over, "messages": messages}

    def end(self) -> None:
        """The person stopped: show what there is, without waiting for the model."""
        with self._lock:
            if not self.over:
                self.over, self.note = True, "Stopped."

    def _run(self) -> None:
        try:
            messages = [*read_messages(self.base), {"role": "user", "content": self.question, "failed": False}]
            self.asked_at = time.monotonic()
            self.ask(conversation(messages, self.system), self.stop, self._take)
            self._finish("")
        except StoppedError:
            self._finish("Stopped.")
        except StudioError as error:
            self._finish(error.sentence, failed=True)
        except Exception as error:  # the thread's boundary: the pane must say that it ended
            logger.error("unexpected error in a chat turn", exc_info=error)
            self._finish(UNEXPECTED, failed=True)

    def _take(self, news: News) -> None:
        now = time.monotonic()
        with self._lock:
            if self.over:
                return
            if isinstance(news, Loading):
                self.phase, self.asked_at = news.text, now
            elif isinstance(news, Piece):
                if self.first_at is None:
                    self.first_at = now
                self.text += news.text
                self.pieces += 1
                self.last_at = now
            else:
                self.tokens = news.tokens
                if news.reason == "length":
                    self.note = "Cut at the maximum of new tokens (Settings)."

    def _finish(self, note: str, failed: bool = False) -> None:
        with self._lock:
            if self.over:
                return
            self.over, self.failed = True, failed
            if self.stop.is_set() and not failed:
                note = "Stopped."
            elif not note and not self.note and not self.text:
                note = "The model gave an empty answer."
            self.note = note or self.note

    def _note(self) -> str:
        if self.over or self.text:
            return self.note
        waited = time.monotonic() - self._began
        phase = self.phase[:1].upper() + self.phase[1:]
        return f"{phase} …" if waited < 1 else f"{phase} … {waited:.0f} s"

    def _speed(self) -> str:
        if self.first_at is None:
            return ""
        parts = [f"first token {self.first_at - self.asked_at:.2f} s"]
        count, seconds = self.tokens or self.pieces, self.last_at - self.first_at
        if count > 1 and seconds > 0:
            parts.append(f"{(count - 1) / seconds:.0f} tokens/s")
        return " · ".join(parts)


def show_turns(turns: Sequence[Turn], stop: threading.Event) -> Iterator[tuple[PaneValue, ...]]:
    """Start the turns and yield their panes until all are over, at most every 50 ms and only what changed."""
    for turn in turns:
        turn.start()
    shown: tuple[PaneValue, ...] | None = None
    try:
        while True:
            if stop.is_set():
                for turn in turns:
                    turn.end()
            over = all(turn.over for turn in turns)
            views = tuple(turn.view() for turn in turns)
            if views != shown:
                shown = views
                yield views
            if over:
                return
            time.sleep(SHOW_SECONDS)
    finally:
        stop.set()

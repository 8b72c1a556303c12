"""The Chat tab: one question to two models side by side, both answering at once.

Left stands the base model, right the selected run or one of its GGUF files. The conversation lives in the
browser tab; a model is loaded by the first question that needs it and unloaded by a button or when idle.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from studio.errors import InputError, StudioError
from studio.ui.components.choices import heading, text_line
from studio.ui.components.selected import selected_run
from studio.ui.errors import guard
from studio.ui.page import QUIET, STREAMED, Page
from studio.ui.tabs.chat.ask import Sampling, loaded_line, make_ask, unload_all
from studio.ui.tabs.chat.pane import Ask, Turn, chat_pane, empty_pane, show_turns
from studio.ui.tabs.chat.targets import EXAMPLES, ChatTarget, find_target, opening_of, settled, targets_for

MAX_QUESTION = 100_000
DEFAULT_MAX_TOKENS = 256
NO_RUN_HINT = "Nothing is trained yet. Train a run, and it answers here beside its base model."
NO_TARGET = ("No trained model", "")
ASK_HINT = "Ask something below, or try one of the examples."
# Conversations that may be answered at once; each waits for the same cores, so more would only be slower.
MAX_LIVE = 4


@dataclass
class Live:
    """A question that is being answered for one browser tab."""

    stop: threading.Event = field(default_factory=threading.Event)
    discard: bool = False


class LiveTurns:
    """Who is being answered, by browser tab. The limit holds for calls past gradio's queue too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[str, Live] = {}

    def begin(self, session: str) -> Live:
        """Register a question.

        Raises:
            InputError: this tab is being answered already, or too many are.
        """
        with self._lock:
            if session in self._live:
                raise InputError("the last message is still being answered", fix="Wait for it, or press Stop")
            if len(self._live) >= MAX_LIVE:
                raise StudioError(f"{MAX_LIVE} messages are being answered already", fix="Try again in a moment")
            live = self._live[session] = Live()
            return live

    def end(self, session: str, live: Live) -> None:
        """Forget a question."""
        with self._lock:
            if self._live.get(session) is live:
                del self._live[session]

    def stop(self, session: str, discard: bool = False) -> None:
        """Stop what is being answered; with `discard`, without showing what there is so far."""
        with self._lock:
            live = self._live.get(session)
        if live is not None:
            live.discard = discard
            live.stop.set()


def build(page: Page) -> None:
    """Build the tab; other tabs find it as `page.chat`."""
    page.chat = ChatTab(page)


class ChatTab:
    """The tab's components and handlers.

    Attributes:
        left, right: what each pane talks to (keys of `ChatTarget`).
        opened: outputs of a handler that returns `open_with`.
    """

    def __init__(self, page: Page) -> None:
        self.page, self.settings, self.chats = page, page.services.settings, page.services.chats
        self.live = LiveTurns()
        with gr.Column(elem_id="chat") as column:
            self._build_head()
            with gr.Row(elem_classes=["chat-panes"], equal_height=True):
                with gr.Column(elem_classes=["card-block", "chat-card"], min_width=300):
                    self.left = self._target_choice("Left pane", "chat-left-target")
                    self.left_pane = chat_pane("chat-left")
                with gr.Column(elem_classes=["card-block", "chat-card"], min_width=300):
                    self.right = self._target_choice("Right pane", "chat-right-target")
                    self.right_pane = chat_pane("chat-right")
                    self.open_training = gr.Button(
                        "Open Training", visible=False, size="sm", elem_id="chat-open-training"
                    )
            self._build_composer()
        self.opened = [
            self.left, self.right, self.left_pane, self.right_pane, page.summaries["chat"], page.tabs
        ]  # fmt: skip
        self._wire()
        if isinstance(column.parent, gr.Tab):  # an export may have made files since
            column.parent.select(
                guard(self.reload_choices), [page.job, self.left, self.right],
                [
                    self.left, self.right, self.right_pane, self.open_training, self.loaded, self.unload,
                    page.summaries["chat"],
                ],
                **QUIET,
            )  # fmt: skip

    def _build_head(self) -> None:
        with gr.Row(elem_classes=["chat-title"]):
            heading("Chat", "the same message to both")
            self.clear = gr.Button("New conversation", size="sm", scale=0, min_width=150, elem_id="chat-clear")
        with gr.Accordion("Settings", open=False, elem_id="chat-settings"):
            self.system = gr.Textbox(
                "", label="System prompt", lines=2, max_lines=8, interactive=True, elem_id="chat-system",
                info="Taken from the first training row, so that the model sees what it was trained on.",
            )  # fmt: skip
            with gr.Row():
                self.temperature = gr.Slider(
                    0, 2, 0, step=0.05, label="Temperature", info="0 is greedy: always the most likely token.",
                    elem_id="chat-temperature",
                )  # fmt: skip
                self.top_p = gr.Slider(
                    0.05, 1, 1, step=0.05, label="Top p", info="Nucleus sampling: cumulative probability.",
                    elem_id="chat-top-p",
                )  # fmt: skip
                self.max_tokens = gr.Number(
                    DEFAULT_MAX_TOKENS, label="Maximum new tokens", minimum=1, maximum=32768, precision=0,
                    info="Longer answers are truncated.", elem_id="chat-max-tokens",
                )  # fmt: skip

    def _target_choice(self, label: str, elem_id: str) -> gr.Dropdown:
        # Own values are allowed because gradio would check the key against a list that may be older than the run's
        # exports; `find_target` checks it against what exists.
        return gr.Dropdown(
            [], value=None, label=label, show_label=False, container=False, interactive=True, elem_id=elem_id,
            elem_classes=["chat-target"], allow_custom_value=True,
        )  # fmt: skip

    def _build_composer(self) -> None:
        with gr.Row(elem_classes=["chips"], elem_id="chat-examples"):
            self.examples = [
                gr.Button("", size="sm", visible=False, elem_id=f"chat-example-{i}", elem_classes=["chip"])
                for i in range(EXAMPLES)
            ]
        with gr.Row(elem_classes=["plan", "composer"]):
            self.message = gr.Textbox(
                "", label="Message", show_label=False, container=False, placeholder="Message", lines=1, max_lines=8,
                interactive=True, max_length=MAX_QUESTION, scale=1, elem_id="chat-message",
            )  # fmt: skip
            self.send = gr.Button("Send", variant="primary", scale=0, min_width=88, elem_id="chat-send")
            self.stop = gr.Button("Stop", interactive=False, scale=0, min_width=76, elem_id="chat-stop")
        with gr.Row(elem_classes=["chat-loaded"]):
            self.loaded = text_line("", "chat-loaded-line", look="muted num")
            self.unload = gr.Button("Unload", size="sm", scale=0, min_width=90, visible=False, elem_id="chat-unload")

    def _wire(self) -> None:
        page = self.page
        fresh = [
            self.left, self.right, self.left_pane, self.right_pane, self.system, *self.examples, self.open_training,
            self.loaded, self.unload, page.summaries["chat"],
        ]  # fmt: skip
        gr.on(None, guard(self.refresh), page.job, fresh, trigger_mode="multiple", **QUIET)
        panes = [self.left_pane, self.right_pane]
        chosen, begun = [self.left, self.right], [self.left, self.right, *panes, page.summaries["chat"]]
        for change in (self.left.input, self.right.input, self.clear.click):
            change(guard(self.restart), [page.job, *chosen], begun, **QUIET)
        asked = [
            page.job, self.message, self.left, self.right, self.left_pane, self.right_pane, self.system,
            self.temperature, self.top_p, self.max_tokens,
        ]  # fmt: skip
        said = [self.message, *panes, self.send, self.stop, self.loaded]
        answering: dict[str, Any] = {"fn": guard(self.answer), "inputs": asked, "outputs": said, **STREAMED}
        answering["concurrency_limit"] = MAX_LIVE
        asking = [gr.on([self.send.click, self.message.submit], **answering)]
        for example in self.examples:
            filled = example.click(
                None, example, self.message, api_visibility="private",
                js="text => { document.querySelector('#chat-message textarea')?.focus(); return text }",
            )  # fmt: skip
            asking.append(filled.then(**answering))
        for answered in asking:
            answered.then(self.rested, None, [self.send, self.stop, self.loaded, self.unload], **QUIET)
        self.stop.click(self.on_stop, None, None, **QUIET)
        self.unload.click(guard(self.on_unload), None, [self.loaded, self.unload], **QUIET)
        self.open_training.click(lambda: gr.Tabs(selected="training"), None, page.tabs, **QUIET)

    # ---- handlers

    def refresh(self, job_id: str, request: gr.Request) -> list[Any]:
        """Fill the tab for the selected run, with an empty conversation."""
        self.live.stop(str(request.session_hash), discard=True)
        run = selected_run(self.settings, job_id)
        targets, opening = targets_for(self.page.services, job_id), opening_of(self.settings, run)
        right = targets[1].key if len(targets) > 1 else ""
        panes = self._empty(right)
        chips = [*opening.questions, *[""] * EXAMPLES][:EXAMPLES]
        return [
            *self._choices(targets, "base", right),
            *panes,
            opening.system,
            *[gr.Button(text, visible=bool(text)) for text in chips],
            gr.Button(visible=not right),
            *self._loaded(),
            self._summary(targets, "base", right),
        ]

    def reload_choices(self, job_id: str, left: str | None, right: str | None) -> list[Any]:
        """Offer what can be talked to now; the conversation stays, unless the right pane talks to another one now.

        Args:
            job_id: of the selected run; empty for none.
            left, right: keys of the chosen targets, which may be gone; None or empty where a pane has none.
        """
        targets = targets_for(self.page.services, job_id)
        _, now = settled(targets, left, right)
        return [
            *self._choices(targets, left, right), gr.skip() if now == (right or "") else self._empty(now)[1],
            gr.Button(visible=len(targets) < 2), *self._loaded(), self._summary(targets, left, right),
        ]  # fmt: skip

    def open_with(self, job_id: str, key: str, request: gr.Request) -> list[Any]:
        """Open the tab with the target of this key at the right, in a new conversation.

        Args:
            job_id: of the selected run.
            key: of one of its targets, usually an exported file.
            request: tells the browser's session, whose answer in progress is dropped.
        """
        self.live.stop(str(request.session_hash), discard=True)
        targets = targets_for(self.page.services, job_id)
        find_target(targets, key)
        left = "tuned"  # what the file should answer like
        return [
            *self._choices(targets, left, key), *self._empty(key), self._summary(targets, left, key),
            gr.Tabs(selected="chat"),
        ]  # fmt: skip

    def restart(self, job_id: str, left: str | None, right: str | None, request: gr.Request) -> list[Any]:
        """Begin a new conversation, with what the two panes talk to now.

        Args:
            job_id: of the selected run; empty for none.
            left, right: keys of the chosen targets, which may be gone; None where a pane has none.
            request: tells the browser's session, whose answer in progress is dropped.
        """
        self.live.stop(str(request.session_hash), discard=True)
        targets = targets_for(self.page.services, job_id)
        now = settled(targets, left, right)
        # Sent back only where one is gone: meanwhile another one may have been chosen.
        choices = [gr.skip()] * 2 if now == (left, right or "") else self._choices(targets, left, right)
        return [*choices, *self._empty(now[1]), self._summary(targets, left, right)]

    def answer(
        self, job_id: str, question: str, left: str, right: str | None, left_value: Any, right_value: Any, system: str,
        temperature: float, top_p: float, max_tokens: float, request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:  # fmt: skip
        """Ask both models and show both answers while they are written.

        Args:
            job_id: of the selected run; empty for none.
            question: as typed.
            left, right: keys of the chosen targets; a pane without one stays empty.
            left_value, right_value: conversations the panes hold.
            system: system prompt; empty for none.
            temperature, top_p, max_tokens: as the form holds them; checked by `Sampling`.
            request: tells the browser's session; a newer question of it ends this one.
        """
        if not question.strip():
            raise InputError("the message is empty", fix="Type a message, or try one of the examples")
        sampling = Sampling.checked(temperature, top_p, max_tokens)
        targets = targets_for(self.page.services, job_id)
        pairs = [(self.left_pane, left, left_value), (self.right_pane, right, right_value)]
        asked = [(pane, find_target(targets, key), value) for pane, key, value in pairs if key]
        session = str(request.session_hash)
        live = self.live.begin(session)
        turns = [
            Turn(_value(value), question.strip(), system, self._ask(target, sampling), live.stop)
            for _, target, value in asked
        ]
        panes = [pane for pane, _, _ in asked]
        try:
            first: dict[Any, Any] = {
                self.message: "",
                self.send: gr.Button(interactive=False),
                self.stop: gr.Button(interactive=True),
                self.loaded: loaded_line(self.chats) or "Loading the model …",
            }
            for views in show_turns(turns, live.stop):
                if live.discard:
                    break
                yield {**first, **dict(zip(panes, views, strict=True))}
                first = {}
        finally:
            live.stop.set()
            self.live.end(session, live)

    def _ask(self, target: ChatTarget, sampling: Sampling) -> Ask:
        return make_ask(self.chats, self.settings, target, sampling)

    def rested(self) -> list[Any]:
        """After an answer, however it ended: Send again, and what is loaded now."""
        return [gr.Button(interactive=True), gr.Button(interactive=False), *self._loaded()]

    def on_stop(self, request: gr.Request) -> None:
        """Stop the answers of this browser tab."""
        self.live.stop(str(request.session_hash))

    def on_unload(self) -> list[Any]:
        """Free the memory of all loaded models."""
        unload_all(self.chats)
        return self._loaded()

    def _choices(self, targets: list[ChatTarget], left: str | None, right: str | None) -> list[Any]:
        choices = [(target.label, target.key) for target in targets]
        left, right = settled(targets, left, right)
        return [
            gr.Dropdown(choices=choices, value=left),
            gr.Dropdown(choices=choices if right else [NO_TARGET], value=right, interactive=bool(right)),
        ]

    def _loaded(self) -> list[Any]:
        line = loaded_line(self.chats)
        return [line or "No model is loaded; the first message loads it.", gr.Button(visible=bool(line))]

    def _empty(self, right: str) -> list[dict[str, Any]]:
        return [empty_pane(ASK_HINT), empty_pane(ASK_HINT if right else NO_RUN_HINT)]

    def _summary(self, targets: list[ChatTarget], left: str | None, right: str | None) -> str:
        kinds = {target.key: target.kind for target in targets}
        return " | ".join(kinds[key] for key in settled(targets, left, right) if key)


def _value(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else empty_pane("")

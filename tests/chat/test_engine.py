"""Turn taking, cancelling and failing, on a backend that counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from starlette.testclient import TestClient

from studio.chat.decoding import ByteText, Logits, Sampler, StopFilter
from studio.chat.engine import Answer, Decoder, End, Engine, Event, Failed, Piece
from studio.chat.lifetime import Lifetime
from studio.chat.server import make_app
from studio.errors import StudioError

END = 0


class Counting:
    """Says "a" for ever; `steps` records who was advanced."""

    models = ("base", "tuned", "broken")
    context = 1000
    details: dict[str, object] = {}  # noqa: RUF012

    def __init__(self, parallel: int) -> None:
        self.parallel = parallel
        self.steps: list[str] = []
        self.gate = threading.Event()
        self.error: Exception = RuntimeError("no memory left")

    def prompt(self, model: str, messages: list[dict[str, str]]) -> list[int]:
        return [1] * len(messages[0]["content"])

    def ends(self, model: str, token: int) -> bool:
        return token == END

    def text(self, model: str) -> ByteText:
        return ByteText(lambda token: bytes([token]))

    def begin(self, model: str, ids: Sequence[int]) -> Decoder:
        return _Step(self, model)


class _Step:
    def __init__(self, backend: Counting, model: str) -> None:
        self.backend, self.model = backend, model

    def prefill(self) -> bool:
        self.backend.gate.wait(10)
        return True

    def logits(self) -> Logits:
        if self.model == "broken":
            raise self.backend.error
        self.backend.steps.append(self.model)
        row = np.zeros(128, dtype=np.float32)
        row[ord("a")] = 1
        return row

    def advance(self, token: int) -> None:
        pass


class Watcher:
    """Collects the events of one answer."""

    def __init__(self, model: str, limit: int = 5, stop: Sequence[str] = ()) -> None:
        self.events: list[Event] = []
        self.over = threading.Event()
        self.on_piece: Callable[[], None] = lambda: None
        self.answer = Answer(model, [1], limit, Sampler(0), StopFilter(stop), self._take)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Piece):
            self.on_piece()
        else:
            self.over.set()

    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Piece))


@pytest.mark.parametrize(
    ("parallel", "steps"), [(2, ["base", "tuned"] * 5), (1, ["base"] * 5 + ["tuned"] * 5)], ids=["turns", "queue"]
)
def test_answers_take_turns_or_wait(parallel: int, steps: list[str]) -> None:
    backend = Counting(parallel)
    engine = Engine(backend)
    watchers = [Watcher("base"), Watcher("tuned")]
    for watcher in watchers:
        engine.submit(watcher.answer)
    backend.gate.set()
    engine.start()
    for watcher in watchers:
        assert watcher.over.wait(10)
        assert watcher.text() == "aaaaa"
        assert watcher.events[-1] == End("length", 5)
    assert backend.steps == steps
    engine.stop()


def test_cancel_ends_after_the_step_in_progress_and_makes_room() -> None:
    backend = Counting(1)
    engine = Engine(backend)
    first, second = Watcher("base", limit=10**6), Watcher("tuned")
    first.on_piece = lambda: engine.cancel(first.answer)
    backend.gate.set()
    engine.start()
    engine.submit(first.answer)
    engine.submit(second.answer)
    assert second.over.wait(10)
    assert first.text() == "a" and not first.over.is_set()
    assert engine.load <= 1
    engine.stop()


@pytest.mark.parametrize(
    ("error", "why"),
    [(RuntimeError("no memory left"), "RuntimeError: no memory left"), (StudioError("it is tired"), "it is tired.")],
    ids=["a library's", "the studio's"],
)
def test_a_failure_is_told_and_the_next_answer_works(error: Exception, why: str) -> None:
    backend = Counting(1)
    backend.error = error
    backend.gate.set()
    engine = Engine(backend)
    engine.start()
    broken, good = Watcher("broken"), Watcher("base")
    engine.submit(broken.answer)
    engine.submit(good.answer)
    assert broken.over.wait(10) and good.over.wait(10)
    assert broken.events == [Failed(f"The model failed: {why}")]
    assert good.text() == "aaaaa"
    engine.stop()


def test_stop_string_over_several_tokens() -> None:
    backend = Counting(1)
    backend.gate.set()
    engine = Engine(backend)
    engine.start()
    watcher = Watcher("base", limit=50, stop=["aaa"])
    engine.submit(watcher.answer)
    assert watcher.over.wait(10)
    assert watcher.text() == "" and watcher.events == [End("stop", 3)]
    engine.stop()


def test_a_prompt_of_no_tokens_is_refused() -> None:
    """A model without a template may be given nothing at all, behind which there is nothing to read."""
    backend = Counting(1)
    client = TestClient(make_app(backend, Engine(backend), Lifetime(0), "k" * 20), base_url="http://127.0.0.1")
    body = {"model": "base", "messages": [{"role": "user", "content": ""}]}
    reply = client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {'k' * 20}"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages")
    assert "their texts are empty" in reply.json()["error"]["message"]

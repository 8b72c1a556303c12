"""Several data workers as one: nobody waits for what another person asked, and one person has not all of them."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.data.worker.pool import DataPool, asker
from studio.errors import StoppedError, StudioError
from studio.settings import Settings
from tests.data.rows import chat


@pytest.fixture
def pool(session_settings: Settings) -> Iterator[DataPool]:
    made = DataPool(session_settings, workers=4)
    yield made
    made.close()


@pytest.fixture
def long(write: Callable[..., Path]) -> dict[str, Any]:
    """Arguments of a call that takes its time."""
    path = write("long.jsonl", [chat(f"a {n} b c d e", f"b {n} c d e f") for n in range(150_000)])
    return {"data": {"train": [{"path": str(path)}]}}


class Asking:
    """A call by somebody, in a thread."""

    def __init__(self, pool: DataPool, who: str, op: str, **args: Any) -> None:
        self.told = threading.Event()
        self.error: BaseException | None = None
        self.result: Any = None
        self.seconds = 0.0

        def work() -> None:
            asker.set(who)
            began = time.monotonic()
            try:
                self.result = pool.call(op, on_progress=lambda *step: self.told.set(), **args)
            except BaseException as error:
                self.error = error
            self.seconds = time.monotonic() - began

        self.thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
        self.thread.start()


def test_others_are_answered_while_one_person_asks_for_much(pool: DataPool, long: dict[str, Any]) -> None:
    """Six calls over a whole set: two of them run, and another person has a worker for each kind of question."""
    many = [Asking(pool, "a", "duplicates", slot=f"a{n}", **long) for n in range(6)]
    assert many[0].told.wait(60) or many[1].told.wait(60)
    short = Asking(pool, "b", "ping")
    short.thread.join(30)
    assert short.result and short.error is None
    whole = Asking(pool, "b", "duplicates", slot="b", **long)
    assert whole.told.wait(60), "a whole set of another person is begun too"
    assert sum(one.told.is_set() for one in many) <= 2
    pool.cancel("b")
    for number in range(6):
        pool.cancel(f"a{number}")
    for one in [*many, whole]:
        one.thread.join(60)
        assert isinstance(one.error, StoppedError)


def test_a_call_that_waits_can_be_cancelled(pool: DataPool, long: dict[str, Any]) -> None:
    busy = [Asking(pool, "a", "duplicates", slot=f"a{n}", **long) for n in range(2)]
    assert all(one.told.wait(60) for one in busy)
    waits = Asking(pool, "a", "duplicates", slot="waits", **long)
    time.sleep(0.3)
    assert waits.thread.is_alive() and not waits.told.is_set()
    pool.cancel("waits")
    waits.thread.join(10)
    assert isinstance(waits.error, StoppedError)
    pool.close()
    for one in busy:
        one.thread.join(30)
        assert isinstance(one.error, StoppedError)


@pytest.mark.long
def test_a_stopped_count_is_not_begun_again_by_itself(
    pool: DataPool, long: dict[str, Any], model_path: Path, write: Callable[..., Path]
) -> None:
    """The page asks for plan and figures one after the other, and both would count what a person does not want."""
    model = {"path": str(model_path)}
    count = Asking(pool, "a", "lengths", model=model, **long)
    assert count.told.wait(60)
    pool.stop_counting("a")
    count.thread.join(30)
    assert isinstance(count.error, StoppedError)
    for _ in range(2):
        again = Asking(pool, "a", "lengths", model=model, seed=7, **long)
        again.thread.join(5)
        assert isinstance(again.error, StoppedError) and "was stopped" in str(again.error)
    other = Asking(pool, "b", "lengths", model=model, **long)
    assert other.told.wait(60), "somebody else did not stop it"
    pool.stop_counting("b")
    pool.count_again("a")
    wanted = Asking(pool, "a", "lengths", model=model, **long)
    assert wanted.told.wait(60)
    pool.stop_counting("a")
    wanted.thread.join(30)
    short = {"train": [{"path": str(write("short.jsonl", [chat("a", "b")] * 3))}], "validation": 0}
    changed = Asking(pool, "a", "lengths", model=model, data=short)
    changed.thread.join(60)
    assert changed.error is None and changed.result["report"]["train_rows"] == 3
    back = Asking(pool, "a", "lengths", model=model, **long)
    assert back.told.wait(60), "it was changed and changed back"
    pool.stop_counting("a")
    for one in (other, back):
        one.thread.join(30)


@pytest.mark.long
def test_the_same_question_goes_to_who_knows_the_answer(pool: DataPool, model_path: Path) -> None:
    first = pool.call("lengths", model=str(model_path))
    pool.call("ping")
    began = time.monotonic()
    assert pool.call("lengths", model=str(model_path)) == first
    assert time.monotonic() - began < 1


def test_a_call_with_an_end_does_not_wait_for_ever(pool: DataPool, long: dict[str, Any]) -> None:
    busy = [Asking(pool, "a", "duplicates", slot=f"a{n}", **long) for n in range(2)]
    assert all(one.told.wait(60) for one in busy)
    asked = Asking(pool, "a", "duplicates", timeout=0.3, **long)
    asked.thread.join(10)
    assert isinstance(asked.error, StudioError) and not isinstance(asked.error, StoppedError)
    pool.close()


def test_a_worker_is_ready_before_it_is_needed(pool: DataPool) -> None:
    pool.call("ping")
    assert len(pool.pids) == 2

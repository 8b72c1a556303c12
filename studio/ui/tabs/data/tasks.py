"""Work on a whole data set that takes its time: the profile and the cleaned copy.

Each page has at most one task of a kind. A task asks the data workers in a thread of its own, and as who began it, so
that previews and plans are not kept waiting; the page polls for what it has (`/api/data`), without gradio's queue.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from studio.data.worker.pool import DataPool
from studio.errors import StoppedError, StudioError
from studio.ui.errors import UNEXPECTED, logger

Values = dict[str, Any]
KEPT = 32
# At the end of the studio a copy that is being written gets so long to remove what it wrote.
CLOSE_SECONDS = 5.0


@dataclass
class Task:
    """One piece of work and how far it is.

    Attributes:
        calls: operations of the data worker with their arguments, one after the other.
        show: turns an answer into what the page draws.
        slot: by which the worker knows its calls (`DataWorker.call`).
        state: running, or how it ended.
        text: what is being done now.
        share: of the work that is done, from 0 to 1; None if that is not known.
        error: the sentence of the failure, "" for none.
        answers: of the worker, as they came.
        shown: the newest answer as the page draws it.
        stopped: whether the person ended it.
        over: set when its thread has ended.
    """

    calls: list[tuple[str, Values]]
    show: Callable[[Values], Values]
    slot: str
    state: Literal["running", "done", "stopped", "failed"] = "running"
    text: str = "waiting"
    share: float | None = None
    error: str = ""
    answers: list[Values] = field(default_factory=list)
    shown: Values | None = None
    stopped: bool = False
    over: threading.Event = field(default_factory=threading.Event)

    def value(self, after: int) -> Values:
        """Return what the page polls; the answer itself only if there are more than the `after` it has."""
        count = len(self.answers)
        return {
            "state": self.state, "text": self.text, "share": self.share, "error": self.error, "count": count,
            "shown": self.shown if count > after else None,
        }  # fmt: skip


class DataTasks:
    """The tasks of all pages.

    Args:
        worker: the data workers that do them.
    """

    def __init__(self, worker: DataPool) -> None:
        self.worker = worker
        self._lock = threading.Lock()
        self._tasks: dict[tuple[str, str], Task] = {}
        self._count = 0
        self._warmed: Values | None = None

    def warm(self, model: Values) -> None:
        """Let an idle worker load the tokenizer of section `model` meanwhile; the first profile then begins at once."""
        with self._lock:
            if self._warmed == model or self.busy:
                return
            self._warmed = model
        threading.Thread(target=self._warm, args=(model,), name="data-warm", daemon=True).start()

    def _warm(self, model: Values) -> None:
        # What is wrong with the model is said where the person asks for something.
        with contextlib.suppress(StudioError):
            self.worker.call("warm", slot="warm", model=model)

    def begin(self, page: str, kind: str, calls: list[tuple[str, Values]], show: Callable[[Values], Values]) -> Task:
        """Start a task; the page's earlier one of this kind is ended.

        Args:
            page: id of the browser page that asks.
            kind: of the task; a page has one of each at most.
            calls: (operation, arguments) for the worker, done in order.
            show: makes what the page shows of each answer.
        """
        self.cancel(page, kind)
        with self._lock:
            self._count += 1
            task = Task(calls, show, f"{kind} {self._count}")
            self._tasks.pop((page, kind), None)
            self._tasks[page, kind] = task
            ended = [key for key, one in self._tasks.items() if one.state != "running"]
            for key in ended[: max(0, len(self._tasks) - KEPT)]:
                del self._tasks[key]
        work = contextvars.copy_context().run
        threading.Thread(target=work, args=(self._work, task), name=f"data-{kind}", daemon=True).start()
        return task

    def find(self, page: str, kind: str) -> Task | None:
        """Return the task of a page, None if it has none (any more)."""
        return self._tasks.get((page, kind))

    def cancel(self, page: str, kind: str) -> None:
        """End a task where the worker next tells its progress; nothing happens if there is none."""
        task = self.find(page, kind)
        if task is None or task.state != "running":
            return
        task.stopped = True
        if task.text == "waiting":  # for another page's work: it would say so until that is over
            task.state = "stopped"
        self.worker.cancel(task.slot)

    @property
    def busy(self) -> bool:
        """Whether there is a task at work."""
        return any(task.state == "running" for task in list(self._tasks.values()))

    def close(self) -> None:
        """End all tasks; the workers are left to who made them."""
        end = time.monotonic() + CLOSE_SECONDS
        for page, kind in list(self._tasks):
            self.cancel(page, kind)
        for task in list(self._tasks.values()):
            task.over.wait(max(0.0, end - time.monotonic()))

    def _work(self, task: Task) -> None:
        def tell(phase: str, done: float, total: float | None) -> None:
            if task.stopped:  # between two calls there was nothing to cancel
                self.worker.cancel(task.slot)
            task.text, task.share = told(phase, done, total, task.answers)

        try:
            for op, args in task.calls:
                answer = self.worker.call(op, on_progress=tell, slot=task.slot, **args)
                task.shown = task.show(answer)
                task.answers.append(answer)
            task.state = "done"
        except StoppedError:
            task.state = "stopped"
        except StudioError as error:
            task.error, task.state = error.sentence, "failed"
        except Exception:
            logger.exception("a task of the data worker")
            task.error, task.state = UNEXPECTED, "failed"
        finally:
            task.over.set()


def told(phase: str, done: float, total: float | None, answers: list[Values]) -> tuple[str, float | None]:
    """Say how far a task is: its text, and the share that is done.

    Args:
        phase, done, total: what the worker tells.
        answers: those before; a sample's has how many rows there are.
    """
    if phase in ("profile", "writing", "tokenizing", "reading data"):
        phase = {"profile": "reading", "reading data": "reading", "tokenizing": "counting"}.get(phase, phase)
        sampled = answers[-1].get("sampled") if answers else None
        total = sampled["of"] if sampled else total
        of = f" of {total:,.0f}" if total else ""
        return f"{phase} row {done:,.0f}{of}", min(1.0, done / total) if total else None
    return (f"{phase}, {done / total:.0%}", done / total) if total else (phase, None)

"""Follow a job in a terminal: its phases as bars, its numbers as text; Ctrl-C asks it to stop.

The job does not need us: if this process is killed, the job goes on.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from studio.cli.output import say, stderr
from studio.errors import InputError, StoppedError, StudioError
from studio.escaping import for_terminal
from studio.jobs import JobFolder, JobState, read_events, request_stop

POLL_SECONDS = 0.2
PLAIN_SECONDS = 10.0  # between lines where no terminal shows bars
FOLLOW = "Follow the job until it ends; Ctrl-C only ends the showing."


def follow(job: JobFolder, offset: int = 0, *, stops: bool = True) -> JobState:
    """Show a job until it is over.

    Args:
        job: the job.
        offset: byte of its events from which on they are shown.
        stops: whether Ctrl-C stops the job; else it only ends the showing.

    Returns:
        Its final state; `raise_unless_completed` turns that into an exit code.
    """
    asked = 0
    with _view() as view:
        while True:
            try:
                state = job.state()  # before the events: a final state means that all events are there
                events, offset = read_events(job.events_path, offset)
                for event in events:
                    view.show(event)
                if state.final and not events:
                    return state
                time.sleep(0 if events else POLL_SECONDS)
            except KeyboardInterrupt:
                if not stops:
                    say("no longer followed; the job goes on")
                    raise
                asked += 1
                request_stop(job, now=asked > 1)
                say("stopping after this step; Ctrl-C again stops now" if asked == 1 else "stopping now")


def raise_unless_completed(job: JobFolder, state: JobState) -> None:
    """Turn the end of a job into the exception whose exit code it deserves.

    Raises:
        StoppedError, InputError, StudioError: the job did not complete.
    """
    if state.status == "completed":
        return
    kind: type[StudioError] = StudioError
    if state.status == "stopped":
        kind = StoppedError
    elif state.exit_code == InputError.exit_code:
        kind = InputError
    raise kind(state.reason or state.status, fix=state.fix, where=f"{job.request.kind} {job.request.name}")


def _view() -> contextlib.AbstractContextManager[_Bars | _Lines]:
    return _Bars() if stderr.is_terminal else _Lines()


class _Lines:
    """Without a terminal: a line when a phase begins and now and then in between."""

    def __init__(self) -> None:
        self._said = 0.0

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: dict[str, Any]) -> None:
        """Take in one event."""
        if event["kind"] == "phase" and event["state"] == "begin" and event["phase"] != "validating":
            say(event["phase"])
        elif event["kind"] == "notice":
            say(f"{event['level']}: {event['text']} {event['fix']}".rstrip())
        elif event["kind"] == "metric" and "loss" in event["values"] and time.monotonic() - self._said > PLAIN_SECONDS:
            self._said = time.monotonic()
            say(f"  step {event['step']} of {event['total_steps']}  {_numbers(event)}")


class _Bars:
    """In a terminal: a bar for each phase."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<28}", markup=False), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False), console=stderr,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Take in one event."""
        if event["kind"] == "phase" and event["phase"] != "validating":
            self._phase(event)
        elif event["kind"] == "notice":
            say(f"{event['level']}: {event['text']} {event['fix']}".rstrip())
        elif event["kind"] == "metric" and "loss" in event["values"] and "training" in self._tasks:
            self._progress.update(self._tasks["training"], note=_numbers(event))

    def _phase(self, event: dict[str, Any]) -> None:
        name = event["phase"]
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(for_terminal(name), total=None, unit="", note="")
        total = event["total"]
        if event["state"] == "end" and not total:
            total = event["done"] = 1
        unit = for_terminal(event["unit"]) if event["total"] else ""
        self._progress.update(
            self._tasks[name], completed=event["done"], total=total, unit=unit
        )  # fmt: skip


def _numbers(event: dict[str, Any]) -> str:
    values = event["values"]
    left = event.get("eta")
    text = f"loss {float(values['loss']):.4g}  {float(values.get('tokens_per_second', 0)):.0f} tokens/s"
    return text + (f"  {int(left) // 60}:{int(left) % 60:02d} left" if left is not None else "")

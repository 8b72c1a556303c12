"""The process here of a run elsewhere: starts it, and keeps its folder here up to date until it is over.

What differs between places (`ssh`, `slurm`) is how the run is reached and begun, and how its files come back. The
process may be killed at any moment, and the connection may break for hours: the run there goes on, and this goes on
where it was by launch.json. Each event comes once: those that are here already are known by their number there.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from studio.errors import StoppedError, StudioError
from studio.jobs.run.worker import JobContext
from studio.jobs.store.events import read_events
from studio.jobs.store.files import read_json, write_json
from studio.launch.record import read_record, update_record
from studio.launch.ssh.cargo import as_here
from studio.launch.ssh.machine import BrokenError, UnknownHostError

# Seconds between attempts while the machine cannot be reached.
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
# Seconds for a stop at once to reach the machine.
LAST_WORDS = 40.0
# A clock there that is further off than this is set right in what comes from there.
_SKEW = 5.0
#: Number of an event there, in the event here.
NUMBER = "there"
Answer = dict[str, Any]
T = TypeVar("T")


class FailedThereError(StudioError):
    """The run failed on the other machine.

    Args:
        told: the state there.
        line: number of the line of the log here that shows why, if one does.
    """

    def __init__(self, told: Answer, line: int | None) -> None:
        super().__init__(str(told["reason"] or told["status"]), fix=str(told["fix"]))
        self.exit_code = told["exit_code"] if isinstance(told["exit_code"], int) and told["exit_code"] > 0 else 1
        self.change = told["change"] if isinstance(told["change"], dict) else {}
        self.line = line


class Far(Protocol):
    """Who answers for the run elsewhere."""

    def ask(
        self, operation: str, given: Answer, *, seconds: float = 120, meanwhile: Callable[[], None] = lambda: None
    ) -> Answer:
        """Have `look`, `stop` or `resume` done there, and return the answer.

        Args:
            operation: what is to be done.
            given: its argument.
            seconds: it may take.
            meanwhile: called now and then; an exception of it ends the waiting.

        Raises:
            BrokenError: it cannot be reached now.
            InputError, StudioError: what is said there.
        """
        ...


class Copies(Protocol):
    """Who brings the files of the run here."""

    def update(self, listed: list[Any]) -> bool:
        """Bring what is new of the files that are listed; return whether all of it is here."""
        ...

    def close(self) -> None:
        """End what is under way."""
        ...


F = TypeVar("F", bound=Far)


class Following(Generic[F]):
    """The following of one job.

    Args:
        context: of the job here.
        shown: the place, for sentences.
        poll: seconds between two looks.
    """

    def __init__(self, context: JobContext, shown: str, poll: float) -> None:
        self.context, self.shown, self.poll = context, shown, poll
        self._killed: float | None = None
        self._broken: float | None = None  # since when the place cannot be reached, in Unix seconds
        self._told_now: bool | None = None  # whether a stop was told there, and whether it was to be at once
        self._late = ""  # why files did not come that are all that is missing
        self._seen = 0

    def connect(self) -> F:
        """Reach the place."""
        raise NotImplementedError

    def begin(self, far: F) -> None:
        """Have the run begin there, and record that it has."""
        raise NotImplementedError

    def copies(self, far: F) -> Copies:
        """Say who brings its files."""
        raise NotImplementedError

    def heard(self, found: Answer) -> None:
        """Take note of an answer that says how the run is, before its events are written."""

    def run(self) -> None:
        """Do what is left to do of it."""
        signal.signal(signal.SIGTERM, self._on_term)
        far = self.connect()
        if not self.begun:
            self.begin(far)
        else:
            self._resume(far)
        self._watch(far)

    def _on_term(self, *_: object) -> None:
        self._killed = self._killed or time.monotonic()

    def _resume(self, far: F) -> None:
        """Let a run go on whose end was told here already; any other is only followed."""
        record, id = read_record(self.context.job), self.context.job.id
        found = self._look(far)
        if found["final"] and found["state"]["attempt"] == record.ended and found["state"]["status"] != "completed":
            given = {"id": id, "attempt": found["state"]["attempt"]}
            self.steadily(lambda: far.ask("resume", given))

    def _watch(self, far: F) -> None:
        job = self.context.job
        self._seen = last_number(self.context)
        copies = self.copies(far)
        environment: dict[str, Any] = {}
        try:
            while True:
                self._pass_stop(far)
                found = self._look(far)
                self.heard(found)
                more = self._take(found)
                told = as_here(found["environment"], read_record(job).paths)
                if told != environment:
                    self.context.environment(**told)
                    environment = told
                try:
                    here = copies.update(found["files"])
                except BrokenError as error:
                    here = False
                    self._tell_late(error, bool(found["final"]))
                if found["final"] and here and not more:
                    return self._end(found)
                self._sleep(0.0 if more else 0.2 if found["final"] else self.poll)
        finally:
            copies.close()

    def _look(self, far: F) -> Answer:
        record = read_record(self.context.job)
        given = {"id": self.context.job.id, "events": record.events_at, "log": record.log_at}
        return self.steadily(lambda: far.ask("look", given, seconds=60))

    def _take(self, found: Answer) -> bool:
        """Write what is new into events and log here; return whether there was anything."""
        record = read_record(self.context.job)
        if found["events_at"] == record.events_at and found["log_at"] == record.log_at:
            return False
        skew = time.time() - float(found["now"])
        for text in found["events"]:
            event = _parsed(text)
            if event is None or event["seq"] <= self._seen or event["kind"] == "done":
                continue
            self._seen = event["seq"]
            if abs(skew) > _SKEW and isinstance(event.get("time"), int | float):
                event["time"] = round(event["time"] + skew, 3)
            self.context.relay({**event, NUMBER: event["seq"]})
        sys.stdout.write(str(found["log"]))
        sys.stdout.flush()
        update_record(self.context.job, events_at=int(found["events_at"]), log_at=int(found["log_at"]))
        return True

    def _end(self, found: Answer) -> None:
        state, record = found["state"], update_record(self.context.job, ended=found["state"]["attempt"])
        if state["status"] == "completed":
            _name_base(self.context, record.paths)
            return
        if state["status"] == "stopped":
            raise StoppedError(str(state["reason"]), fix=str(state["fix"]))
        raise FailedThereError(state, _line_of(self.context, str(found["line"])))

    def _pass_stop(self, far: F) -> None:
        """Tell the run there once that it is to stop, and once more where that is to be at once."""
        if self._killed is None and not self.context.should_stop():
            return
        asked = self.context.job.asked_stop() or {}
        now = self._killed is not None or bool(asked.get("now"))
        if self._told_now is None or (now and not self._told_now):
            self.steadily(lambda: far.ask("stop", {"id": self.context.job.id, "now": now}, seconds=30))
            self._told_now = now

    def meanwhile(self) -> None:
        """While the run has not begun there, a stop ends everything."""
        if self._killed is not None:
            raise StoppedError("it was stopped before it began there")
        self.context.check_stop()

    def steadily(self, work: Callable[[], T]) -> T:
        """Do something there, again and again while the machine cannot be reached.

        Raises:
            StoppedError: a stop was asked for and cannot be passed on.
            StudioError: anything but a broken connection.
        """
        attempt = 0
        while True:
            try:
                done = work()
            except (BrokenError, UnknownHostError) as error:
                if isinstance(error, UnknownHostError) and not self.begun:
                    raise
                self._tell_broken(error)
            else:
                self._tell_whole()
                return done
            pause = PAUSES[min(attempt, len(PAUSES) - 1)]
            attempt += 1
            self._sleep(pause)

    @property
    def begun(self) -> bool:
        """Whether the run was accepted there."""
        return read_record(self.context.job).begun

    def _tell_broken(self, error: StudioError) -> None:
        if self._broken is None:
            self._broken = time.time()
            since = time.strftime("%H:%M:%S", time.localtime(self._broken))
            fix = "The run continues there and is followed again once the machine responds" if self.begun else error.fix
            self.context.notice("warning", f"no connection to {self.shown} since {since}: {error.what}", fix)

    def _tell_late(self, error: BrokenError, final: bool) -> None:
        """Say once why a run that is over there is not over here: its files do not come, again and again."""
        if final and error.what != self._late:
            self._late = error.what
            self.context.notice(
                "warning", f"the run ended there, and its files are still missing: {error.what}", error.fix
            )

    def _tell_whole(self) -> None:
        if self._broken is not None:
            seconds = time.time() - self._broken
            self._broken = None
            text = f"{self.shown} is responding again, after {seconds:.0f} seconds without a connection"
            self.context.notice("info", text)

    def _sleep(self, seconds: float) -> None:
        """Wait, and see meanwhile whether a stop must end the waiting."""
        end = time.monotonic() + seconds
        while True:
            if not self.begun:
                self.meanwhile()
            elif self._killed is not None and self._broken and time.monotonic() - self._killed > LAST_WORDS:
                raise StoppedError(
                    f"it is no longer followed here and may still be running on {self.shown}, which cannot be reached",
                    fix="Resume it once the machine responds to follow it again, then stop it",
                )
            if self._broken is None and self._told_now is None and self.context.job.stop_path.exists():
                return
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.2, left))


def last_number(context: JobContext) -> int:
    """Number there of the newest event that came from there; 0 for none."""
    found, offset = 0, 0
    while True:
        page, following = read_events(context.job.events_path, offset)
        found = max([found, *(int(one[NUMBER]) for one in page if isinstance(one.get(NUMBER), int))])
        if following == offset:
            return found
        offset = following


def _parsed(text: str) -> dict[str, Any] | None:
    """An event from there; what is none is passed over."""
    try:
        event = json.loads(text)
    except ValueError:
        return None
    whole = isinstance(event, dict) and isinstance(event.get("seq"), int) and isinstance(event.get("kind"), str)
    return event if whole else None


def _name_base(context: JobContext, paths: dict[str, str]) -> None:
    """Let the adapter name its base model by the path that it has here."""
    file = context.job.model / "adapter_config.json"
    try:
        raw = read_json(file)
    except ValueError:
        return
    if raw is not None and (told := as_here(raw, paths)) != raw:
        write_json(file, told)


def _line_of(context: JobContext, text: str) -> int | None:
    """Number of the last line of the log here that reads like that of the log there."""
    if not text.strip():
        return None
    found = None
    with context.job.log_path.open(encoding="utf-8", errors="replace") as log:
        for number, line in enumerate(log, 1):
            if line.rstrip("\n") == text:
                found = number
    return found

"""Several data workers as one, so that nobody waits for what another person asked.

Who has none of the workers is served first; one person has at most three of them, two of these with whole sets, and
never the last one that is free. A worker stays with who used it last, warm, unless somebody has none at all. One more
than are at work is started beforehand. They leave when idle; each is limited in memory (`worker.limit_memory`).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from studio.data.wire import to_line
from studio.data.worker.client import IDLE_SECONDS, DataWorker, OnProgress
from studio.errors import StoppedError, StudioError
from studio.settings import Settings

WORKERS = 5
# Of the machine's memory each may take a quarter: those of one person hardly do at the same time.
_SHARE = 4
# Who asks: set for each request of the page, "" elsewhere.
asker: ContextVar[str] = ContextVar("asker", default="")
# Answered from a row or two; all other calls may read whole sets.
_SHORT = frozenset(("preview", "kind", "diff", "pair", "template", "ping", "warm"))
_COUNTS = frozenset(("lengths", "inspect"))
_EACH, _EACH_WHOLE = 3, 2
_KEPT_KEYS = 32


@dataclass
class _Member:
    """A worker, who uses it now, who used it last, and what it was asked before (its answers are kept there)."""

    worker: DataWorker
    used_by: _Ticket | None = None
    owner: str | None = None
    told: tuple[str, float, float | None] | None = None
    asked: OrderedDict[bytes, None] = field(default_factory=OrderedDict)


@dataclass(frozen=True)
class _Ticket:
    """A call that waits."""

    number: int
    who: str
    op: str
    slot: str
    key: bytes
    counted: bytes  # the data whose rows it counts; empty for other calls

    @property
    def short(self) -> bool:
        return self.op in _SHORT


class DataPool:
    """Data workers that are asked as one.

    Args:
        settings: the studio's settings.
        confined: allow only data and model files below `settings.roots`; the page sets it.
        workers: how many there may be, three at least.
        idle_seconds: each ends after this long without a call.
    """

    def __init__(
        self, settings: Settings, *, confined: bool = False, workers: int = WORKERS, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._members = [
            _Member(DataWorker(settings, confined=confined, idle_seconds=idle_seconds, share=_SHARE))
            for _ in range(max(3, workers))
        ]
        self._changed = threading.Condition()
        self._waiting: list[_Ticket] = []
        self._numbers = itertools.count()
        self._newest: Counter[str] = Counter()
        self._stopped: set[int] = set()
        self._halted: dict[str, set[bytes]] = {}  # by person: the data whose count was stopped
        self._closed = 0

    def call(
        self, op: str, *, timeout: float | None = None, on_progress: OnProgress | None = None, slot: str = "",
        **args: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Ask a worker as `DataWorker.call` does, once there is one for it.

        Args:
            op, on_progress, args: as `DataWorker.call`.
            timeout: seconds, the wait for a free worker included; None for no limit.
            slot: of all calls with one slot only the newest is answered; empty: the call stands alone.

        Raises:
            InputError, StudioError: as `DataWorker.call`.
            StoppedError: a newer call with the slot came, or `cancel`, or `close`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        counted = _data_of(args) if op in _COUNTS else b""
        if counted:
            self._require_wanted(asker.get(), counted)
        number = next(self._numbers)
        own = slot or f"call {number}"
        turn, closed = self._take(own), self._closed
        ticket = _Ticket(number, asker.get(), op, own, to_line({"op": op, "args": args}), counted)

        def wanted() -> bool:
            return self._closed == closed and self._newest[own] == turn

        try:
            member = self._taken(ticket, wanted, deadline)
            try:
                return self._asked(member, ticket, wanted, deadline, on_progress, args)
            finally:
                with self._changed:
                    member.used_by = member.told = None
                    self._changed.notify_all()
        except StoppedError as error:
            if number not in self._stopped:
                raise
            raise _stopped_count() from error
        finally:
            self._stopped.discard(number)
            with self._changed:
                if self._newest[own] == turn:
                    del self._newest[own]

    def _asked(
        self, member: _Member, ticket: _Ticket, wanted: Callable[[], bool], deadline: float | None,
        on_progress: OnProgress | None, args: dict[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        def tell(phase: str, done: float, total: float | None) -> None:
            member.told = phase, done, total
            if on_progress is not None:
                on_progress(phase, done, total)

        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        return member.worker.call(
            ticket.op, timeout=left, on_progress=tell, slot=ticket.slot, wanted=wanted, **args
        )  # fmt: skip

    def counting(self, who: str) -> tuple[str, float, float | None] | None:
        """Return how far a person's count of rows is (phase, done, total or None); None if none is at work."""
        at_work = [one for one in self._members if one.used_by is not None and one.used_by.who == who]
        told = [one.told for one in at_work if one.told is not None and one.used_by and one.used_by.op in _COUNTS]
        return max(told, key=lambda one: one[1], default=None)

    def stop_counting(self, who: str) -> None:
        """End a person's counts of rows, running and waiting.

        The page asks again by itself, for the plan and for the figures; until there are other data, or `count_again`,
        it hears the same.
        """
        with self._changed:
            running = [one.used_by for one in self._members if one.used_by is not None]
            counts = [one for one in (*running, *self._waiting) if one.who == who and one.counted]
            self._stopped |= {one.number for one in counts}
            if counts:
                self._halted[who] = {one.counted for one in counts}
        for one in counts:
            self.cancel(one.slot)

    def count_again(self, who: str) -> None:
        """Count what a person stopped when it is asked for next."""
        self._halted.pop(who, None)

    def _require_wanted(self, who: str, data: bytes) -> None:
        with self._changed:
            if data in self._halted.get(who, ()):
                raise _stopped_count()
            self._halted.pop(who, None)

    def _take(self, slot: str) -> int:
        with self._changed:
            self._newest[slot] += 1
        return self.cancel(slot)

    def cancel(self, slot: str) -> int:
        """End the calls with this slot, running and waiting; returns how often the slot was taken or cancelled."""
        with self._changed:
            if slot not in self._newest:
                return 0
            self._newest[slot] += 1
            turn = self._newest[slot]
            self._changed.notify_all()
        for member in self._members:
            member.worker.cancel(slot)
        return turn

    def close(self) -> None:
        """End all workers and calls; the next call starts a worker again."""
        with self._changed:
            self._closed += 1
            self._changed.notify_all()
        for member in self._members:
            member.worker.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [pid for member in self._members if (pid := member.worker.pid) is not None]

    def _taken(self, ticket: _Ticket, wanted: Callable[[], bool], deadline: float | None) -> _Member:
        op = ticket.op
        with self._changed:
            self._waiting.append(ticket)
            try:
                while True:
                    if not wanted():
                        raise StoppedError("the request was canceled", where=f"data worker, {op}")
                    if (member := self._free_for(ticket)) is not None:
                        member.used_by, member.owner = ticket, ticket.who
                        self._prepare_next()
                        member.asked[ticket.key] = None
                        member.asked.move_to_end(ticket.key)
                        if len(member.asked) > _KEPT_KEYS:
                            member.asked.popitem(last=False)
                        return member
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise StudioError(
                            "all data workers are busy", where=f"data worker, {op}", fix="Try again later"
                        )
                    self._changed.wait(left)
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _free_for(self, ticket: _Ticket) -> _Member | None:
        """A worker for a call that waits, if it is its turn."""
        if not self._may_have(ticket) or ticket is not min(self._waiting, key=self._rank):
            return None

        def fitness(one: _Member) -> tuple[bool, bool, bool, bool]:
            own = one.owner == ticket.who
            running = one.worker.pid is not None
            return own and ticket.key in one.asked, own and running, one.owner is None and running, one.owner is None

        return max(self._open_to(ticket.who), key=fitness)

    def _open_to(self, who: str) -> list[_Member]:
        """The free workers that a person may take: of those that were another's only if he has none."""
        free = self._free
        return free if not self._at_work(who) else [one for one in free if one.owner in (None, who)]

    @property
    def _free(self) -> list[_Member]:
        return [member for member in self._members if member.used_by is None]

    def _rank(self, ticket: _Ticket) -> tuple[bool, int, bool, int]:
        """The order in which calls are served: those of who has the fewest at work, then the short ones."""
        return not self._may_have(ticket), len(self._at_work(ticket.who)), not ticket.short, ticket.number

    def _may_have(self, ticket: _Ticket) -> bool:
        at_work, free = self._at_work(ticket.who), len(self._free)
        if not at_work:
            return free > 0
        whole = sum(not one.short for one in at_work)
        room = free > 1 and len(at_work) < _EACH and (ticket.short or whole < _EACH_WHOLE)
        return room and bool(self._open_to(ticket.who))

    def _at_work(self, who: str) -> list[_Ticket]:
        used = [member.used_by for member in self._members]
        return [ticket for ticket in used if ticket is not None and ticket.who == who]

    def _prepare_next(self) -> None:
        """Start a worker for whoever comes next, if none is waiting for him."""
        free = [member for member in self._free if member.owner is None or member.worker.pid is None]
        if free and all(member.worker.pid is None for member in free):
            free[0].owner = None
            free[0].worker.start()


def _data_of(args: dict[str, Any]) -> bytes:
    """What is counted, whoever asks for it."""
    return to_line({name: args.get(name) for name in ("data", "method")})


def _stopped_count() -> StoppedError:
    return StoppedError("counting the rows was stopped", where="data", fix="Change a data option to count again")

"""How far a whole job is, by time: one number from 0 to 1 that never goes back, and when it will be over.

A worker says once what its phases should take (event `outline`: the plan's seconds), and training says after each step
what is left of it, validations included (`eta`). Phases differ much in length, so their own shares say nothing of the
job: what counts is the time that has passed, of that and the time that is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# Before the job is over: what is left may take longer than was thought.
MOST = 0.99
# A phase that takes longer than it should has so much of that time left, until it says better.
OVERDUE = 0.2
# From so much of a phase on, its own pace tells its end.
TELLING = 0.1


@dataclass
class Progress:
    """The progress of one job, event by event.

    Attributes:
        share: of the whole job.
        ends: expected end, in Unix seconds; None while nothing tells it.
        expected: seconds by phase, in their order, as the worker said.
    """

    share: float = 0.0
    ends: float | None = None
    expected: dict[str, float] = field(default_factory=dict)
    _began: float | None = None
    _before: float = 0.0  # what attempts before this one had reached
    _over: set[str] = field(default_factory=set)
    _phase: str = ""
    _phase_began: float = 0.0
    _done: float = 0.0  # share of that phase
    _training_ends: float | None = None

    def add(self, event: dict[str, Any]) -> None:
        """Take in one event, as `read_events` gives it."""
        now, kind = event["time"], event["kind"]
        if now <= 0:  # an unreadable line, which has no time
            return
        if kind == "begin" or self._began is None:
            self._begin(now)
        if kind == "outline":
            parts = event.get("seconds")
            self.expected = _seconds(parts) if isinstance(parts, dict) else {}
        elif kind == "phase":
            self._take_phase(event, now)
        elif kind == "metric" and event.get("eta") is not None:
            self._training_ends = now + max(0.0, event["eta"])
        self._look(now)

    def _begin(self, now: float) -> None:
        self._began, self._before = now, self.share
        self._over, self._phase, self._done = set(), "", 0.0
        self._training_ends = self.ends = None

    def _take_phase(self, event: dict[str, Any], now: float) -> None:
        name = event["phase"]
        if name not in self.expected and name != "training":
            return  # a validation interrupts the training, which counts it
        if event["state"] == "end":
            self._over.add(name)
        elif name != self._phase or event["state"] == "begin":
            self._phase, self._phase_began = name, now
        total = event.get("total")
        self._done = min(1.0, (event.get("done") or 0.0) / total) if total else 0.0

    def _look(self, now: float) -> None:
        if not self.expected and self._training_ends is None:
            return
        left = sum(self._left(name, now) for name in dict.fromkeys([*self.expected, "training"]))
        self.ends = now + left
        spent = max(0.0, now - self._began) if self._began is not None else 0.0
        reached = self._before + (1 - self._before) * spent / max(spent + left, 1e-9)
        self.share = max(self.share, min(MOST, reached))

    def _left(self, name: str, now: float) -> float:
        """Seconds that a phase will still take."""
        expected = self.expected.get(name, 0.0)
        if name in self._over:
            return 0.0
        if name == "training" and self._training_ends is not None:
            return max(0.0, self._training_ends - now)
        if name != self._phase:
            return expected
        spent = now - self._phase_began
        if self._done >= TELLING:
            return spent * (1 - self._done) / self._done
        return max(expected - spent, OVERDUE * expected)


def _seconds(parts: dict[str, Any]) -> dict[str, float]:
    """What a worker wrote, as far as it can be calculated with."""
    return {
        name: float(value)
        for name, value in parts.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    }

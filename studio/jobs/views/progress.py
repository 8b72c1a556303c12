"""How far a whole job is: one number from 0 to 1 that never goes back, and the seconds that are left.

Phases differ much in length, so their own shares say nothing of the job. A worker says once what its phases should
take (event `outline`: the plan's seconds); the share is that of the work, weighted by these, so that a machine that is
slower than planned is no further than it is. What is left goes by the pace instead. Time is the worker's own since its
start (`passed`), so a clock that is set changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# Before the job is over.
MOST = 0.99
# Importing the libraries takes so many seconds on a machine that has nothing else to do; a slower one is so much slower
# in everything, which is all that is known of its pace at first.
LIBRARIES, LIBRARY_SECONDS = "loading libraries", 7.0
# From so much of a phase on, its own pace tells its end.
TELLING = 0.1
TRAINING, VALIDATING = "training", "validating"


@dataclass
class Progress:
    """The progress of one job, event by event.

    Attributes:
        share: of the whole job.
        left: seconds until the end, as of the newest event; None while nothing tells it.
        expected: seconds by phase, as the worker said; those of `training` are without its validations.
    """

    share: float = 0.0
    left: float | None = None
    expected: dict[str, float] = field(default_factory=dict)
    _setup: float = 0.0  # seconds before the outline, as of a machine of usual pace
    _slow: float = 1.0  # how much slower this one is
    _before: float = 0.0  # what attempts before this one had reached
    _done: dict[str, float] = field(default_factory=dict)  # share by phase
    _began: dict[str, float] = field(default_factory=dict)
    _validations: tuple[int, int] = (0, 1)  # that are over, of how many
    _first_step: float = 0.0  # that this attempt goes on from
    _eta: float | None = None  # seconds of training left, and when that was said
    _eta_said: float = 0.0

    def add(self, event: dict[str, Any]) -> None:
        """Take in one event, as `read_events` gives it."""
        now = event.get("passed")
        if now is None:  # a job of before, or an unreadable line
            return
        match event["kind"]:
            case "begin":
                self._begin()
            case "outline":
                self._take_outline(event, now)
            case "phase":
                self._take_phase(event, now)
            case "resume":
                self._first_step = event["step"]
            case "metric" if event.get("eta") is not None:
                self._eta, self._eta_said = max(0.0, event["eta"]), now
                self._take_training(event["step"], event.get("total_steps"))
        self._look(now)

    def _begin(self) -> None:
        self._before, self._setup, self._first_step, self._slow = self.share, 0.0, 0.0, 1.0
        self._done, self._began, self._validations = {}, {}, (0, 1)
        self._eta = self.left = None

    def _take_outline(self, event: dict[str, Any], now: float) -> None:
        self.expected = _seconds(event.get("seconds"))
        self._setup = now / self._slow
        often = event.get("validations")
        self._validations = (0, max(1, often) if isinstance(often, int) else 1)

    def _take_phase(self, event: dict[str, Any], now: float) -> None:
        name, total, done = event["phase"], event.get("total"), event.get("done") or 0.0
        if event["state"] == "begin":
            self._began[name] = now
        share = min(1.0, max(0.0, done / total)) if total else 0.0
        if name == TRAINING and event["state"] != "end":
            return self._take_training(done, total)
        if name == VALIDATING:
            over, often = self._validations
            if event["state"] == "end":
                self._validations = (over := over + 1), often
                share = 0.0
            share = min(1.0, (over + share) / often)
        elif name == LIBRARIES and event["state"] == "end":
            self._slow = max(1.0, (now - self._began.get(name, now)) / LIBRARY_SECONDS)
        self._done[name] = 1.0 if event["state"] == "end" and name != VALIDATING else share

    def _take_training(self, step: float, total: float | None) -> None:
        first = self._first_step
        if total and total > first:
            self._done[TRAINING] = max(0.0, min(1.0, (step - first) / (total - first)))

    def _look(self, now: float) -> None:
        weights = self.expected or {TRAINING: 1.0}  # of a device that was not measured: by steps
        whole = self._setup + sum(weights.values())
        if whole > 0:
            done = self._setup + sum(each * self._done.get(name, 0.0) for name, each in weights.items())
            self.share = max(self.share, min(MOST, self._before + (1 - self._before) * done / whole))
        if self.expected or self._eta is not None:
            self.left = round(sum(self._left(name, now) for name in dict.fromkeys([*self.expected, TRAINING])), 1)

    def _left(self, name: str, now: float) -> float:
        """Seconds that a phase will still take."""
        done, expected = self._done.get(name, 0.0), self.expected.get(name, 0.0)
        if self._eta is not None and name in (TRAINING, VALIDATING):  # what training says of itself counts both
            over = name == VALIDATING or self._done.get(TRAINING) == 1.0
            return 0.0 if over else max(0.0, self._eta - (now - self._eta_said))
        if TELLING <= done < 1 and name in self._began and name not in (TRAINING, VALIDATING):
            return (now - self._began[name]) * (1 - done) / done
        return expected * self._slow * (1 - done)


def _seconds(parts: object) -> dict[str, float]:
    """What a worker wrote, as far as it can be calculated with."""
    return {
        name: float(value)
        for name, value in (parts.items() if isinstance(parts, dict) else ())
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    }

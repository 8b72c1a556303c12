"""How well a run does, from its numbers: what ends it at once, and what the person is told once.

Pure: numbers in, findings out; `watching.Watching` feeds it and turns a finding into a notice with a button.
docs/health.md has the table of all rules. Every finding names the option to change where there is one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

# A loss this many times as large as its best level is no spike of one odd batch any more when it lasts for SPIKE_STEPS.
# Below LARGE a loss is compared with LARGE itself: near 0 a single new example multiplies it.
EXPLODED, LARGE, SPIKE_STEPS, LOSS_WINDOW = 10.0, 1.0, 3, 20
# Who knows nothing of the next token has a loss of ln(vocabulary). A run that was about there or below and is this many
# times above it was ruined, not taught.
CLUELESS, KNOWING = 1.5, 1.1
ZERO_STEPS = 3
# After the warm-up the loss of so many steps is compared with that of as many at the start; falling by less than
# FALLEN of it is none that could be told from the chance of the batches. The first steps may have ruined the model by
# then: a loss of RISEN times the very first one has not fallen either.
FLAT_WINDOW, FLAT_STEPS, FALLEN, RISEN = 10, 40, 0.01, 2.0
RISES = 3
# A step is slow now and then; SLOW_STEPS in a row below half of the usual are something else.
SLOW, SLOW_STEPS, SPEED_WINDOW = 0.5, 8, 200
USUAL_STEPS = 20
MEMORY_LEFT, GPU_USED = 0.05, 0.97
DISK_LEFT, DISK_FEW = 0.02, 1_000_000_000


@dataclass(frozen=True)
class Finding:
    """Something about a run.

    Attributes:
        about: which rule it is, so that each speaks once.
        text: what was noticed, with the numbers.
        fix: what to do about it.
        change: options to change by a button, by dotted name.
    """

    about: str
    text: str
    fix: str
    change: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What the rules need to know of a run.

    Attributes:
        online: its answers are written while it trains, so that its loss says little and may be 0.
        learning_rate: highest of the run.
        vocabulary: how many tokens the model chooses from, where the loss is that of the next token; else 0.
        max_grad_norm: 0 for none.
        half: whether it computes in 16 bits.
        warmup: steps in which the learning rate rises.
        micro_batch: examples computed at a time.
        save_total_limit: checkpoints kept.
        metric: of a validation, by which it is judged.
        higher: whether that metric should rise.
        cures: changes that lower the memory, the least costly first.
    """

    learning_rate: float
    online: bool = False
    vocabulary: int = 0
    max_grad_norm: float = 1.0
    half: bool = False
    warmup: int = 0
    micro_batch: int = 1
    save_total_limit: int = 1
    metric: str = "eval_loss"
    higher: bool = False
    cures: tuple[dict[str, Any], ...] = ()


class Health:
    """Watches one attempt of a run; each rule speaks once.

    Attributes:
        suspicious: the newest loss was far too large, so no checkpoint should be written of it.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._told: set[str] = set()
        self._losses: deque[float] = deque(maxlen=LOSS_WINDOW)
        self._level = math.inf  # the lowest that the loss was so far, by the median of the newest steps
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=FLAT_WINDOW)
        self._steps = self._large = self._zero = self._zero_since = 0
        self._speeds: deque[float] = deque(maxlen=SPEED_WINDOW)

    @property
    def suspicious(self) -> bool:
        """Whether the newest loss was far too large."""
        return self._large > 0

    def go_on(self, losses: Iterable[float]) -> None:
        """Take in the losses of the steps that were made before this attempt."""
        for loss in losses:
            if math.isfinite(loss):
                self._usual(loss)

    def _usual(self, loss: float) -> None:
        self._losses.append(loss)
        self._level = min(self._level, median(map(abs, self._losses)))

    def _limit(self) -> tuple[float, float]:
        """Return the level that the loss had, and above which one it has exploded; infinite before there is one."""
        if self._facts.online:  # its loss goes up and down with the answers, so only the last steps say what is usual
            enough = len(self._losses) >= USUAL_STEPS // 2
            level = median(map(abs, self._losses)) if enough else math.inf
            return level, EXPLODED * max(level, LARGE)
        limit = EXPLODED * max(self._level, LARGE)
        clueless = math.log(self._facts.vocabulary) if self._facts.vocabulary > 1 else 0.0
        return self._level, min(limit, CLUELESS * clueless) if self._level < KNOWING * clueless else limit

    def broken(self, step: int, loss: float, grad_norm: float | None) -> Finding | None:
        """Say why the run must end now: loss or gradients are no numbers, or the loss exploded.

        Args:
            step: global step, counted from 1.
            loss: of that step, before any smoothing.
            grad_norm: before clipping; None where it was not logged.
        """
        for what, value in (("loss", loss), ("gradient norm", grad_norm)):
            if value is not None and not math.isfinite(value):
                return self.ruined(step, f"the {what} became {value} at step {step}")
        level, limit = self._limit()
        self._large = self._large + 1 if loss > limit else 0
        if self._large >= SPIKE_STEPS:
            text = f"the loss exploded: {loss:.4g} at step {step}, where it was {level:.4g} before"
            return self.ruined(step, text)
        if not self._large:
            self._usual(loss)
        return None

    def ruined(self, step: int, text: str) -> Finding:
        """Say what keeps the numbers of a run finite."""
        facts = self._facts
        lower = tidy(facts.learning_rate / 5)
        if step <= 1:  # no step was made that could have been too large
            fix, change = "The model's weights may already contain NaN or inf, or overflow in 16 bits: ", {}
            if facts.half:
                change = {"model.dtype": "float32"}
                return Finding("broken", text, f"{fix}set model.dtype to float32", change)
            return Finding("broken", text, f"{fix}choose another model.path, or lower training.learning_rate", change)
        if facts.max_grad_norm == 0:
            fix = f"Set training.max_grad_norm to 1, or lower training.learning_rate (it is {facts.learning_rate:g})"
            return Finding("broken", text, fix, {"training.max_grad_norm": 1.0})
        other = ", or set model.dtype to float32" if facts.half else ""
        fix = f"Lower training.learning_rate (it is {facts.learning_rate:g}) to {lower:g}{other}"
        return Finding("broken", text, fix, {"training.learning_rate": lower})

    def loss(self, step: int, loss: float, grad_norm: float | None) -> Finding | None:
        """Look at the loss of a step: 0, or not falling from the first step on.

        Args:
            step: global step, counted from 1.
            loss: of that step.
            grad_norm: before clipping; None where it was not logged. Only quoted in the finding.
        """
        facts = self._facts
        self._steps += 1
        if facts.online:
            return None
        self._zero = self._zero + 1 if loss == 0 else 0
        self._zero_since = step if self._zero == 1 else self._zero_since
        if self._zero == ZERO_STEPS:
            return self._once(_zero(self._zero_since))
        if len(self._first) < FLAT_WINDOW:
            self._first.append(loss)
        self._last.append(loss)
        # Of a run that goes on, the first steps were another attempt's.
        if step != facts.warmup + FLAT_STEPS or self._steps != step:
            return None
        first, last = median(self._first), median(self._last)
        if last > RISEN * max(self._first[0], LARGE):
            first = self._first[0]
        elif last < first - FALLEN * abs(first):
            return None
        return self._once(self._flat(first, last, grad_norm))

    def _flat(self, first: float, last: float, grad_norm: float | None) -> Finding:
        rate = self._facts.learning_rate
        text = f"the loss has not fallen in the first {self._steps} steps ({first:.4g}, now {last:.4g})"
        if grad_norm == 0:
            fix = "The gradients are 0: no trained parameter affects the loss; check tuning.target_modules"
            return Finding("flat", text, fix)
        if last > first * 1.1:
            lower = tidy(rate / 5)
            fix = f"The steps may be too large: lower training.learning_rate (it is {rate:g}) to {lower:g}"
            return Finding("flat", text, fix, {"training.learning_rate": lower})
        higher = tidy(min(1.0, rate * 5))
        fix = f"The steps may be too small: raise training.learning_rate (it is {rate:g}) to {higher:g}"
        return Finding("flat", text, fix, {"training.learning_rate": higher})

    def validation(self, scores: list[tuple[int, float]]) -> Finding | None:
        """Look at the validations so far, (step, value): the newest is no number, or each is worse than the last."""
        facts = self._facts
        name = facts.metric.removeprefix("eval_").replace("_", " ")
        step, value = scores[-1]
        if not math.isfinite(value):
            return self._once(Finding(
                "validation", f"the validation {name} at step {step} is {value}",
                "Look for an unusual row in data.validation, or set model.dtype to float32",
                {"model.dtype": "float32"} if facts.half else {},
            ))  # fmt: skip
        recent = scores[-RISES - 1 :]
        worse = [(b - a) * (-1 if facts.higher else 1) > 0 for (_, a), (_, b) in pairwise(recent)]
        if len(worse) < RISES or not all(worse):
            return None
        best_step, best = (max if facts.higher else min)(scores, key=lambda one: one[1])
        return self._once(Finding(
            "worse",
            f"the validation {name} got worse {RISES} times in a row: {value:.4g} at step {step}, its best was "
            f"{best:.4g} at step {best_step}",
            f"The run is starting to overfit: set training.early_stopping to {RISES} and "
            "training.load_best_model_at_end to true, or use more rows or fewer epochs",
            {"training.early_stopping": RISES, "training.load_best_model_at_end": True},
        ))  # fmt: skip

    def speed(self, step: int, tokens_per_second: float) -> Finding | None:
        """Look at the speed of a step: below half of the run's own usual speed, for several steps."""
        self._speeds.append(tokens_per_second)
        if len(self._speeds) < USUAL_STEPS + SLOW_STEPS:
            return None
        speeds = list(self._speeds)
        usual, recent = median(speeds[:-SLOW_STEPS]), speeds[-SLOW_STEPS:]
        if max(recent) >= SLOW * usual:
            return None
        return self._once(Finding(
            "slow",
            f"training has slowed down: {median(recent):.0f} tokens per second since step {step - SLOW_STEPS + 1}, "
            f"{usual:.0f} before",
            "Another program may be using the CPU or GPU, memory may be full, or the machine may be overheating",
        ))  # fmt: skip

    def disk(self, free: int, total: int, checkpoint: int) -> Finding | None:
        """Look at the disk of the home.

        Args:
            free, total: bytes.
            checkpoint: bytes of the next checkpoint, 0 where none is known.
        """
        few = min(DISK_FEW, DISK_LEFT * total)
        if free >= max(few, checkpoint):
            return None
        needs = f", and the next checkpoint takes {checkpoint / 1e9:.2g} GB" if free < checkpoint else ""
        limit = self._facts.save_total_limit
        fewer = f", or set training.save_total_limit (it is {limit}) to 1" if limit > 1 else ""
        return self._once(Finding(
            "disk",
            f"the disk is nearly full: {free / 1e9:.2g} of {total / 1e9:.3g} GB are free{needs}",
            f"Free some space, or point STUDIO_HOME to another disk{fewer}",
            {"training.save_total_limit": 1} if limit > 1 else {},
        ))  # fmt: skip

    def memory(self, available: int, total: int) -> Finding | None:
        """Look at the computer's memory (bytes), within a container's limit."""
        if available >= MEMORY_LEFT * total:
            return None
        return self._full("memory", f"memory is nearly full: {available / 1e9:.2g} of {total / 1e9:.3g} GB are free")

    def gpu(self, used: int, total: int) -> Finding | None:
        """Look at the GPU's memory: bytes that tensors took at most, and all there are."""
        if used <= GPU_USED * total:
            return None
        return self._full("gpu", f"the GPU's memory is nearly full: {used / 1e9:.3g} of {total / 1e9:.3g} GB were used")

    def _full(self, about: str, text: str) -> Finding | None:
        change = next(iter(self._facts.cures), {})
        less = f"start again with {_said(change)}" if change else "lower data.max_length"
        return self._once(Finding(about, text, f"Close other programs, or {less}", change))

    def _once(self, finding: Finding) -> Finding | None:
        if finding.about in self._told:
            return None
        self._told.add(finding.about)
        return finding


def _zero(since: int) -> Finding:
    if since <= 1:
        return Finding(
            "zero",
            "the loss has been 0 since the first step, so nothing is learned",
            "Check the first batch in the Data tab: the supervised tokens may be truncated (data.max_length) or "
            "already memorized",
        )
    return Finding(
        "zero",
        f"the loss has been 0 since step {since}: every row is memorized",
        "Use more rows, or fewer training.epochs",
    )


def tidy(value: float) -> float:
    """Round to one significant digit, as people write learning rates."""
    return float(f"{value:.0e}")


def _said(change: dict[str, Any]) -> str:
    return ", ".join(f"{path} {str(value).lower()}" for path, value in change.items())

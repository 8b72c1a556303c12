"""The curves of a run as a picture for its card: training and validation loss by step, from the run's own events.

Drawn with Pillow at twice the size and made smaller, which smooths the lines. Black on white, so that it is read on the
Hub by day and by night; the two lines differ in form as well as in color.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.jobs import JobFolder, read_events

if TYPE_CHECKING:
    from PIL import ImageDraw

FILE = "curves.png"
WIDTH, HEIGHT, SCALE = 880, 420, 2
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 44, 48
TRAIN, VALIDATION, INK, GRID = "#4f46e5", "#c2410c", "#1f2937", "#e5e7eb"
Points = list[tuple[int, float]]


@dataclass
class Losses:
    """Losses by step, each in the order of the steps.

    Attributes:
        train: of training batches.
        validation: of held-out rows; empty without any.
    """

    train: Points = field(default_factory=list)
    validation: Points = field(default_factory=list)

    def sentence(self) -> str:
        """What the picture shows, for those who do not see it."""
        parts = [
            f"{name} loss from {points[0][1]:.3g} at step {points[0][0]:,} to {points[-1][1]:.3g} at step "
            f"{points[-1][0]:,}"
            for name, points in (("training", self.train), ("validation", self.validation)) if points
        ]  # fmt: skip
        return " and ".join(parts)


def losses_of(run: JobFolder) -> Losses:
    """Read the losses of a run; what a resumed run did twice counts once."""
    found: dict[str, dict[int, float]] = {"loss": {}, "eval_loss": {}}
    for event in _events(run):
        if event["kind"] == "resume":
            found = {name: {at: one for at, one in held.items() if at <= event["step"]} for name, held in found.items()}
        elif event["kind"] == "metric":
            for name, held in found.items():
                value = event.get("values", {}).get(name)
                if isinstance(value, int | float) and math.isfinite(value):
                    held[event["step"]] = float(value)
    return Losses(sorted(found["loss"].items()), sorted(found["eval_loss"].items()))


def draw_curves(losses: Losses, file: Path) -> None:
    """Draw them into a PNG file.

    Args:
        losses: at least two of training.
        file: that is written.
    """
    # Imported here: the page and the command line know this module, and draw nothing.
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), "white")
    pen = ImageDraw.Draw(image)
    every = [*losses.train, *losses.validation]
    first, last = min(step for step, _ in every), max(step for step, _ in every)
    ticks = _ticks(min(loss for _, loss in every), max(loss for _, loss in every))
    low, high = ticks[0], ticks[-1]

    def place(step: float, loss: float) -> tuple[float, float]:
        across = (step - first) / max(1, last - first)
        return (
            SCALE * (LEFT + across * (WIDTH - LEFT - RIGHT)),
            SCALE * (TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)),
        )

    small, big = (ImageFont.load_default(size=size * SCALE) for size in (13, 15))
    for tick in ticks:
        (left, y), (right, _) = place(first, tick), place(last, tick)
        pen.line((left, y, right, y), fill=GRID, width=SCALE)
        pen.text((left - 8 * SCALE, y), f"{tick:g}", fill=INK, font=small, anchor="rm")
    for step in _steps(first, last):
        x, y = place(step, low)
        pen.text((x, y + 8 * SCALE), f"{step:,}", fill=INK, font=small, anchor="mt")
    pen.text((SCALE * (LEFT + WIDTH - RIGHT) / 2, SCALE * (HEIGHT - 6)), "step", fill=INK, font=small, anchor="mb")
    _line(pen, [place(*one) for one in losses.train], TRAIN, dots=len(losses.train) == 1)
    _line(pen, [place(*one) for one in losses.validation], VALIDATION, dots=True)
    x = SCALE * LEFT
    for name, color, points in (
        ("training loss", TRAIN, losses.train), ("validation loss", VALIDATION, losses.validation)
    ):  # fmt: skip
        if points:
            y = SCALE * TOP / 2
            _line(pen, [(x, y), (x + 28 * SCALE, y)], color, dots=color == VALIDATION)
            pen.text((x + 36 * SCALE, y), name, fill=INK, font=big, anchor="lm")
            x += 36 * SCALE + pen.textlength(name, font=big) + 28 * SCALE
    image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(file, optimize=True)


def _events(run: JobFolder) -> Iterator[dict[str, Any]]:
    offset = 0
    while True:
        events, following = read_events(run.events_path, offset)
        yield from events
        if following <= offset:
            return
        offset = following


def _line(pen: ImageDraw.ImageDraw, points: list[tuple[float, float]], color: str, dots: bool) -> None:
    if len(points) > 1:
        pen.line(points, fill=color, width=2 * SCALE, joint="curve")
    size = 3.5 * SCALE
    for x, y in points if dots else []:
        pen.ellipse((x - size, y - size, x + size, y + size), fill=color)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from below the lowest value to above the highest one."""
    span = max(high - low, abs(high) * 0.1, 1e-6)
    size = 10 ** math.floor(math.log10(span / 4))
    size = next(factor * size for factor in (1, 2, 5, 10, 20) if span / (factor * size) <= 5)
    begin = math.floor(low / size)
    end = max(begin + 1, math.ceil(high / size))
    return [round(number * size, 12) for number in range(begin, end + 1)]


def _steps(first: int, last: int) -> list[int]:
    count = min(6, last - first)
    return sorted({round(first + (last - first) * part / max(1, count)) for part in range(count + 1)})

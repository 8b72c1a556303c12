"""Words of the server's side of the page: what a job and its place are called.

Numbers and times that move are worded in the browser (assets/core/words.js), so that they need no request.
"""

from __future__ import annotations

KINDS: dict[str, str] = {
    "train": "training", "evaluate": "evaluation", "export": "export", "merge": "merge", "openai": "OpenAI",
}  # fmt: skip


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th, …, 11th, …"""
    if 10 <= number % 100 <= 20:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def place_words(place: int, device: str = "any") -> str:
    """What a queued job's place in the line is called; 1 is next. `device` is the one that it waits for."""
    waiting = "waiting" if device == "any" else f"waiting for {device}"
    return f"{waiting}, next in line" if place == 1 else f"{waiting}, {ordinal(place)} in line"


def gigabytes(count: float) -> str:
    """Bytes as GB (1e9) with one decimal."""
    return f"{count / 1e9:.1f}"

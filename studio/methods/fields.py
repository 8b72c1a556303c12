"""What several options need to be read: lists that a form or a command line gives as one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def words_of(value: object, allowed: Sequence[str]) -> list[str]:
    """Return the words of a list, or of a text with commas between them.

    Raises:
        ValueError: there is none, one is not allowed, or one is named twice.
    """
    words: Any = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not words or not isinstance(words, list):
        raise ValueError("at least one value is needed")
    for word in words:
        if word not in allowed:
            raise ValueError(f"'{word}' is not one of {', '.join(allowed)}")
    if len(set(words)) < len(words):
        raise ValueError("each may be given once")
    return words


def numbers_of(value: object) -> object:
    """Return the numbers of a text with commas between them, or one number, as a list; anything else as it is.

    Raises:
        ValueError: a part of the text is no number.
    """
    if isinstance(value, str):
        try:
            value = [float(part) for part in value.split(",") if part.strip()] or None
        except ValueError as error:
            raise ValueError("comma-separated numbers, such as 1, 0.2") from error
    return [value] if isinstance(value, int | float) else value


def require_one_each(name: str, weights: Any, words: Any) -> None:
    """Refuse weights that are not as many as what they weight.

    Args:
        name: option that holds the weights, for the error.
        weights: a list; None where every weight is 1.
        words: the list they weight (losses, rewards).

    Raises:
        ValueError: they are more or fewer.
    """
    if weights is not None and len(weights) != len(words):
        raise ValueError(
            f"{name}: {len(weights)} weights for {len(words)} of {', '.join(words)}; give one for each, or leave it "
            "empty"
        )

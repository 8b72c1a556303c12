"""Tokens of units in little memory: arrays behind fields that read as the lists they are declared as.

A Python list of integers takes 36 bytes a token, and a run holds all of its rows at once. Here ids take 4, and labels,
which are the ids or -100, a few bytes for each run of tokens that count.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, TypeVar

from studio.data.masks.overlay import labels_of, runs_of

_Made = TypeVar("_Made")


class _Ids:
    """A field of token ids: kept at 4 bytes a token, read as a list of Python's integers, which take 36."""

    def __init__(self, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, unit: Any, owner: type) -> Any:
        return getattr(unit, self._name).tolist()

    def __set__(self, unit: Any, value: Sequence[int]) -> None:
        setattr(unit, self._name, value if isinstance(value, array) else array("i", value))


class _Labels:
    """A field of labels: kept as runs of the tokens that count; set as labels, or as such runs (an array)."""

    def __get__(self, unit: Any, owner: type) -> Any:
        return labels_of(unit._input_ids, unit._labels)

    def __set__(self, unit: Any, value: Sequence[int]) -> None:
        unit._labels = value if isinstance(value, array) else runs_of(value)


def kept_small(unit: type[_Made]) -> type[_Made]:
    """Let a class of units keep its tokens as arrays; all of its fields read as they are declared."""
    ids = [name for name in unit.__annotations__ if name.endswith("_ids")]
    for name in ids:
        setattr(unit, name, _Ids(name))
    if "labels" in unit.__annotations__:
        unit.labels = _Labels()  # type: ignore[attr-defined]
    unit.ids_kept = tuple(f"_{name}" for name in ids)  # type: ignore[attr-defined]
    return unit


def kept(unit: Any, name: str) -> Any:
    """Return what is kept of a field of tokens (an array of ids) or of labels (`Runs`), which nobody may change."""
    return getattr(unit, f"_{name}")


def kept_ids(unit: Any) -> list[Any]:
    """Return the arrays of ids of a unit, in the order of its fields."""
    return [getattr(unit, name) for name in unit.ids_kept]


def largest_id(unit: Any) -> int:
    """Return the largest token id of a unit; -1 where it has no tokens."""
    return max((max(one, default=-1) for one in kept_ids(unit)), default=-1)

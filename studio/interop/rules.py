"""How one key of another tool is declared: what it is here, or why it is nothing here.

A table of rules has a rule for every key that the tool knows; a key without one is unknown, and the nearest one is
named. What depends on several keys (a method, a batch) is said by the importer itself before the table is applied.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio.interop.report import Status
from studio.interop.values import Reader, is_nothing

if TYPE_CHECKING:
    from studio.interop.draft import Draft

# Said of the keys of every tool about it.
STREAMED = "Files of 1 GB or more together are streamed as data.streaming says; the rows and losses stay the same"
UNBUFFERED = "All rows are shuffled, not those of a buffer"
ONE_DEVICE = "The run is imported for one device; training.devices and training.parallel share it between several"
ANY: Any = object()  # no value is the one with which the key says nothing


@dataclass(frozen=True)
class Rule:
    """One key.

    Attributes:
        key: its name.
        status: what becomes of it.
        to: option of ours, by dotted name.
        why: the reason; how it differs where it is approximated.
        read: its value as the option takes it; raises ValueError with what is needed.
        write: the option's value as the key takes it; None where an export does not write the key.
        default: the tool's own value where the key is not given; it is written into the run where ours is another one.
            `ANY` for none.
        off: with these values a key that is refused changes nothing, and is ignored.
        none: the word `none` is a value of it, and not the same as no value.
        instead: what is done instead of `to`, for a value that means several options.
    """

    key: str
    status: Status
    to: str = ""
    why: str = ""
    read: Reader | None = None
    write: Callable[[Any], Any] | None = None
    default: Any = ANY
    off: tuple[Any, ...] = ()
    none: bool = False
    instead: Callable[[Draft, Any], None] | None = None


Rules = Mapping[str, Rule]


def mapped(
    key: str, to: str, read: Reader, write: Callable[[Any], Any] | None = lambda value: value, default: Any = ANY
) -> Rule:
    """A key that means the same here.

    Args:
        key: theirs.
        to: option of ours.
        read, write: its value as the option takes it, and back; None where an export does not write it.
        default: the tool's own value where it is not given.
    """
    return Rule(key, "mapped", to, "", read, write, default)


def approximated(
    key: str, to: str, read: Reader, why: str, write: Callable[[Any], Any] | None = None, default: Any = ANY
) -> Rule:
    """A key that means nearly the same here.

    Args:
        key: theirs.
        to: option of ours.
        read, write: its value as the option takes it, and back; None where an export does not write it.
        why: how it differs.
        default: the tool's own value where it is not given.
    """
    return Rule(key, "approximated", to, why, read, write, default)


def ignored(why: str, *keys: str) -> list[Rule]:
    """Keys that change nothing here, for one reason."""
    return [Rule(key, "ignored", why=why) for key in keys]


def refused(why: str, *keys: str, off: tuple[Any, ...] = (False, 0)) -> list[Rule]:
    """Keys that the studio cannot do, for one reason.

    Args:
        why: the reason.
        keys: theirs.
        off: values with which they ask for nothing.
    """
    return [Rule(key, "refused", why=why, off=off) for key in keys]


def table(*parts: Rule | Iterable[Rule]) -> dict[str, Rule]:
    """Rules by key.

    Raises:
        ValueError: a key has two.
    """
    rules: dict[str, Rule] = {}
    for part in parts:
        for rule in [part] if isinstance(part, Rule) else part:
            if rule.key in rules:
                raise ValueError(f"{rule.key} has two rules")
            rules[rule.key] = rule
    return rules


def asks_nothing(rule: Rule, value: Any) -> bool:
    """Whether a value of a key is one of those with which it changes nothing, also as text."""
    if is_nothing(value) or value in ([], {}):
        return True
    plain = str(value).strip().lower()
    return any(plain == str(one).lower() or _number(plain) == _number(str(one)) is not None for one in rule.off)


def nearest(key: str, known: Iterable[str]) -> str:
    """A sentence about the known key that is most like an unknown one; "" where none is."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)
    return f"Did you mean '{near[0]}'?" if near else ""


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None

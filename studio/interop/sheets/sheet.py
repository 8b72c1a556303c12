"""A draft whose keys depend on each other, so that a table from key to option is not enough.

A key is looked up with the type that it has to have, and leaves by one of `mapped`, `approximated`, `ignored` and
`refused`. Mappings in a config (a set of data, the settings of one trainer) are parts, with lines of their own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from studio.errors import InputError
from studio.interop import values
from studio.interop.draft import Draft
from studio.interop.reading import Given
from studio.interop.report import Imported, Line, Status
from studio.interop.rules import nearest

_SHOWN = 60


class Sheet(Draft):
    """The keys of a config, and what is made of them.

    Args:
        given: keys with their lines.
        tool: title of the tool.
        prefix: what stands before each key in the report, such as "datasets[0]."; "" for the keys of the file itself.
    """

    def __init__(self, given: Given, tool: str, prefix: str = "") -> None:
        super().__init__(given, tool)
        self.prefix = prefix

    def part(self, inner: dict[str, Any], prefix: str) -> Sheet:
        """The sheet of a mapping in the config: it sets options of the same run, and adds to the same report."""
        sheet = Sheet(replace(self.given, values=inner), self.tool, f"{self.prefix}{prefix}")
        sheet.report, sheet.values, sheet._from = self.report, self.values, self._from
        return sheet

    # ---- what was given

    def raw(self, key: str) -> Any:
        """The value of a key as it stands; None where it has none."""
        return self.given.values[key] if self.has(key) else None

    def text(self, key: str) -> str | None:
        """The value of a key as text; None where it has none."""
        return None if self.raw(key) is None else self._read(key, _any_text)

    def word(self, key: str) -> str | None:
        """The value of a key in lower case, for keys to which `none` and false are answers; None only without a value.

        Raises:
            InputError: it is a list or a mapping.
        """
        value = self.given.values.get(key)
        if isinstance(value, list | dict):
            raise self.error(key, "a word is needed")
        found = "" if value is None else str(value).strip().lower()
        return found if found not in ("", "null", "~") else None

    def number(self, key: str) -> float | None:
        """The value of a key as a number, also where it is text."""
        return None if self.raw(key) is None else self._read(key, values.number)

    def whole(self, key: str) -> int | None:
        """The value of a key as a whole number, also where it is text."""
        return None if self.raw(key) is None else self._read(key, values.whole)

    def flag(self, key: str) -> bool | None:
        """The value of a key as true or false, also where it is text."""
        return None if self.raw(key) is None else self._read(key, values.flag)

    def words(self, key: str) -> list[str] | None:
        """The value of a key as a list of texts."""
        return None if self.raw(key) in (None, []) else self._read(key, values.words)

    def numbers(self, key: str) -> list[float] | None:
        """The value of a key as a list of numbers."""
        words = self.words(key)
        return None if words is None else [float(self._checked(key, word)) for word in words]

    def _checked(self, key: str, word: str) -> float:
        try:
            return values.number(word)
        except ValueError as error:
            raise self.error(key, "a list of numbers is needed") from error

    def mapping(self, key: str) -> dict[str, Any]:
        """The value of a key as a mapping; {} where it has none.

        Raises:
            InputError: it is none.
        """
        value = self.raw(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise self.error(key, "a mapping of names to values is needed")
        return value

    def _read(self, key: str, read: values.Reader) -> Any:
        try:
            return read(self.given.values[key])
        except ValueError as error:
            raise self.error(key, str(error)) from error

    def error(self, key: str, what: str, fix: str = "") -> InputError:
        """The error for a value that is not what the key needs, with file, line and key.

        Args:
            key: theirs.
            what: what is wrong.
            fix: what to do; "" where the value is to be changed.
        """
        value = self.given.values.get(key)
        shown = "" if value is None else f" (it is {value!r:.{_SHOWN}})"
        return InputError(f"{what}{shown}", where=self._place(key), fix=fix or "Change it")

    def _place(self, key: str) -> str:
        line = self._line(key)
        where = f"{self.given.where}, line {line}" if line else self.given.where
        return f"{where}: {self.prefix}{key}"

    def _line(self, key: str) -> int:
        root = key if not self.prefix else self.prefix.partition(".")[0].partition("[")[0]
        return self.given.lines.get(root, 0)

    def value(self, path: str) -> Any:
        """The value that an option of ours was given so far; None where it has none."""
        return self.values.get(path)

    # ---- what becomes of it

    def mapped(self, key: str, path: str, value: Any, why: str = "") -> None:
        """Give an option of ours the value that means the same as the key.

        Args:
            key: theirs.
            path: ours.
            value: ours.
            why: what else is to be known; "" for nothing.
        """
        self.set(path, value, self.prefix + key)
        self.tell(key, "mapped", path, why)

    def approximated(self, key: str, path: str, value: Any, why: str) -> None:
        """Give an option of ours a value that is near what the key means.

        Args:
            key: theirs.
            path: ours.
            value: ours.
            why: how it differs.
        """
        self.set(path, value, self.prefix + key)
        self.tell(key, "approximated", path, why)

    def ignored(self, key: str, why: str) -> None:
        """The key changes nothing that is learned."""
        self.tell(key, "ignored", "", why)

    def refused(self, key: str, why: str) -> None:
        """The studio cannot do what the key says; the run is made without it."""
        self.tell(key, "refused", "", why)

    def default(self, key: str, path: str, value: Any, means: str = "") -> None:
        """Write out what the tool takes where a key is left out, if the studio would take something else.

        Args:
            key: theirs.
            path: ours.
            value: ours.
            means: the value as the tool calls it; "" for `value`.
        """
        self.set(path, value, self.prefix + key)
        self._said.add(key)
        if value != self.specs[path].default:
            why = f"Not given: the default of {self.tool} is {means or value}"
            self.report.append(Line(self.prefix + key, "mapped", path, why, self._line(key)))

    def note(self, key: str, status: Status, to: str, why: str) -> None:
        """Add a line about a key whether it is given or not.

        Args:
            key: theirs.
            status: what became of it.
            to: where it went.
            why: the reason.
        """
        self._said.add(key)
        self.report.append(Line(self.prefix + key, status, to, why, self._line(key)))

    def tell(self, key: str, status: Status, to: str = "", why: str = "") -> None:
        """Add a line about a key that is given; of one that is not there is nothing to say.

        Args:
            key: theirs.
            status: what became of it.
            to: where it went.
            why: the reason; its first letter is made a capital where it begins with a plain word.
        """
        self._said.add(key)
        if key in self.given.values:
            word = why.split(" ")[0].rstrip(",.:;")
            shown = why[:1].upper() + why[1:] if word.isalpha() and word.islower() else why
            self.report.append(Line(self.prefix + key, status, to, shown.rstrip("."), self._line(key)))

    def done(self) -> Imported:
        """As `Draft.done`, with the lines of a part behind those of its mapping."""
        imported = super().done()
        places = {key: at for at, key in enumerate(self.given.values)}
        lines = sorted(imported.report, key=lambda one: places.get(re.split(r"[.\[]", one.key)[0], len(places)))
        return replace(imported, report=lines)

    def told(self, key: str) -> bool:
        """Whether something was said about a key."""
        return key in self._said

    def leave_usual(self, table: Mapping[str, tuple[object, ...]]) -> None:
        """Say of keys with the value that they have by themselves that they ask for nothing.

        Args:
            table: these values, by key.
        """
        for key, usual in table.items():
            value = self.raw(key)
            if value is not None and not self.told(key) and any(_same(value, one) for one in usual):
                self.ignored(key, "its usual value")

    def rest(self, tables: Mapping[Status, Mapping[str, str]], known: frozenset[str], on: Collection[str] = ()) -> None:
        """Say what becomes of every key that is left.

        Args:
            tables: reasons by key, by the status that they mean.
            known: names of all keys that the tool has, for the nearest one to an unknown key.
            on: keys that are not off by themselves, so that turning one off asks for something.
        """
        for key, value in self.given.values.items():
            if key in self._said:
                continue
            status = next((status for status, table in tables.items() if key in table), None)
            if status is None and key not in known:
                self.tell(key, "unknown", "", f"{self.tool} has no such key. {nearest(key, known)}")
            elif status is None or values.is_nothing(value) or value in ([], {}):
                self.tell(key, "ignored", "", "with this value it asks for nothing")
            elif status != "ignored" and key not in on and is_off(value):
                self.tell(key, "ignored", "", "it is off")
            else:
                self.tell(key, status, "", tables[status][key])
        reported = {line.key for line in self.report}
        for key, value in self.given.values.items():
            if values.is_nothing(value) and self.prefix + key not in reported:
                self.tell(key, "ignored", "", "it has no value")


def _same(value: Any, usual: object) -> bool:
    try:
        return float(value) == float(usual)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return bool(value == usual)


def is_off(value: Any) -> bool:
    """Whether a value turns its key off: false, 0, none or nothing."""
    return value in (None, False, 0, "", [], {}) or str(value).strip().lower() in ("false", "none", "null", "no", "0")


def _any_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else values.text(value)

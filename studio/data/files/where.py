"""The place of a row, and the checks of its values whose errors name it.

Every sentence about a row is made here or through here, so that each says file, row and field. It knows values, not
formats.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

from studio.data.files.datafiles import place
from studio.errors import InputError

# A row with a thousand keys is a mistake, and its sentence must stay one.
_SHOWN_KEYS, _SHOWN_KEY = 20, 60
# Parts of a content that are text, and the keys in which tools write it.
_TEXT_PARTS = ("text", "input_text", "output_text")
_TEXT_KEYS = ("text", "value", "content")
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
# Letters of no width or ink that Unicode does not count among the format characters.
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U0001d159"


def as_truth(value: Any) -> Any:
    """`value`, or true or false where it is a text that says so: a table of text cannot hold them otherwise."""
    return _TRUTH.get(value.strip().lower(), value) if isinstance(value, str) else value


class Where:
    """A row of a file.

    Args:
        path: the file.
        number: the row's number in it, from 1.
        tags: what the file calls the parts of a turn (`DataSource.tags`).

    Attributes:
        unread: keys within the row's values that were given and not read, such as "messages[].timestamp".
    """

    def __init__(self, path: Path | str, number: int, tags: Mapping[str, str] | None = None) -> None:
        self.path, self.number, self.tags = path, number, dict(tags or {})
        self.unread: set[str] = set()

    @property
    def name(self) -> str:
        """The file's name without its folders."""
        return self.path.name if isinstance(self.path, Path) else Path(self.path).name

    def error(self, what: str, key: str = "", fix: str = "") -> InputError:
        """An error at this row's key, to be raised.

        Args:
            what: is wrong with the value.
            key: of the row; empty for the row as a whole.
            fix: what to do about it.
        """
        return InputError(what, where=place(self.path, self.number, key), fix=fix)

    def need(self, row: dict[str, Any], key: str, within: str = "") -> Any:
        """Value at `key`, which must be there.

        Args:
            row: one row, parsed.
            key: that must be in it.
            within: key that holds `row`, for the error; empty where it is the row itself.
        """
        if key not in row:
            keys = names_of(row)
            raise InputError(
                f"key '{key}' is missing; keys are: {keys}",
                where=place(self.path, self.number, within),
                fix=f"Add '{key}' to the row, or set the file's format in data.train",
            )
        return row[key]

    def text(self, row: dict[str, Any], key: str, within: str = "", default: str | None = None) -> str:
        """Text at `key`; a list of {"type": "text"} parts is joined, anything else refused.

        Args:
            row: one row, parsed.
            key: whose value is wanted.
            within: key that holds `row`, for the error; empty where it is the row itself.
            default: returned for a missing or null value; None: the key must be there.
        """
        label = f"{within}.{key}" if within else key
        if default is not None and row.get(key) is None:
            return default
        value = self.need(row, key, within)
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            return "".join(self._part(part, f"{label}[{i}]") for i, part in enumerate(value))
        shown = "" if value is None or isinstance(value, bool) else f": {short(value)}"
        raise self.error(f"expected a string, got {kind(value)}{shown}", label, _as_text(value))

    def _part(self, part: Any, label: str) -> str:
        wanted = '{"type": "text", "text": "..."}'
        if not isinstance(part, dict):
            fix = f"Write a string, or parts such as {wanted}; a file stored by column must be written as rows"
            raise self.error(f"a content part must be an object, not {kind(part)}: {short(part)}", label, fix)
        type_ = part.get("type")
        if type_ is not None and type_ not in _TEXT_PARTS:
            what = f"content of type {short(type_)} is not supported"
            raise self.error(what, label, "Remove the part or the row: only text is trained on")
        texts = [part[key] for key in _TEXT_KEYS if isinstance(part.get(key), str)]
        if type_ is None or len(texts) != 1:
            has = f"has {names_of(part)}" if len(texts) != 1 else "has no type"
            raise self.error(f"the part {has}: {short(part)}", label, f"Write it as {wanted}")
        return cast(str, texts[0])

    def json_text(self, value: Any, label: str) -> Any:
        """`value`, or what it is as JSON where it is a text that holds a list or an object.

        CSV and ShareGPT files write lists this way.

        Raises:
            InputError: the text begins like JSON and is none.
        """
        if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise self.error(f"invalid JSON: {short(value)}", label, "Fix the brackets and quotes") from error


def _as_text(value: Any) -> str:
    """What to do about a value that should be a text."""
    if value is None:
        return "Add the text, or remove the row"
    if isinstance(value, dict):
        return "Write the string itself; an object meant as text must be JSON inside a string"
    return "Put it in double quotes"


def names_of(row: Collection[Any]) -> str:
    """The keys of a row for a sentence: the first twenty, and how many more there are."""
    keys = [str(key)[:_SHOWN_KEY] for key in islice(row, _SHOWN_KEYS + 1)]
    if len(keys) <= _SHOWN_KEYS:
        return ", ".join(keys) or "none"
    return f"{', '.join(keys[:_SHOWN_KEYS])} and {len(row) - _SHOWN_KEYS:,} more"


def is_given(value: Any) -> bool:
    """Whether a key holds anything; null, "", [] and {} are as good as no key."""
    return value not in (None, [], "", {})


def emptiness(text: str) -> str:
    """Say why a text shows nothing: "is empty", or which invisible characters it holds; "" for a text to read."""
    if not text.strip():
        return "is empty"
    if any(not _is_invisible(letter) for letter in text):
        return ""
    found = dict.fromkeys(letter for letter in text if not letter.isspace())
    named = ", ".join(f"U+{ord(letter):04X}" for letter in list(found)[:4])
    return f"has only invisible characters ({named}{', …' if len(found) > 4 else ''}), so it is empty"


def _is_invisible(letter: str) -> bool:
    """Whether a character is a blank, a control or format character, a variation selector or a filler."""
    if letter.isspace() or letter in _FILLERS:
        return True
    if "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef":
        return True
    return unicodedata.category(letter) in ("Cc", "Cf", "Zs", "Zl", "Zp")


def kind(value: Any) -> str:
    """What a JSON value is, for a sentence."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
    return names.get(type(value), "a number")


def short(value: Any) -> str:
    """A value as it is shown in a sentence: at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

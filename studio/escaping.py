"""Text of others on its way to a place that reads more into it than letters: a terminal, Markdown, a spreadsheet."""

from __future__ import annotations

import json
import re
import unicodedata

# Control characters, with which a text moves the cursor, renames the window or hides itself; and those that turn the
# direction of writing. Line breaks and tabs stay.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What Markdown reads as markup within a line. HTML and entities are in it; within a word an underscore is one.
_MARKUP = re.compile(r"[\\`*\[\]<>|~]|(?<![^\W_])_|_(?![^\W_])")
_FORMULA = ("=", "+", "-", "@")


def for_terminal(text: str) -> str:
    """The text with control characters written out, such as \\x1b."""
    return _CONTROL.sub(_written, text)


def json_for_terminal(text: str) -> str:
    """JSON with those control characters written out that JSON itself leaves as they are."""
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def quoted(text: str) -> str:
    """The text in quotes on one line, which YAML, JSON and Python read as this text and no more."""
    return json_for_terminal(json.dumps(text, ensure_ascii=False))


def for_markdown(text: object) -> str:
    """The text as one line of Markdown that shows it as it is; other words come before it in its line."""
    escaped = _MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), str(text).replace("&", "&amp;"))
    return " ".join(for_terminal(" ".join(escaped.split())).split())


def for_spreadsheet(cell: str) -> str:
    """The text with an apostrophe before it where a spreadsheet would take it for a formula.

    Spreadsheets read full-width signs (U+FF1D) and others of the same compatibility form as the plain ones, and pass
    over blanks and what cannot be seen before them.
    """
    plain = unicodedata.normalize("NFKC", cell)
    seen = plain.lstrip().lstrip("".join(sign for sign in plain if unicodedata.category(sign) in _UNSEEN)).lstrip()
    return f"'{cell}" if cell[:1] in ("\t", "\r", "\n") or seen.startswith(_FORMULA) else cell


_ENTITIES = {"<": "&lt;", ">": "&gt;"}
_UNSEEN = ("Cc", "Cf", "Zs", "Zl", "Zp", "Mn")


def _written(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"

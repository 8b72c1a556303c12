"""What to do about JSON that cannot be read: the mend of the true cause, told from what stands at the error.

Only sentences are made here. Where no cause is plain, what JSON wants is said.
"""

from __future__ import annotations

import json
import re
import unicodedata

# A Python dict that was printed, not written as JSON.
_PYTHON_WORD = re.compile(r"(None|True|False)\b")
_NO_VALUE = re.compile(r"(undefined|nil|NULL|Null|nan|inf)\b")
_CURLY_QUOTES = "\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"
_PYTHON = "this is Python, not JSON; `json.dumps(row, ensure_ascii=False)` turns it into JSON"
_CUT = (
    "Close its quotes and brackets; if the file is still being written, wait until it is complete; if it is "
    "truncated, copy or download it again"
)


def correct_row(in_list: bool) -> str:
    """What JSON wants of a row where nothing more is known."""
    if in_list:
        return "Fix the row; the list holds JSON objects separated by commas, with strings in double quotes"
    return "Fix the row; each line is one JSON object, with strings in double quotes"


def _unseen(letter: str) -> str:
    """How a character that nobody sees is called; "" for one to be seen, and for line ends."""
    category = unicodedata.category(letter)
    return f"U+{ord(letter):04X}" if category in ("Cc", "Cf", "Zs", "Zl", "Zp") else ""


def _behind(rest: str) -> str:
    """What to do about text behind a whole value."""
    tail = rest.rstrip()
    if tail == ",":
        return "Remove the comma after each object, or put [ before the first and ] after the last"
    if tail[:1] in ("{", "["):
        return "Put each object on its own line"
    return f"Remove {tail[:20]!r} after the object"


def json_mend(error: json.JSONDecodeError, text: str, in_list: bool, ended: bool, first: bool) -> str:
    """Return what to do.

    Args:
        error: of the decoder.
        text: what it was given.
        in_list: the rows stand in a list, so an object may take several lines.
        ended: the file ends with `text`, without a line's end.
        first: it is the file's first row.
    """
    # Blanks of JSON alone: others are what is wrong.
    rest = text[error.pos :].lstrip(" \t\r\n") if error.pos < len(text) else ""
    before = text[: error.pos].rstrip()
    if rest and "control character" not in error.msg and (unseen := _unseen(rest[0])):
        return f"Remove the character {unseen} there; it is invisible"
    # Python 3.13 names the comma, earlier ones the bracket after it.
    if (before.endswith(",") and rest[:1] in ("}", "]")) or "trailing comma" in error.msg:
        return "Remove the comma before the closing bracket"
    if rest.startswith("'"):
        return f"Use double quotes instead of single quotes: {_PYTHON}"
    if _PYTHON_WORD.match(rest):
        return f"Write null, true and false: {_PYTHON}"
    if word := _NO_VALUE.match(rest):
        return f"Write null or a value in place of {word[1]}"
    if rest.startswith(("//", "/*", "#")):
        return "Remove the comment; JSON has none"
    if rest.startswith("```"):
        return "Remove the ``` lines, which are Markdown, not JSON"
    if rest[:1] and rest[:1] in _CURLY_QUOTES:
        return f'Write straight quotes (") instead of {rest[0]} and similar ones'
    if rest.startswith('\\"'):
        return "Remove the backslash before each quote: the object was written as a string, not as an object"
    if error.msg == "Extra data" and before.endswith(("}", "]")):
        return _behind(rest)
    at_end = not rest or error.msg.startswith("Unterminated")
    if at_end and (in_list or ended):
        return _CUT
    if error.msg.startswith("Unterminated"):
        return "Close the quotes of the string; a line break inside a string is written \\n"
    if error.msg.startswith("Invalid control character"):
        if (letter := text[error.pos]) not in "\t\r\n":
            return f"Remove the control character, or write it as \\u{ord(letter):04x}"
        return "Write a line break inside a string as \\n, a tab as \\t"
    if error.msg.startswith("Invalid \\escape"):
        return "Write a backslash as two: \\\\"
    if not in_list and not rest and text.lstrip()[:1] == "{":
        return (
            "Close the object on the same line: a JSONL file has one complete object per line (`jq -c . FILE > "
            "rows.jsonl` converts objects that span several lines)"
        )
    if error.msg.startswith("text after the end of the list"):
        return "Put all rows into one list, or write one object per line without brackets around them"
    if first and text.lstrip()[:1] not in ("{", "["):
        rule = correct_row(in_list)
        return (
            "If the file is a table or plain text, give it a name that ends in .csv, .tsv or .txt; otherwise "
            f"{rule[:1].lower()}{rule[1:]}"
        )
    return correct_row(in_list)

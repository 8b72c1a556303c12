"""What to do about JSON that cannot be read: the mend of the true cause, told from what stands at the error.

Only sentences are made here. Where no cause is plain, what JSON wants is said.
"""

from __future__ import annotations

import json
import re

# A Python dict that was printed, not written as JSON.
_PYTHON_WORD = re.compile(r"(None|True|False)\b")
_PYTHON = "this is Python, not JSON, and `json.dumps(row, ensure_ascii=False)` writes JSON of it"
_CUT = (
    "Close its quotes and brackets; if the file is cut off or still being written, wait until it is whole, or copy or "
    "download it again"
)


def correct_row(in_list: bool) -> str:
    """What JSON wants of a row where nothing more is known."""
    if in_list:
        return "Correct the row; rows of the list are JSON objects with commas between them, strings in double quotes"
    return "Correct the row; each line holds one JSON object, strings in double quotes"


def json_mend(error: json.JSONDecodeError, text: str, in_list: bool, ended: bool, first: bool) -> str:
    """Return what to do.

    Args:
        error: of the decoder.
        text: what it was given.
        in_list: the rows stand in a list, so an object may take several lines.
        ended: the file ends with `text`, without a line's end.
        first: it is the file's first row.
    """
    rest = text[error.pos :].lstrip() if error.pos < len(text) else ""
    before = text[: error.pos].rstrip()
    # Python 3.13 names the comma, earlier ones the bracket after it.
    if (before.endswith(",") and rest[:1] in ("}", "]")) or "trailing comma" in error.msg:
        return "Remove the comma before the closing bracket"
    if rest.startswith("'"):
        return f"Use double quotes instead of single ones: {_PYTHON}"
    if _PYTHON_WORD.match(rest):
        return f"Write null, true and false: {_PYTHON}"
    if rest.startswith(("//", "/*", "#")):
        return "Remove the comment; JSON has none"
    if error.msg == "Extra data":
        if rest.rstrip() == ",":
            return "Remove the comma behind each object, or put [ before the first and ] behind the last"
        return "Put each object on a line of its own"
    at_end = not rest or error.msg.startswith("Unterminated")
    if at_end and (in_list or ended):
        return _CUT
    if error.msg.startswith("Unterminated"):
        return "Close the quotes of the text; a line break within a text is written \\n"
    if error.msg.startswith("Invalid control character"):
        return "Write a line break within a text as \\n, a tab as \\t"
    if error.msg.startswith("Invalid \\escape"):
        return "Write a backslash as two: \\\\"
    if not in_list and not rest and text.lstrip()[:1] == "{":
        return (
            "Close the object on the same line: a JSONL file has one whole object in each line "
            "(`jq -c . FILE > rows.jsonl` makes one of objects over several lines)"
        )
    if first and not before and text.lstrip()[:1] not in ("{", "["):
        rule = correct_row(in_list)
        return (
            "If the file is a table or plain text, end its name in .csv, .tsv or .txt; else "
            f"{rule[:1].lower()}{rule[1:]}"
        )
    return correct_row(in_list)

"""What may be wrong with a row's texts whatever the model is: broken characters, an answer that repeats the question.

Each check takes an example and says yes or no; nothing is changed. `profile` counts them, `keep` leaves rows out.
"""

from __future__ import annotations

import re

from studio.data.formats.answers import Example
from studio.data.masks.control import ControlTokenError
from studio.data.prepare.duplicates import spoken
from studio.data.quality.secrets import find_secrets
from studio.errors import InputError

# Control characters but tab, line feed and carriage return; U+FFFD stands where a byte could not be read.
_BROKEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ufeff]")
# The first byte of a letter in UTF-8 as Windows-1252 or Latin-1 shows it, and what follows it there.
_RUN = re.compile("[\u00c2-\u00c5\u00ce-\u00d1\u00e2\u00f0][\u0080-\u203a\u20ac\u2122]{1,3}")
# A capital before a closing mark, as in «CAFÑ», is a word's end.
_CLOSING = "\u00bb\u201d\u2019\u2013\u2014\u2026"


def check_of(error: InputError) -> str:
    """Return the check that a row fails which cannot be used: empty_answer, control_token, or else unusable.

    An empty answer is known by the sentences of `formats` and `preference`.
    """
    if isinstance(error, ControlTokenError):
        return "control_token"
    empty = error.what.endswith(" is empty") and error.what != "the list is empty"
    return "empty_answer" if empty else "unusable"


def has_broken_characters(text: str) -> bool:
    """Whether a text has control characters, U+FFFD, or UTF-8 that was read in another encoding ('Ã©' for 'é')."""
    if _BROKEN.search(text):
        return True
    return not text.isascii() and any(_was_utf8(run) for run in _RUN.findall(text))


def _was_utf8(run: str) -> bool:
    for size in (2, 3, 4):
        if size == 2 and run[1] in _CLOSING:
            continue
        for encoding in ("cp1252", "latin-1"):
            try:
                if len(run[:size].encode(encoding).decode("utf-8")) == 1:
                    return True
            except (UnicodeEncodeError, UnicodeDecodeError):
                continue
    return False


def answer_is_prompt(example: Example) -> bool:
    """Whether an answer says again what was asked."""
    if example.prompt is not None and example.completion is not None:
        return _same(example.prompt, example.completion)
    before = ""
    for message in example.messages or []:
        content = str(message.get("content") or "")
        if message["role"] == "assistant" and before and _same(before, content):
            return True
        before = content if message["role"] == "user" else ""
    return False


def _same(one: str, other: str) -> bool:
    left, right = one.split(), other.split()
    return bool(left) and left == right


def checks_of(example: Example) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the names of what was found in a row's texts, and its secrets as (kind, masked form)."""
    found = ["answer_is_prompt"] if answer_is_prompt(example) else []
    texts = [text for _, text in spoken(example)]
    if any(map(has_broken_characters, texts)):
        found.append("broken_characters")
    secrets = [one for text in texts for one in find_secrets(text)]
    if secrets:
        found.append("secret")
    return found, secrets

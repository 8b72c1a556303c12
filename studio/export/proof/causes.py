"""Why llama.cpp cuts a text into other tokens than the tokenizer that the run was trained with.

Found by experiment, not from a list of models: the text is shortened as long as the two still differ, and what is
left is tried: does it agree once it is normalised, does it hold a text that only one side takes for a token? So each
cause comes with the shortest example, and a text with several causes gives several. Pure; both sides are functions.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

Read = Callable[[str], list[int]]
LONGEST_EXAMPLE = 40
MOST_CAUSES = 4
# Parts of a normalizer that only spell blanks, which llama.cpp does too.
_SPELLING = ("Prepend", "Replace")
_FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@dataclass(frozen=True)
class Cause:
    """One way in which the tokens differ.

    Attributes:
        kind: normalization, literal, split token, marks, blanks, unknown character, splitting, rendering, chat format.
        what: the cause as a sentence without its full stop.
        example: the shortest text that shows it, as a Python literal in ASCII where it could not be read otherwise.
        fix: what the person can do about it.
    """

    kind: str
    what: str
    example: str
    fix: str

    def sentence(self) -> str:
        """All of it."""
        return f"{self.what}, for example {self.example}. {self.fix}"


class Trained:
    """The trained side: a tokenizer in one JSON file, as transformers loaded it."""

    def __init__(self, path: str) -> None:
        self._tokenizer = Tokenizer.from_file(path)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        state = json.loads(self._tokenizer.to_str())
        self.added = {str(token["content"]): token for token in state["added_tokens"]}
        self.changing = [part for part in _parts(state["normalizer"]) if part["type"] not in _SPELLING]
        self.unknown = self._tokenizer.token_to_id(str(state["model"].get("unk_token") or ""))
        self._normalizer = _only(self.changing)
        alternatives = "|".join(re.escape(text) for text in sorted(self.added, key=len, reverse=True))
        self._cut = re.compile(f"({alternatives})") if alternatives else None

    def ids(self, text: str) -> list[int]:
        """Token ids, with no special token but those that stand in the text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def normalized(self, text: str) -> str:
        """The text as this tokenizer changes it before it is cut; added tokens in it stay."""
        if self._normalizer is None:
            return text
        pieces = self._cut.split(text) if self._cut else [text]
        return "".join(part if part in self.added else self._normalizer.normalize_str(part) for part in pieces if part)


def causes(text: str, trained: Trained, read: Read, whole: Iterable[str]) -> list[Cause]:
    """Name why `read(text)` is not `trained.ids(text)`; nothing where it is.

    Args:
        text: a rendered prompt.
        trained: the tokenizer of the training.
        read: llama.cpp's token ids of a text.
        whole: the texts that llama.cpp takes for a token wherever they stand.
    """
    only_there = sorted((one for one in whole if one and one not in trained.added), key=len, reverse=True)
    missing = sorted(set(trained.added) - set(whole), key=len, reverse=True)
    found: list[Cause] = []

    def differs(part: str) -> bool:
        return read(part) != trained.ids(part)

    for _ in range(MOST_CAUSES):
        if not differs(text):
            break
        # What a text begins with decides about a blank before it, so a token at the beginning stays where it is.
        head = max((token for token in trained.added if text.startswith(token)), key=len, default="")
        part = shortest(text[len(head) :], differs, head)
        example = part if differs(part) else head + part
        normal = read(trained.normalized(head + part)) == trained.ids(head + part)
        cause, text = _named(example, text, trained, normal, only_there, missing)
        if cause.what not in [one.what for one in found]:
            found.append(cause)
    return found


def shortest(text: str, differs: Callable[[str], bool], head: str = "") -> str:
    """Leave out what can be left out while `differs(head + text)` stays true (delta debugging, by halves).

    Args:
        text: for which `differs` holds.
        differs: called many times, so it should be quick.
        head: kept whole, put before every candidate and not part of the result.
    """
    size = len(text) // 2
    while size:
        start = 0
        while start < len(text):
            shorter = text[:start] + text[start + size :]
            if shorter and differs(head + shorter):
                text = shorter
            else:
                start += size
        size //= 2
    return text


def _named(
    example: str, text: str, trained: Trained, mended: bool, only_there: list[str], missing: list[str]
) -> tuple[Cause, str]:
    """The cause of one shortest example, and the text without what it concerns.

    `mended`: llama.cpp cuts it as the training did once the tokenizer has normalised it.
    """
    normal = trained.normalized(example)
    shown = shown_text(example)
    if mended and normal != example:
        form = next((part["type"] for part in trained.changing if part["type"] in _FORMS), "")
        named = form or " and ".join(part["type"] for part in trained.changing)
        done = f"to {form}" if form else "in the same way"
        what = f"the tokenizer normalizes text ({named}) before splitting it, but llama.cpp does not"
        how = f" (in Python: unicodedata.normalize('{form}', text))" if form else ""
        fix = f"Normalize prompts {done}, and the data before training{how}"
        return Cause("normalization", what, f"{shown}, which becomes {shown_text(normal)}", fix), trained.normalized(
            text
        )
    if literal := next((one for one in only_there if one in example), ""):
        what = (
            f"llama.cpp takes the text {shown_text(literal)} for a special token, but the tokenizer splits it as text"
        )
        fix = f"Avoid {shown_text(literal)} in prompts and data, or put a space in it"
        return Cause("literal", what, shown, fix), text.replace(literal, " ")
    if token := next((one for one in missing if one in example), ""):
        what = f"the token {shown_text(token)} is split in llama.cpp"
        fix = "The base model's tokenizer files are not what llama.cpp expects: download the base model again"
        return Cause("split token", what, shown, fix), text.replace(token, " ")
    if any(_is_mark(char) for char in example):
        what = "letters with combining marks (Hindi, Tamil, Thai, vocalized Arabic and similar) are split differently"
        fix = "Use the model in transformers for such scripts; your own rows in them would fail the export"
        return Cause("marks", what, shown, fix), "".join(char for char in text if not _is_mark(char))
    rest = text.replace(example, " " if example.strip() else "x")
    if rest == text:  # the example is scattered over the text; nothing else can be told apart
        rest = ""
    if any(token in example for token in trained.added) and any(map(str.isspace, example)):
        what = "whitespace next to a token of the template is kept by one and dropped by the other"
        fix = "Strip whitespace at the beginning and end of messages"
        return Cause("blanks", what, shown, fix), rest
    if trained.unknown is not None and trained.unknown in trained.ids(example):
        what = "a character missing from the vocabulary is split differently"
        return Cause("unknown character", what, shown, f"Avoid {shown} in prompts and data"), rest
    blank = not example.strip() or any(map(str.isspace, example))
    what = "whitespace is split differently" if blank else "llama.cpp has a different rule for splitting text"
    return Cause("splitting", what, shown, f"Avoid {shown} in prompts and data, or use the model in transformers"), rest


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


def shown_text(text: str) -> str:
    """A text as a person can read and copy it: in ASCII escapes where marks, blanks or controls are in it."""
    text = text if len(text) <= LONGEST_EXAMPLE else text[:LONGEST_EXAMPLE] + "…"
    plain = all(char.isprintable() and not unicodedata.combining(char) for char in text)
    same = unicodedata.normalize("NFKC", text) == text
    return repr(text) if plain and same else ascii(text)


def _parts(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if normalizer is None:
        return []
    if normalizer["type"] == "Sequence":
        return [part for one in normalizer["normalizers"] for part in _parts(one)]
    return [normalizer]


def _only(parts: list[dict[str, Any]]) -> Any:
    """A normalizer of these parts; None for none."""
    if not parts:
        return None
    state: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "pre_tokenizer": None,
        "post_processor": None, "decoder": None, "normalizer": {"type": "Sequence", "normalizers": parts},
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }  # fmt: skip
    return Tokenizer.from_str(json.dumps(state)).normalizer

"""Rows that stand in the data more than once, or nearly: found as they stream by, and left out if asked.

Equal is: the same roles and texts but for blanks. Near is: at least four fifths of the word triples in common,
estimated by MinHash (Broder 1997) over 128 hashes, so by about 0.04 too much or too little; a pair's exact share is
worked out by `similarity`. Each row is compared with the first of its kind only, so the work grows with the rows.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from studio.data.formats.answers import Example

if TYPE_CHECKING:
    from studio.data.sources.parsing import Parsed

Deduplicate = Literal["none", "exact", "near"]
THRESHOLD = 0.8
# About 1 GB of memory; what is shown says it if there are more.
NEAR_ROWS = 1_000_000
_HASHES = 128
_WORDS = 3
# A row of this share in common is found in 9 of 10 cases at the least; the rest follows from the hashes.
_RECALL = 0.9
# Scripts without blanks between words: each character counts as one.
_WORD = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|\\w+")
_MARK = "\x1f"


@dataclass(frozen=True)
class Twin:
    """The earlier row that a row repeats.

    Attributes:
        first: number of the earlier row, in the order in which rows were added, from 0.
        exact: whether they are equal.
        similarity: estimated share of word triples in common; 1 if they are equal.
    """

    first: int
    exact: bool
    similarity: float


def spoken(example: Example) -> Iterator[tuple[str, str]]:
    """Yield (role, text) of everything that a row says; plain texts have the roles prompt, completion and text."""
    for role, text in (("text", example.text), ("prompt", example.prompt), ("completion", example.completion)):
        if text is not None:
            yield role, text
    for message in example.messages or []:
        yield message["role"], str(message.get("content") or "")
    if isinstance(example.rejected, str):
        yield "rejected", example.rejected
    for message in (example.rejected or [])[example.trained_from :] if isinstance(example.rejected, list) else []:
        yield "rejected", str(message.get("content") or "")
    if example.answer is not None:
        yield "answer", example.answer


def fingerprint(example: Example) -> bytes:
    """Return 16 bytes that are equal for rows that differ in blanks only."""
    parts = [f"{role}{_MARK}{' '.join(text.split())}" for role, text in spoken(example)]
    beside = [_beside_content(message) for message in example.messages or []]
    extra = [repr(example.label), repr(example.tools), repr(beside)]
    text = unicodedata.normalize("NFC", _MARK.join(parts + extra))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def shingles(example: Example) -> list[str]:
    """Return the triples of words of a row, in small letters; the system text, which many rows share, is left out."""
    words = [word for role, text in spoken(example) if role != "system" for word in _WORD.findall(text.casefold())]
    if len(words) <= _WORDS:
        return [" ".join(words)] if words else []
    return [" ".join(words[at : at + _WORDS]) for at in range(len(words) - _WORDS + 1)]


def similarity(one: Example, other: Example) -> float:
    """Return the exact share of word triples in common (Jaccard), 0 to 1."""
    left, right = set(shingles(one)), set(shingles(other))
    return len(left & right) / len(left | right) if left | right else 1.0


class Doubles:
    """The rows seen so far, as hashes: about 0.2 kB for each, and 1 kB more where near ones are looked for.

    Args:
        near: look for similar rows too.
        threshold: share of word triples in common from which rows count as similar.
        most: look for similar ones among so many rows only, which bounds the memory; None for all.
    """

    def __init__(self, near: bool = True, threshold: float = THRESHOLD, most: int | None = None) -> None:
        self.near, self.threshold, self.most = near, threshold, most
        self.count = 0
        self._exact: dict[bytes, int] = {}
        self._sketches: dict[int, Any] = {}
        self._index: Any = None

    def add(self, example: Example) -> Twin | None:
        """Take the next row and return the earlier one that it repeats, if there is one."""
        number, self.count = self.count, self.count + 1
        first = self._exact.setdefault(fingerprint(example), number)
        if first != number:
            return Twin(first, True, 1.0)
        if not self.near or (self.most is not None and number >= self.most):
            return None
        return self._similar(number, shingles(example))

    def _similar(self, number: int, triples: list[str]) -> Twin | None:
        if not triples:
            return None
        from rensa import RMinHash, RMinHashLSH

        if self._index is None:
            self._index = RMinHashLSH(threshold=self.threshold, num_perm=_HASHES, num_bands=_bands(self.threshold))
        sketch = RMinHash(num_perm=_HASHES, seed=1)
        sketch.update(triples)
        found = [(self._sketches[key].jaccard(sketch), -key) for key in self._index.query(sketch)]
        if found:
            best, first = max(found)
            if best >= self.threshold:
                return Twin(-first, False, round(best, 3))
        self._index.insert(number, sketch)
        self._sketches[number] = sketch
        return None


def deduplicate(parsed: Sequence[Parsed], how: Deduplicate, on_rows: Callable[[int], None]) -> None:
    """Leave out of `parsed` the rows that repeat an earlier one, counted in its `duplicates`.

    The first is kept. A file for validation comes first, so it stays whole but for doubles within it, and rows of
    the training files that stand in it are left out.

    Args:
        parsed: the sources of a run; their examples are replaced by those that stay.
        how: none, exact or near.
        on_rows: told how many rows were looked at, every few hundred.
    """
    if how == "none":
        return
    seen = Doubles(near=how == "near")

    def is_new(example: Example) -> bool:
        if seen.count % 500 == 0:
            on_rows(seen.count)
        return seen.add(example) is None

    for one in sorted(parsed, key=lambda one: one.source.part == "train"):
        before = len(one.examples)
        one.examples = one.examples.kept(is_new)
        one.source.duplicates = before - len(one.examples)


def _beside_content(message: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted((key, value) for key, value in message.items() if key not in ("role", "content"))


def _bands(threshold: float) -> int:
    """The fewest bands (so the fewest rows compared in vain) that find rows at the threshold."""
    for bands in (8, 16, 32, 64):
        if 1 - (1 - threshold ** (_HASHES / bands)) ** bands >= _RECALL:
            return bands
    return _HASHES

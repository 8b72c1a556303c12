"""Splits of a set as `datasets` names them: `train`, `train[:1000]`, `train[:10%]`, `train+test`.

The studio takes one split, whole or so many of its rows; this says what becomes of each of these.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from studio.interop.report import Status

_NAME = re.compile(r"[\w.-]+")
_SLICE = re.compile(r"([\w.-]+)\[(?:(\d+)(%?))?:(?:(\d+)(%?))?\](?:\((?:closest|pct1_dropremainder)\))?")
_OTHER = "one split is taken, from its first row on; slices and sums of splits are not"


@dataclass(frozen=True)
class Split:
    """What a split becomes.

    Attributes:
        name: of the split, without its slice.
        status: mapped, approximated or refused.
        why: how it differs; "" where it does not.
        rows: how many are taken; None for all.
        share: of the split that the text names, where it is a share; else None.
    """

    name: str
    status: Status = "mapped"
    why: str = ""
    rows: int | None = None
    share: float | None = None

    def of_set(self) -> dict[str, Any]:
        """The keys of `data.train` that it gives."""
        return {"split": self.name} if self.rows is None else {"split": self.name, "rows": self.rows}


@dataclass(frozen=True)
class HeldOut:
    """What a split becomes of which the validation rows are.

    Attributes:
        validation: of `data.validation`: the set, a share of the training rows, or 0 for none.
        split: of `data.validation_split`; "" where it is not read.
        status: mapped, approximated or refused.
        why: how it differs; "" where it does not.
    """

    validation: str | float
    split: str = ""
    status: Status = "mapped"
    why: str = ""


def split_of(text: str) -> Split:
    """Read a split.

    Args:
        text: as `datasets` takes it.
    """
    text = text.strip()
    if _NAME.fullmatch(text):
        return Split(text)
    found = _SLICE.fullmatch(text)
    if found is None:
        return Split(re.split(r"[\[+]", text)[0] or "train", "refused", _OTHER)
    name, first, last = found[1], int(found[2] or 0), None if found[4] is None else int(found[4])
    in_percent = "%" in (found[3], found[5])
    if in_percent:
        if (last is not None and found[5] != "%") or (first and found[3] != "%"):
            return Split(name, "refused", _OTHER)
        share = ((100 if last is None else min(last, 100)) - first) / 100
        if share == 1:
            return Split(name)
        if share <= 0 or first:
            return Split(name, "refused", _OTHER, share=share if share > 0 else None)
        why = "the whole split; a share of it cannot be given, set rows to so many"
        return Split(name, "approximated", why, share=share)
    if not first and last is None:
        return Split(name)
    if first or not last:
        return Split(name, "refused", _OTHER)
    return Split(name, "approximated", "as many rows, drawn from the whole split", rows=last)


def held_out(text: str, path: str, train: Sequence[dict[str, Any]]) -> HeldOut:
    """Read the split of the validation rows, which is taken whole.

    Where its slice is of a split that is trained on, taking it whole would validate on what was learned.

    Args:
        text: as `datasets` takes it.
        path: of the set that it is of.
        train: of `data.train`.
    """
    split = split_of(text)
    if split.status == "mapped":
        return HeldOut(path, split.name)
    if any(one.get("path") == path and one.get("split", "train") == split.name for one in train):
        if split.share is not None:
            why = "as large a share of the training rows, drawn from all of them"
            return HeldOut(round(split.share, 4), "", "approximated", why)
        why = "the whole split would be validated on, which is trained on here: set data.validation to a share of it"
        return HeldOut(0.0, "", "refused", why)
    return HeldOut(path, split.name, "approximated", "the whole split; a slice of validation rows cannot be given")

"""The rows that the exported model answers in another way than the trained one, side by side with what was expected.

What the trained model answers is known from an evaluation of the run on the same file; without one it is asked for a
few of the rows that were answered wrongly. Pure: entries of the report go in, rows come out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Rows that are shown of a file, and rows that the trained model is asked for where no evaluation knows its answers:
# generating them takes as long as a quarter of a hundred that are right.
SHOWN_ROWS, ASKED_ROWS = 8, 6


@dataclass(frozen=True)
class Known:
    """What the trained model answers to one row.

    Attributes:
        answer: its text.
        right: whether it is the expected one.
        prompt, expected: of the row; "" where only the export's own line has them.
    """

    answer: str
    right: bool
    prompt: str = ""
    expected: str = ""


def known_answers(evaluation: dict[str, Any] | None) -> dict[int, Known]:
    """The trained model's answers by row, out of an evaluation's report; {} without one."""
    rows = (evaluation or {}).get("rows") or []
    return {
        one["row"]: Known(str(one["after"]), bool(one["after_ok"]), str(one["prompt"]), str(one["expected"]))
        for one in rows
    }  # fmt: skip


def rows_to_ask(files: Sequence[dict[str, Any]]) -> list[int]:
    """Numbers of the rows that the trained model is asked for: the ones that most files got wrong, at most a few."""
    missed = Counter(one["row"] for file in files for one in (file.get("exact_match") or {}).get("wrong") or [])
    return sorted(row for row, _ in missed.most_common(ASKED_ROWS))


def differing_rows(match: dict[str, Any] | None, known: Mapping[int, Known], whole: bool) -> dict[str, Any] | None:
    """The rows of one file whose answers differ from the trained model's.

    Args:
        match: `exact_match` of the file's entry; None where no rows were answered.
        known: the trained model's answers by row.
        whole: whether `known` has all rows, so that what was lost and gained can be counted.

    Returns:
        {"lost" (rows that only the trained model gets right), "gained" (that only the exported one does), "rows":
        [{"row", "prompt", "expected", "trained", "exported"}], the lost ones first, at most `SHOWN_ROWS`}; the counts
        are None where not `whole`, and all is None where no rows were answered.
    """
    if match is None:
        return None
    missed = set(match.get("wrong_rows") or [one["row"] for one in match["wrong"]])
    lost: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for one in match["wrong"]:
        said = known.get(one["row"])
        if said is not None and said.answer.strip() != one["answer"].strip():
            row = {key: one[key] for key in ("row", "prompt", "expected")}
            (lost if said.right else others).append(row | {"trained": said.answer, "exported": one["answer"]})
    gained = [row for row, one in known.items() if whole and not one.right and row not in missed]
    others += [
        {
            "row": row, "prompt": known[row].prompt, "expected": known[row].expected, "trained": known[row].answer,
            "exported": known[row].expected,
        }
        for row in gained
    ]  # fmt: skip
    return {
        "lost": sum(known[row].right for row in missed if row in known) if whole else None,
        "gained": len(gained) if whole else None,
        "rows": [*lost, *others][:SHOWN_ROWS],
    }

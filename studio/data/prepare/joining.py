"""Documents joined for pretraining: one after the other, each with its end mark, cut where the limit is reached.

Nothing is left out and nothing is padded but the last sequence (as in GPT-2 and GPT-3, Brown et al. 2020, section 2.2).
A sequence may begin in the middle of a document, and its attention reaches over the marks between documents.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from studio.data.masks.overlay import add_run, cut_runs
from studio.data.prepare.compact import kept
from studio.data.prepare.units import Encoded


def join_documents(documents: Sequence[Any], limit: int) -> list[Any]:
    """Return sequences of `limit` tokens, the last one with what is left.

    Args:
        documents: `Encoded` rows, whole; each ends with its end mark.
        limit: `data.max_length`.

    Returns:
        The sequences; each is placed at the row in which it begins. A last sequence of one token, which has none
        before it that could predict it, is left out.
    """
    sequences: list[Encoded] = []
    ids: Any = array("i")
    runs: Any = array("i")
    row, path = 0, ""

    def close() -> None:
        nonlocal ids, runs
        sequences.append(Encoded(ids, runs, row, path))
        ids, runs = array("i"), array("i")

    for document in documents:
        whole, trained = kept(document, "input_ids"), kept(document, "labels")
        at = 0
        while at < len(whole):
            if not ids:
                row, path = document.row, document.path
            end = min(len(whole), at + limit - len(ids))
            inside = cut_runs(trained, at, end)
            for left, right in zip(inside[::2], inside[1::2], strict=True):
                add_run(runs, len(ids) + left, len(ids) + right)
            ids += whole[at:end]
            at = end
            if len(ids) == limit:
                close()
    if len(ids) > 1:
        close()
    return sequences


def joined_lengths(tokens: int, limit: int) -> list[int]:
    """Return the lengths of the sequences that so many tokens make."""
    rest = tokens % limit
    return [limit] * (tokens // limit) + ([rest] if rest > 1 else [])

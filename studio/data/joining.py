"""Documents joined for pretraining: one after the other, each with its end mark, cut where the limit is reached.

Nothing is left out and nothing is padded but the last sequence (as in GPT-2 and GPT-3, Brown et al. 2020, section 2.2).
A sequence may begin in the middle of a document, and its attention reaches over the marks between documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studio.config.method import MethodConfig
from studio.data.units import Encoded


def joins(method: MethodConfig) -> bool:
    """Whether the rows of a run are joined."""
    return method.name == "pretrain" and method.documents == "join"


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
    now: Encoded | None = None
    for document in documents:
        at = 0
        while at < len(document.input_ids):
            now = now or Encoded([], [], document.row, document.path)
            end = at + limit - len(now.input_ids)
            now.input_ids += document.input_ids[at:end]
            now.labels += document.labels[at:end]
            at = end
            if len(now.input_ids) == limit:
                sequences.append(now)
                now = None
    return [*sequences, *([now] if now is not None and now.length > 1 else [])]


def joined_lengths(tokens: int, limit: int) -> list[int]:
    """Return the lengths of the sequences that so many tokens make."""
    rest = tokens % limit
    return [limit] * (tokens // limit) + ([rest] if rest > 1 else [])

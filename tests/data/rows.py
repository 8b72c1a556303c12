"""Rows that several tests use."""

from __future__ import annotations

from typing import Any


def chat(question: str, answer: str) -> dict[str, Any]:
    """A row of one question and its answer."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}

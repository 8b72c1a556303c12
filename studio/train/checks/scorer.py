"""What a reward model must be: one score for a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studio.errors import InputError
from studio.models.inspect.headers import Tensor

_HEADS = ("score", "classifier")


def require_one_score(raw: dict[str, Any], tensors: Sequence[Tensor], where: str) -> None:
    """Refuse a whole reward model that gives several numbers, or none.

    Args:
        raw: its config.json.
        tensors: what its files hold.
        where: the option and its folder, for errors.

    Raises:
        InputError: it does not have exactly one label.
    """
    heads = [tensor.shape for tensor in tensors if tensor.name.rpartition(".weight")[0].rpartition(".")[2] in _HEADS]
    if not heads:
        raise InputError(
            "this reward model has no score head: its files lack score.weight", where=where,
            fix="Give a reward model that was saved completely",
        )  # fmt: skip
    names = raw.get("id2label")
    said = len(names) if isinstance(names, dict) else int(raw.get("num_labels") or 2)  # transformers' own default
    labels = next((count for count in (heads[0][0], said) if count != 1), 1)
    if labels != 1:
        raise InputError(
            f"this model has {labels} labels, but a reward model has one", where=where,
            fix="Train a reward model with method.name reward, or give one with a single label",
        )  # fmt: skip

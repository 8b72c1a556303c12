"""What an optimizer holds for each weight, in bytes, from the shapes of the trained matrices. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Numbers held for each weight, by `training.optimizer`. Adafactor's are the sides of a matrix.
_STATES = {
    "adamw_torch": 2, "adamw_torch_fused": 2, "adafactor": 0, "sgd": 0, "adagrad": 1, "rmsprop": 1, "adamw_8bit": 2,
    "paged_adamw_8bit": 2, "paged_adamw_32bit": 2, "lion_8bit": 1, "ademamix_8bit": 3,
}  # fmt: skip
# bitsandbytes: tensors below this size keep 32 bits; a block of so many 8-bit numbers has a float32 scale.
_SMALLEST, _BLOCK = 4096, 256
EIGHT_BIT = tuple(name for name in _STATES if name.endswith("8bit"))


@dataclass(frozen=True)
class Trained:
    """A matrix that is trained; a vector has one column. transformers keeps the states of an embedding in 32 bits."""

    rows: int
    columns: int = 1
    embedding: bool = False


def state_bytes(optimizer: str, trained: Iterable[Trained]) -> int:
    """Bytes of an optimizer's states."""
    return sum(_bytes(optimizer, one) for one in trained)


def _bytes(optimizer: str, one: Trained) -> int:
    size = one.rows * one.columns
    if optimizer == "adafactor":
        return 4 * (one.rows + one.columns if one.columns > 1 else size)
    if optimizer in EIGHT_BIT and size >= _SMALLEST and not one.embedding:
        return _STATES[optimizer] * (size + 4 * -(-size // _BLOCK))
    return 4 * _STATES[optimizer] * size

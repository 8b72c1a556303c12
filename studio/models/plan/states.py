"""What an optimizer keeps of the weights that are trained, matrix by matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from studio.models.inspect.adapted import Adapted, is_embedding
from studio.models.inspect.shape import ModelShape

# Numbers held for each weight, by `training.optimizer`. Adafactor's are the sides of a matrix.
_STATES = {
    "adamw_torch": 2, "adamw_torch_fused": 2, "adafactor": 0, "sgd": 0, "adagrad": 1, "rmsprop": 1, "adamw_8bit": 2,
    "paged_adamw_8bit": 2, "paged_adamw_32bit": 2, "lion_8bit": 1, "ademamix_8bit": 3,
}  # fmt: skip
# bitsandbytes: tensors below this size keep 32 bits; a block of so many 8-bit numbers has a float32 scale.
_SMALLEST, _BLOCK = 4096, 256
_EIGHT_BIT = tuple(name for name in _STATES if name.endswith("8bit"))


@dataclass(frozen=True)
class Trained:
    """A matrix that is trained; a vector has one column. transformers keeps the states of an embedding in 32 bits."""

    rows: int
    columns: int = 1
    embedding: bool = False


def trained(shape: ModelShape, adapter: Adapted | None, value: bool) -> Iterator[Trained]:
    """The matrices that the optimizer holds states for.

    Args:
        shape: of the model.
        adapter: what is trained beside the weights; None when every weight is trained.
        value: a value function is trained, too.
    """
    if adapter is None:
        yield Trained(shape.vocab, shape.hidden, embedding=True)
        if not shape.tied:
            yield Trained(shape.vocab, shape.hidden)
        for layer in shape.linears:
            yield Trained(layer.outputs, layer.inputs)
        matrices = shape.vocab * shape.hidden * (1 if shape.tied else 2)
        rest = max(0, shape.parameters - matrices - sum(one.inputs * one.outputs for one in shape.linears))
        yield Trained(rest // shape.hidden, shape.hidden)  # norms and biases; the experts of a mixture
        yield Trained(rest % shape.hidden + (shape.hidden if value else 0))
        return
    for _ in range(2 if value else 1):
        for layer, rank in adapter.layers:
            yield Trained(rank, layer.inputs)
            yield Trained(layer.outputs, rank)
            if adapter.dora:
                yield Trained(layer.outputs)
    for layer in adapter.whole:
        yield Trained(layer.outputs, layer.inputs, embedding=is_embedding(layer))


def state_bytes(optimizer: str, matrices: Iterable[Trained]) -> int:
    """What an optimizer holds for the matrices that are trained, in bytes."""
    return sum(_state_bytes(optimizer, one) for one in matrices)


def _state_bytes(optimizer: str, one: Trained) -> int:
    size = one.rows * one.columns
    if optimizer == "adafactor":
        return 4 * (one.rows + one.columns if one.columns > 1 else size)
    if optimizer in _EIGHT_BIT and size >= _SMALLEST and not one.embedding:
        return _STATES[optimizer] * (size + 4 * -(-size // _BLOCK))
    return 4 * _STATES[optimizer] * size

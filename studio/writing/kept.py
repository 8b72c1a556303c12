"""Keys and values of the tokens read so far, in memory that is taken once.

Transformers joins old and new ones into new memory for each token and each layer. Here a token's are written behind
those before it, and attention reads a view; rows that have ended leave, and rows of the same prompt share one reading.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer


class Room(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer.

    Args:
        most: tokens that there is room for.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most, self._length = most, 0
        self._memory: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write those of new tokens, each (B, H, T, D), and return those of all tokens.

        Args:
            key_states, value_states: of the new tokens.
            args, kwargs: not read.
        """
        given = (key_states, value_states)
        if not self._memory:
            self.take([one.new_empty(*one.shape[:2], self._most, one.shape[3]) for one in given], 0)
        begin = self._length
        for memory, new in zip(self._memory, given, strict=True):
            memory[:, :, begin : begin + new.shape[2]] = new
        self.take(self._memory, begin + key_states.shape[2])
        return self.keys, self.values

    def take(self, memory: list[torch.Tensor], length: int) -> None:
        """Use this memory, (B, H, most, D) for keys and for values, of which the first tokens are written."""
        self._memory, self._length, self.is_initialized = memory, length, True
        self.dtype, self.device = memory[0].dtype, memory[0].device
        self.keys, self.values = (one[:, :, :length] for one in memory)

    def choose(self, rows: torch.Tensor) -> None:
        """Keep these rows, (R,) in their order; one may be there several times."""
        self.take(self._rows(rows, self._most), self._length)

    def chosen(self, rows: torch.Tensor, more: int) -> Room:
        """These rows, (R,) in their order, with room for so many tokens more."""
        room = Room(self._length + more)
        room.take(self._rows(rows, self._length + more), self._length)
        return room

    def _rows(self, rows: torch.Tensor, most: int) -> list[torch.Tensor]:
        chosen = []
        for one in self._memory:
            made = one.new_empty(len(rows), one.shape[1], most, one.shape[3])
            made[:, :, : self._length] = one[:, :, : self._length].index_select(0, rows)
            chosen.append(made)
        return chosen

    @staticmethod
    def joined(parts: list[Room], targets: list[tuple[torch.Tensor, torch.Tensor]], length: int, most: int) -> Room:
        """Rows that were read apart, in one batch, all ending at the same token.

        Args:
            parts: what was read.
            targets: for each part, rows of the batch and the rows of the part that they are, each (R,).
            length: tokens of the batch; a shorter part has nothing before its own.
            most: tokens that there shall be room for.
        """
        count = sum(len(rows) for rows, _ in targets)
        made = []
        for which in range(2):
            first = parts[0]._memory[which]
            memory = first.new_empty(count, first.shape[1], most, first.shape[3])
            for part, (rows, own) in zip(parts, targets, strict=True):
                gap = length - part._length
                memory[rows, :, :gap] = 0
                memory[rows, :, gap:length] = part._memory[which][own, :, : part._length]
            made.append(memory)
        room = Room(most)
        room.take(made, length)
        return room


def rooms(layers: int, most: int) -> Cache:
    """What a model of so many layers keeps of at most so many tokens."""
    return Cache(layers=[Room(most) for _ in range(layers)])


def plain_layers(config: Any) -> int:
    """How many layers a model has, if each of them keeps keys and values of all tokens and nothing else; or 0.

    Windows, states (Mamba and others) and layers that share theirs need a cache of their own kind.
    """
    layers = DynamicCache(config=config).layers
    return len(layers) if layers and all(type(layer) is DynamicLayer for layer in layers) else 0

"""What a tuning says of itself: which weights change, and how the others are held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from studio.option import Options


@dataclass(frozen=True)
class Tuning:
    """Which of the model's numbers change.

    Attributes:
        name: its word in the config, and of the module in `studio.train.tuning` whose `prepare` readies a model for it.
        title: what the page calls it.
        sentence: what it is, as the help of `tuning.name` says it.
        options: its options, which `TuningConfig` inherits.
        adapter: an adapter is trained beside frozen weights; False where every weight changes.
        quantized: the frozen weights are held in few bits.
        unsloth: the engine of that name has it.
        shards: its weights can be divided over several devices (FSDP2).
    """

    name: str
    title: str
    sentence: str
    options: type[Options]
    adapter: bool = True
    quantized: bool = False
    unsloth: bool = False
    shards: bool = False

    def uses_dora(self, options: Any) -> bool:
        """Whether the adapter also learns the length of each row of the weights."""
        return False

    def dora_switch(self) -> tuple[str, str, str]:
        """The option that decides about `uses_dora`, and its values for on and off."""
        return "tuning.name", "dora", "lora"

    def weight_bits(self, options: Any) -> float:
        """Bits of a quantized weight with its share of the scales; 0 where weights are held whole."""
        return 0.0

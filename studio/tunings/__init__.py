"""Which of a model's numbers are trained: one file a tuning, which says all that the rest of the studio asks of it.

What needs torch, readying a model, is in `studio.train.tuning` and only named here. No module elsewhere knows a tuning
by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from studio.option import OfKinds, option, say_readers
from studio.tunings.dora import DORA, DoraOptions
from studio.tunings.full import FULL
from studio.tunings.lora import LORA, LoraOptions
from studio.tunings.qlora import QLORA, QloraOptions
from studio.tunings.tuning import Tuning

# The one that changes most comes first.
TUNINGS: dict[str, Tuning] = {one.name: one for one in (FULL, LORA, QLORA, DORA)}
if TYPE_CHECKING:
    TuningName = str
else:
    TuningName = Literal[tuple(TUNINGS)]


class _Named(OfKinds):
    name: TuningName = option(
        LORA.name, "; ".join(f"{one.name}: {one.sentence}" for one in TUNINGS.values()) + ".", title="Tuning",
        tier="basic",
    )  # fmt: skip

    @property
    def kind(self) -> Tuning:
        """What the tuning says of itself."""
        return TUNINGS[self.name]


# Pydantic lists the fields of the last class first.
class TuningConfig(QloraOptions, LoraOptions, DoraOptions, _Named):
    """Section `tuning`: the options of all tunings, so that what was set stays when another one is looked at."""

    @property
    def uses_dora(self) -> bool:
        """Whether the adapter also learns the length of each row of the weights."""
        return self.kind.uses_dora(self)

    @property
    def goes_on(self) -> bool:
        """Whether an existing adapter is trained further, instead of a new one."""
        return self.kind.adapter and bool(self.adapter) and not self.merges

    @property
    def merges(self) -> bool:
        """Whether an existing adapter is merged into the weights before."""
        return self.reads("merge_adapter") and self.merge_adapter


say_readers(TuningConfig, "tunings", {one.name: one.options for one in TUNINGS.values()})


def title_of(name: str) -> str:
    """What the page calls a tuning; the name itself where no tuning has it."""
    return TUNINGS[name].title if name in TUNINGS else name


def adapter_for(*, quantized: bool, dora: bool) -> str:
    """Name of the tuning that trains an adapter, for configs that say of what kind and beside which weights.

    Args:
        quantized: the frozen weights are held in few bits.
        dora: it learns the length of each row of the weights, too.
    """
    found = next(one for one in TUNINGS.values() if one.adapter and one.quantized == quantized)
    where, on, off = found.dora_switch()
    return found.name if where != "tuning.name" else on if dora else off


__all__ = ["FULL", "LORA", "QLORA", "TUNINGS", "Tuning", "TuningConfig", "adapter_for", "title_of"]

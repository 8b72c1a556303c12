"""What a model can be taught: one file a method, which says all that the rest of the studio asks of it.

A method's file holds its options, metrics, learning rates, cost, checks and traits, and names the module that makes its
trainer. No module elsewhere knows a method by name; nothing here imports torch, or a layer above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from studio.methods.dpo import DPO, DpoOptions
from studio.methods.grpo import GRPO, GrpoOptions
from studio.methods.kto import KTO, KtoOptions
from studio.methods.method import Asked, Method, MethodCost, Metric, Rate, RowKind, TrainOn
from studio.methods.orpo import ORPO, OrpoOptions
from studio.methods.ppo import PPO, PpoOptions
from studio.methods.pretrain import PRETRAIN, PretrainOptions
from studio.methods.reward import REWARD, RewardOptions
from studio.methods.sft import SFT, SftOptions
from studio.methods.simpo import SIMPO, SimpoOptions
from studio.option import OfKinds, option, say_readers

METHODS: dict[str, Method] = {one.name: one for one in (SFT, PRETRAIN, DPO, ORPO, SIMPO, KTO, REWARD, PPO, GRPO)}
if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]


class _Named(OfKinds):
    name: MethodName = option(
        SFT.name, "; ".join(f"{one.name}: {one.sentence}" for one in METHODS.values()) + ".", title="Method",
        tier="basic",
    )  # fmt: skip

    @property
    def kind(self) -> Method:
        """What the method says of itself."""
        return METHODS[self.name]


# Pydantic lists the fields of the last class first.
class MethodConfig(
    PpoOptions,
    GrpoOptions,
    RewardOptions,
    KtoOptions,
    SimpoOptions,
    OrpoOptions,
    DpoOptions,
    PretrainOptions,
    SftOptions,
    _Named,
):
    """Section `method`: the options of all methods, so that what was set stays when another one is looked at.

    The terms are those of TRL's configs unless said otherwise.
    """


say_readers(MethodConfig, "methods", {one.name: one.options for one in METHODS.values()})


__all__ = ["METHODS", "Asked", "Method", "MethodConfig", "MethodCost", "Metric", "Rate", "RowKind", "TrainOn"]

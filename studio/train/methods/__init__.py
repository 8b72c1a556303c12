"""What a model can be taught: one file per method, registered here by name. Nothing here imports torch."""

from studio.train.methods.dpo import DPO
from studio.train.methods.grpo import GRPO
from studio.train.methods.kto import KTO
from studio.train.methods.method import Method, Metric
from studio.train.methods.orpo import ORPO
from studio.train.methods.ppo import PPO
from studio.train.methods.pretrain import PRETRAIN
from studio.train.methods.reward import REWARD
from studio.train.methods.sft import SFT

METHODS: dict[str, Method] = {method.name: method for method in (SFT, PRETRAIN, DPO, ORPO, KTO, REWARD, PPO, GRPO)}

__all__ = ["METHODS", "Method", "Metric"]

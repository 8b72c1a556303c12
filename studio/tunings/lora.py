"""LoRA (Hu et al. 2021, arXiv:2106.09685): low-rank matrices beside frozen weights."""

from studio.tunings.adapter import AdapterOptions, LoraPlusOptions, WholeBaseOptions
from studio.tunings.tuning import Tuning


class LoraOptions(LoraPlusOptions, WholeBaseOptions, AdapterOptions):
    """What LoRA reads."""


LORA = Tuning(
    name="lora",
    title="LoRA",
    sentence="a small adapter on top of frozen weights",
    options=LoraOptions,
    unsloth=True,
    shards=True,
)

"""ms-swift: its command lines as a run."""

from __future__ import annotations

from studio.interop.ms_swift.reading import KEYS, TITLE, read, starts
from studio.interop.tool import Tool

TOOL = Tool(
    name="ms-swift",
    title=TITLE,
    keys=KEYS,
    starts=starts,
    read=read,
    own=frozenset({"tuner_type", "train_type", "rlhf_type", "split_dataset_ratio", "loss_scale", "lora_rank",
                   "target_modules", "quant_bits", "torch_dtype", "dataset"}),
)  # fmt: skip

__all__ = ["TOOL"]

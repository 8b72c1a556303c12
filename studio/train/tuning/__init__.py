"""Which weights change: one file per tuning, each with a function that prepares the model for it."""

from studio.train.tuning.full import prepare_full
from studio.train.tuning.lora import prepare_lora

PREPARE = {"full": prepare_full, "lora": prepare_lora}

__all__ = ["PREPARE"]

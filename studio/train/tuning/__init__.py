"""Which weights change: one file per tuning, each with a function that prepares the model for it."""

from studio.train.tuning.dora import prepare_dora
from studio.train.tuning.full import prepare_full
from studio.train.tuning.lora import prepare_lora
from studio.train.tuning.qlora import prepare_qlora

PREPARE = {"full": prepare_full, "lora": prepare_lora, "qlora": prepare_qlora, "dora": prepare_dora}

__all__ = ["PREPARE"]

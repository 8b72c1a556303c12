"""TRL: its command lines and YAML as a run."""

from __future__ import annotations

from studio.interop.tool import Tool
from studio.interop.trl.reading import KEYS, TITLE, kind_of, read

TOOL = Tool(
    name="trl",
    title=TITLE,
    keys=KEYS,
    starts=lambda command: bool(kind_of(command)),
    read=read,
    own=frozenset({"dataset_name", "use_peft", "dataset_train_split", "assistant_only_loss", "dataset_text_field",
                   "dataset_test_split", "dataset_config", "num_generations", "lora_r"}),
)  # fmt: skip

__all__ = ["TOOL"]

"""Axolotl: its YAML as a run, and a run as its YAML."""

from __future__ import annotations

from studio.interop.axolotl.reading import KEYS, TITLE, read
from studio.interop.axolotl.writing import write
from studio.interop.command import Command
from studio.interop.tool import Tool


def _starts(command: Command) -> bool:
    return command.program in ("axolotl", "axolotl.cli.train") or command.program.startswith("axolotl.")


TOOL = Tool(
    name="axolotl",
    title=TITLE,
    keys=KEYS,
    starts=_starts,
    read=read,
    write=write,
    own=frozenset({
        "base_model", "micro_batch_size", "sequence_len", "sample_packing", "datasets", "lora_target_linear",
        "val_set_size", "num_epochs", "wandb_project",
    }),
)  # fmt: skip

__all__ = ["TOOL"]

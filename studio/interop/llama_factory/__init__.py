"""LLaMA-Factory: flat YAML or JSON, or `llamafactory-cli train …`; datasets by name in dataset_info.json."""

from __future__ import annotations

from studio.interop.command import Command
from studio.interop.llama_factory.keys import NAMES, TITLE
from studio.interop.llama_factory.reader import read_config
from studio.interop.llama_factory.writer import write_config
from studio.interop.tool import Tool
from studio.interop.training_arguments import RULES

_PROGRAMS = ("llamafactory-cli", "lmf", "llamafactory.cli", "llamafactory.launcher", "train_bash.py", "export_model.py")


def _starts(command: Command) -> bool:
    if command.program in _PROGRAMS:
        return True
    # Any trainer may be called train.py; theirs lies in src/, or has options that only it has.
    own = {"stage", "finetuning_type", "template", "dataset_dir"} & command.options.keys()
    files = any(word.endswith((".yaml", ".yml", ".json")) for word in command.words)
    return command.program == "train.py" and (bool(own) or (command.path.endswith("src/train.py") and files))


TOOL = Tool(
    name="llama-factory",
    title=TITLE,
    keys=NAMES,
    own=NAMES - RULES.keys(),
    starts=_starts,
    read=read_config,
    write=write_config,
)

"""All tools whose configs are read or written, and which of them a file or command is of."""

from __future__ import annotations

import re
from dataclasses import replace

from pydantic import ValidationError

from studio.config.run import RunConfig
from studio.errors import InputError
from studio.interop import axolotl, llama_factory, ms_swift, scripts, trl
from studio.interop.reading import Given
from studio.interop.report import Exported, Imported, by_part
from studio.interop.rules import nearest
from studio.interop.tool import Tool
from studio.methods import MethodConfig

# One line for each tool; its package exports TOOL.
_ALL: tuple[Tool, ...] = (
    llama_factory.TOOL, axolotl.TOOL, trl.TOOL, ms_swift.TOOL, scripts.TRL_SCRIPT, scripts.UNSLOTH_SCRIPT,
)  # fmt: skip
TOOLS: dict[str, Tool] = {one.name: one for one in _ALL}
# Those whose configs are read, by their titles; and those that a run can be written for, by their names.
READ = tuple(tool.title for tool in _ALL if tool.keys)
WRITERS = tuple(tool.name for tool in _ALL if tool.write is not None)


def tool_named(name: str) -> Tool:
    """Return the tool of this name.

    Raises:
        InputError: there is none.
    """
    if name in TOOLS:
        return TOOLS[name]
    fix = nearest(name, TOOLS) or f"Choose one of: {', '.join(TOOLS)}"
    raise InputError(f"there is no tool '{name:.60}'", fix=fix)


def detect(given: Given) -> Tool:
    """Return the tool that a file, a text or a command is of.

    Raises:
        InputError: none of them, or it is a run of the studio itself.
    """
    known = ", ".join(READ)
    if given.command is not None:
        for tool in TOOLS.values():
            if tool.starts(given.command):
                return tool
        raise InputError(
            f"'{given.command.path:.60}' is not a command of {known}", where=given.where,
            fix="Give the command that starts the training",
        )  # fmt: skip
    if given.kind == "python":
        for tool in TOOLS.values():
            if any(re.search(rf"^(from|import) {re.escape(name)}\b", given.text, re.MULTILINE) for name in tool.python):
                return tool
        raise InputError(
            "this is a Python script, which is not read", where=given.where,
            fix="Give the config or the command line that it is started with",
        )  # fmt: skip
    if set(given.values) <= set(RunConfig.model_fields):
        raise InputError(
            "this is a run of the studio already", where=given.where, fix="Start it with studio train, or load it"
        )
    best = max(TOOLS.values(), key=lambda tool: _likeness(tool, given), default=None)
    if best is None or _likeness(best, given)[0] == 0:
        keys = ", ".join(list(given.values)[:3])
        raise InputError(
            f"its keys ({keys:.80}) are not those of {known}", where=given.where,
            fix="Check that it is a training config, or name its tool with --from",
        )  # fmt: skip
    return best


def import_given(given: Given, tool: str = "") -> Imported:
    """Return a config of another tool as a run, with what became of each key.

    Args:
        given: the file, text or command.
        tool: its name; "" to find out.

    Raises:
        InputError: the tool is not known, or a value cannot be read.
    """
    return _with_parts((tool_named(tool) if tool else detect(given)).read(given))


def _with_parts(made: Imported) -> Imported:
    """Say beside the batch what the method takes from a whole update here, and from each of its micro-batches there."""
    training, method = (made.run.get(name, {}) for name in ("training", "method"))
    rows, micro = (training.get(name) for name in ("batch_size", "micro_batch_size"))
    if type(rows) is not int or type(micro) is not int:
        return made
    try:
        why = by_part(MethodConfig(**method), rows, micro)
    except ValidationError:  # whoever reads the run says what is wrong with it
        return made
    of = next((line for line in made.report if line.to == "training.batch_size"), None)
    if not why or of is None:
        return made
    said = replace(of, status="approximated", why=". ".join(filter(None, (of.why, why))))
    return replace(made, report=[said if line is of else line for line in made.report])


def export_to(config: RunConfig, tool: str) -> Exported:
    """Return a run as the config of another tool.

    Args:
        config: the run.
        tool: name of the tool.

    Raises:
        InputError: the tool is not known, is not written for, or has no such method.
    """
    write = tool_named(tool).write
    if write is None:
        raise InputError(f"no config is written for {tool}", fix=f"Choose one of: {', '.join(WRITERS)}")
    return write(config)


def _likeness(tool: Tool, given: Given) -> tuple[int, int]:
    """How many of the keys a tool knows, and how many of them only it has."""
    return len(tool.keys & given.values.keys()), len(tool.own & given.values.keys())

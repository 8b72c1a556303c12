"""Hugging Face folder to GGUF by llama.cpp's own converter, as a process; its refusals become sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.export.gguf.toolchain import Toolchain
from studio.export.steps import QUIET, ProgressPhase, StepResult, Watcher, run_step
from studio.processes import child_environment, module_command

_PERCENT = re.compile(r"Writing:\s+(\d+)%")
ELSEWHERE = "Use the result with transformers or vLLM instead, or choose a model that llama.cpp supports"
# (what the converter says, a word for it that programs read, what is wrong, what to do). Without a word it is no matter
# of the model.
KNOWN = (
    (
        r"BPE pre-tokenizer was not recognized",
        "tokenizer",
        "llama.cpp does not support this tokenizer's pre-tokenizer",
        "Use the base model's tokenizer unchanged, or a base model that llama.cpp supports",
    ),
    (
        r"Model (\S*) is not supported",
        "architecture",
        "llama.cpp does not support the architecture {0}",
        ELSEWHERE,
    ),
    (
        r"(?:File not found:|Missing|No such file or directory:) \S*(tokenizer\.(?:model|json))",
        "tokenizer_file",
        "the converter needs {0}, which is not in the base model's folder",
        "Put the base model's {0} into the base model's folder",
    ),
    (
        r"No space left on device",
        "",
        "the disk filled up while the GGUF was being written",
        "Free some space, or set STUDIO_HOME to a folder on a larger disk; what is exported is not affected",
    ),
    (r"MemoryError|Cannot allocate memory", "", "there was not enough memory", "Close other programs and export again"),
)  # fmt: skip


def convert(
    checkpoint: Path,
    target: Path,
    kind: str,
    metadata: dict[str, Any],
    tools: Toolchain,
    watcher: Watcher,
    phase: ProgressPhase,
    base: Path | None = None,
) -> StepResult:
    """Write a GGUF of a checkpoint, or of an adapter.

    Args:
        checkpoint: folder made by `merge`, `lora` or `checkpoint.link_checkpoint`; never a folder with foreign code.
            The converter reads meaning into its name, so it is the same for every run.
        target: file to write; appears only when it is whole.
        kind: f32, f16, bf16 or q8_0.
        metadata: what the file says of itself (`naming.metadata`).
        tools: the converter.
        watcher: the job.
        phase: gets percent.
        base: for an adapter: folder of its base model, made as `checkpoint` is. None for a model.

    Raises:
        StudioError: the converter refused; says why.
        StoppedError: a stop was asked for.
    """
    partial, said = target.with_name(target.name + ".part"), target.with_name(target.name + ".metadata.json")
    said.write_text(json.dumps(metadata, ensure_ascii=False), encoding="utf-8")

    def follow(line: str) -> None:
        if found := _PERCENT.search(line):
            phase.set(float(found[1]), 100.0)
        elif line.strip():
            watcher.log(line)

    more = ["--metadata", str(said)] if base is None else ["--base", str(base)]
    command = module_command(
        "studio.export.gguf.converter", str(tools.path), str(checkpoint), "--outfile", str(partial), "--outtype", kind,
        *more,
    )  # fmt: skip
    try:
        result = run_step(command, watcher, follow, {**child_environment(), **QUIET})
        if result.code != 0 or not partial.is_file():
            raise refusal(result, checkpoint)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
        said.unlink(missing_ok=True)
    return result


def refusal(result: StepResult, checkpoint: Path) -> StudioError:
    """What a failed conversion means."""
    text = "\n".join(result.lines)
    for pattern, _, what, fix in KNOWN:
        if found := re.search(pattern, text):
            parts = found.groups()
            return StudioError(what.format(*parts), where=checkpoint.name, fix=fix.format(*parts))
    return StudioError(
        f"llama.cpp's converter failed: {raised(result.lines) or result.ending()}", where=checkpoint.name,
        fix="The job's log has its full output",
    )  # fmt: skip


def raised(lines: Sequence[str]) -> str:
    """The last exception that a program printed, shortened; empty for none."""
    found = [line for line in lines if re.match(r"^[A-Za-z_.]*(Error|Exception)\b", line)]
    return found[-1][:300] if found else ""

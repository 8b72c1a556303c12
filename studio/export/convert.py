"""Hugging Face folder to GGUF by llama.cpp's own converter, as a process; its refusals become sentences."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.export.steps import QUIET, ProgressPhase, StepResult, Watcher, run_step
from studio.export.toolchain import Toolchain

_PERCENT = re.compile(r"Writing:\s+(\d+)%")
# (what the converter says, what is wrong, what to do)
_KNOWN = (
    (
        r"BPE pre-tokenizer was not recognized",
        "llama.cpp does not know this tokenizer's way of splitting text",
        "Use the tokenizer of the base model unchanged, or a base model that llama.cpp supports",
    ),
    (
        r"Model (\S+) is not supported",
        "llama.cpp has no support for the architecture {0}",
        "Keep the adapter or the merged checkpoint, which transformers and vLLM can serve",
    ),
    (
        r"(?:File not found:|Missing) \S*tokenizer\.model",
        "the converter needs the file tokenizer.model of the base model, which is not in its folder",
        "Put the base model's tokenizer.model into the base model's folder and export again",
    ),
    (
        r"No space left on device",
        "the disk became full while the GGUF was written",
        "Free some space, or set STUDIO_HOME to a folder on a larger disk; the run itself is untouched",
    ),
    (r"MemoryError|Cannot allocate memory", "there was not enough memory", "Close other programs and export again"),
)


def convert(
    checkpoint: Path,
    target: Path,
    kind: str,
    metadata: dict[str, Any],
    tools: Toolchain,
    watcher: Watcher,
    phase: ProgressPhase,
) -> StepResult:
    """Write a GGUF of a checkpoint.

    Args:
        checkpoint: folder made by `merge` or `checkpoint.link_checkpoint`; never a folder with foreign code. The
            converter reads meaning into its name, so it is the same for every run.
        target: file to write; appears only when it is whole.
        kind: f32, f16, bf16 or q8_0.
        metadata: what the file says of itself (`naming.metadata`).
        tools: the converter.
        watcher: the job.
        phase: gets percent.

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

    command = [
        sys.executable, str(tools.convert_model), str(checkpoint),
        "--outfile", str(partial), "--outtype", kind, "--metadata", str(said),
    ]  # fmt: skip
    try:
        result = run_step(command, watcher, follow, QUIET)
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
    for pattern, what, fix in _KNOWN:
        if found := re.search(pattern, text):
            return StudioError(what.format(*found.groups()), where=checkpoint.name, fix=fix)
    raised = [line for line in result.lines if re.match(r"^[A-Za-z_.]*(Error|Exception)\b", line)]
    why = raised[-1][:300] if raised else result.ending()
    return StudioError(
        f"llama.cpp's converter failed: {why}", where=checkpoint.name, fix="The job's log has its whole output"
    )

"""GGUF to a smaller GGUF by llama.cpp, in a process of its own, since it can end in a signal (seen: SIGBUS).

There is no callback for progress: the lines that it logs, `[  3/ 272] blk…`, are counted. The source and the target
must not be one file (llama.cpp would destroy it); the target appears only when it is whole.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import InputError, StudioError
from studio.export.imatrix.matrixfile import for_header, for_quantizer, read_means
from studio.export.proof.gates import TYPES
from studio.export.steps import ProgressPhase, StepResult, Watcher, run_own_step, serve_step

_LINE = re.compile(r"^\s*\[\s*(\d+)/\s*(\d+)\]")
# A tensor whose rows do not fit the type; the type that it gets instead follows as a piece of its own.
_ODD = re.compile(r"ncols\s+(\d+) not divisible")
# The rest of a tensor's line comes in pieces of its own; the fallbacks are counted in one line at the end.
_PIECE = re.compile(
    r"^\s*(converting to|size =|-> falling back|warning: .*not divisible|\.*$)|llama_model_loader: - kv"
)
_FALLBACK = re.compile(r"(\d+) of (\d+) tensor\(s\) required fallback quantization")
# What llama.cpp says just before it gives up.
_FAILED = re.compile(
    r"failed to quantize:|error loading model|failed to load|is not within|No space left|iostream", re.I
)


@dataclass(frozen=True)
class Quantized:
    """How a quantisation ended: what the person should know about the file, and its cost."""

    notes: list[str]
    result: StepResult


def quantize(
    source: Path, target: Path, kind: str, threads: int, watcher: Watcher, phase: ProgressPhase,
    matrix: dict[str, Any] | None = None,
) -> Quantized:  # fmt: skip
    """Write `source` as another type.

    Args:
        source: GGUF of f32, f16 or bf16.
        target: file to write; its folder also takes the request of the process.
        kind: a key of `gates.TYPES`.
        threads: CPU threads.
        watcher: the job.
        phase: gets tensors done.
        matrix: {"path", "file" (its name as it is delivered), "sources", "tokens"} of an importance matrix; None for
            none.

    Raises:
        InputError: source and target are the same file.
        StudioError: llama.cpp refused; says why.
        StoppedError: a stop was asked for.
    """
    if target.exists() and source.exists() and source.samefile(target):
        raise InputError(
            "source and target are the same file, which llama.cpp would overwrite",
            where=str(source),
            fix="Choose another target name",
        )
    partial = target.with_name(target.name + ".part")
    request = {"source": str(source), "target": str(partial), "type": kind, "threads": threads, "matrix": matrix}
    heard: list[str] = []
    listener = _Listener(watcher, heard)
    try:
        result = run_own_step("studio.export.gguf.quantize", request, target.parent, listener, phase.set)
        if result.error is not None:
            raise result.error
        if result.code != 0 or not partial.is_file():
            said = next((line for line in reversed(heard) if _FAILED.search(line)), "")
            raise StudioError(
                f"llama.cpp could not write {kind}: {said.strip() or result.ending()}",
                where=source.name,
                fix="The job's log has its full output",
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return Quantized(notes(heard, result.answer), result)


def notes(lines: list[str], answer: dict[str, object]) -> list[str]:
    """What the log says that a person should know."""
    found = next((match for line in lines if (match := _FALLBACK.search(line))), None)
    if found is None:
        return []
    odd = answer.get("odd_width")
    why = f": width {odd} is not a multiple of 256" if odd else ""
    return [f"{found[1]} of {found[2]} tensors kept at higher precision{why}"]


class _Listener:
    """A watcher that also keeps the lines."""

    def __init__(self, watcher: Watcher, heard: list[str]) -> None:
        self._heard, self.log_line = heard, watcher.log
        self.phase, self.notice, self.should_stop = watcher.phase, watcher.notice, watcher.should_stop

    def log(self, text: str) -> None:
        self._heard.append(text)
        self.log_line(text)


def _work(request: dict[str, Any], report: object) -> dict[str, object]:
    import ctypes

    import llama_cpp

    odd: set[int] = set()

    def on_log(level: int, text: bytes, data: object) -> None:
        line = text.decode("utf-8", "replace")
        if (found := _LINE.match(line)) and callable(report):
            report(float(found[1]), float(found[2]))
        elif narrow := _ODD.search(line):
            odd.add(int(narrow[1]))
        elif not _PIECE.match(line):
            print(line.rstrip("\n"), flush=True)

    callback = llama_cpp.llama_log_callback(on_log)  # named, so that it lives as long as it may be called
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    info = TYPES[str(request["type"])]
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{info.constant}")
    params.nthread = int(str(request["threads"]))
    source, target = str(request["source"]), str(request["target"])
    if matrix := request["matrix"]:
        means = read_means(Path(matrix["path"]))  # named, so that they live as long as llama.cpp reads them
        params.imatrix = for_quantizer(means)
        params.kv_overrides = for_header(matrix["file"], matrix["sources"], len(means), matrix["tokens"])
    code = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
    if code != 0:
        sys.exit(1)
    return {"odd_width": min(odd, default=None)}


if __name__ == "__main__":
    raise SystemExit(serve_step(_work))

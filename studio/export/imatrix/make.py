"""An importance matrix out of a GGUF and the run's training rows, in a process with llama.cpp."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.data.tokens.pretrained import load_tokenizer
from studio.errors import StudioError
from studio.export.imatrix.activations import F32, Collector, Sums
from studio.export.imatrix.matrixfile import write_matrix
from studio.export.imatrix.sample import TrainingRows, sample_rows
from studio.export.steps import Report, serve_step
from studio.settings import read_settings

_TOLD = (3, 4)  # of enum ggml_log_level: warnings and errors


def make_matrix(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Compute the rows and write the matrix.

    Args:
        request: {"file" (a GGUF of f16 or f32), "target", "tokenizer", "rows" (values of `TrainingRows`), "threads"}.
        report: called with (tokens done, tokens in all).

    Returns:
        {"rows", "tokens", "sources": [names], "entries": weight matrices, "unreached": experts that no token chose}.

    Raises:
        InputError: a row cannot be used.
        StudioError: llama.cpp cannot load or compute the file.
    """
    tokenizer = load_tokenizer(Path(request["tokenizer"]))
    asked = TrainingRows.model_validate(request["rows"])
    rows = sample_rows(asked, tokenizer, read_settings())
    sums, tokens = collect(Path(request["file"]), rows, request["threads"], report), sum(map(len, rows))
    write_matrix(Path(request["target"]), sums, asked.names, tokens)
    unreached = sum(int((one.counts == 0).sum()) for one in sums.values())
    return {
        "rows": len(rows), "tokens": tokens, "sources": asked.names, "entries": len(sums), "unreached": unreached,
    }  # fmt: skip


def collect(file: Path, rows: Sequence[Sequence[int]], threads: int, report: Report) -> dict[str, Sums]:
    """Let llama.cpp compute rows, each by itself, and return the sums of squared inputs by weight matrix.

    On the CPU in any build: only there are the inputs in main memory. Keys and values stay in float32.

    Args:
        file: a GGUF of f16 or f32.
        rows: token ids of each; at least one.
        threads: CPU threads.
        report: called with (tokens done, tokens in all).

    Raises:
        StudioError: llama.cpp cannot load or compute it.
    """
    from llama_cpp import llama_cpp

    collector, longest, total = Collector(), max(map(len, rows)), sum(map(len, rows))
    heard = llama_cpp.llama_log_callback(_on_log)  # named, so that it lives as long as it may be called
    llama_cpp.llama_log_set(heard, ctypes.c_void_p(0))
    model = context = None
    batch = llama_cpp.llama_batch_init(longest, 0, 1)
    done = 0
    try:
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers, options.use_extra_bufts = 0, False
        model = llama_cpp.llama_model_load_from_file(str(file).encode(), options)
        if not model:
            raise StudioError("llama.cpp cannot load it", where=file.name, fix="The job's log has what it says")
        sizes = llama_cpp.llama_context_default_params()
        sizes.n_ctx = sizes.n_batch = sizes.n_ubatch = longest
        sizes.n_threads = sizes.n_threads_batch = threads
        sizes.type_k = sizes.type_v = F32
        sizes.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        sizes.op_offload, sizes.offload_kqv, sizes.cb_eval = False, False, collector.callback
        context = llama_cpp.llama_init_from_model(model, sizes)
        if not context:
            raise StudioError("llama.cpp has no memory for its context", fix="Close other programs and export again")
        for ids in rows:
            _fill(batch, ids)
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
            code = llama_cpp.llama_decode(context, batch)
            collector.after_batch()
            if code != 0:
                raise StudioError(f"llama.cpp could not compute {len(ids)} tokens (llama_decode: {code})")
            done += len(ids)
            report(done, total)
    finally:
        llama_cpp.llama_batch_free(batch)
        if context:
            llama_cpp.llama_free(context)
        if model:
            llama_cpp.llama_model_free(model)
        llama_cpp.llama_log_set(llama_cpp.llama_log_callback(), ctypes.c_void_p(0))
    return collector.sums


def _on_log(level: int, text: bytes, data: Any) -> None:
    if level in _TOLD:
        print(text.decode("utf-8", "replace").rstrip("\n"), flush=True)


def _fill(batch: Any, ids: Sequence[int]) -> None:
    batch.n_tokens = len(ids)
    for place, token in enumerate(ids):
        batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, place, 1
        batch.seq_id[place][0] = 0
        batch.logits[place] = True  # the last layer is only computed for tokens whose logits are asked for


if __name__ == "__main__":
    raise SystemExit(serve_step(make_matrix))

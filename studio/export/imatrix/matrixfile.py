"""The file of an importance matrix, in the form of llama.cpp's own tool, and as its quantizer takes it.

For each weight matrix NAME there are NAME.in_sum2, the sums of squared inputs (experts, columns), and NAME.counts, how
many inputs were summed (experts, 1); llama-quantize reads it (`--imatrix`), and llama-imatrix adds to it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.export.imatrix.activations import Sums

CHUNK_TOKENS = 512
_SUMS, _COUNTS = ".in_sum2", ".counts"
_TEXT_BYTES = 127  # of a value that llama.cpp is given for a file's header


def write_matrix(path: Path, sums: Mapping[str, Sums], sources: Sequence[str], tokens: int) -> None:
    """Write the file.

    Args:
        path: of the file, which appears only when it is whole.
        sums: by the name of the weight matrix.
        sources: what the rows came from.
        tokens: how many were computed.
    """
    import gguf

    class Writer(gguf.GGUFWriter):
        """Writes no architecture: a matrix belongs to none."""

        def add_architecture(self) -> None:
            """Leave it out."""

    partial = path.with_name(path.name + ".part")
    writer = Writer(partial, "")
    writer.add_string("general.type", "imatrix")
    writer.add_array("imatrix.datasets", list(sources))
    writer.add_uint32("imatrix.chunk_count", -(-tokens // CHUNK_TOKENS))
    writer.add_uint32("imatrix.chunk_size", CHUNK_TOKENS)
    for name in sorted(sums):
        writer.add_tensor(name + _SUMS, sums[name].squares.astype(np.float32))
        writer.add_tensor(name + _COUNTS, sums[name].counts.astype(np.float32)[:, None])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_means(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Return the mean squared input of each column, (experts × columns,), by the name of the weight matrix.

    An expert that no token chose has 1 everywhere, so that its columns count alike, as llama.cpp's own tool has it.
    """
    from gguf import GGUFReader

    tensors = {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}
    found = {}
    for name, squares in tensors.items():
        if not name.endswith(_SUMS):
            continue
        counts = tensors[name.removesuffix(_SUMS) + _COUNTS].reshape(-1, 1)
        means = np.where(counts > 0, squares.reshape(len(counts), -1) / np.maximum(counts, 1), 1)
        found[name.removesuffix(_SUMS)] = np.ascontiguousarray(means.reshape(-1), np.float32)
    return found


def for_quantizer(means: Mapping[str, npt.NDArray[np.float32]]) -> Any:
    """Return the array that llama.cpp's parameter `imatrix` points to; `means` must live as long as it is used."""
    from llama_cpp.llama_cpp import llama_model_imatrix_data

    entries = (llama_model_imatrix_data * (len(means) + 1))()  # the last one has no name
    for entry, (name, values) in zip(entries, means.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return entries


def for_header(file: str, sources: Sequence[str], entries: int, tokens: int) -> Any:
    """Return the keys that tell a GGUF's reader of the matrix, as llama-quantize writes them.

    Args:
        file: name of the matrix's file.
        sources: what its rows came from.
        entries: weight matrices that it has.
        tokens: how many were computed.
    """
    from llama_cpp import llama_cpp

    texts = {"file": file, "dataset": ", ".join(sources)}
    numbers = {"entries_count": entries, "chunks_count": -(-tokens // CHUNK_TOKENS)}
    overrides = (llama_cpp.llama_model_kv_override * (len(texts) + len(numbers) + 1))()  # the last one has no key
    for override, (name, value) in zip(overrides, (texts | numbers).items(), strict=False):
        override.key = f"quantize.imatrix.{name}".encode()
        if isinstance(value, int):
            override.tag, override.value.val_i64 = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT, value
        else:
            override.tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
            override.value.val_str = value.encode()[:_TEXT_BYTES].decode("utf-8", "ignore").encode()
    return overrides

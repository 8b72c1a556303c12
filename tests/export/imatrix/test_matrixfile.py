"""The file of an importance matrix is llama.cpp's, and what the quantizer is given of it are means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from studio.export.imatrix.activations import Sums
from studio.export.imatrix.matrixfile import for_header, for_quantizer, read_means, write_matrix

SUMS = {
    "blk.0.ffn_down_exps.weight": Sums(np.array([[2.0, 4.0], [0.0, 0.0]]), np.array([2.0, 0.0])),
    "blk.0.attn_q.weight": Sums(np.array([[9.0, 3.0, 6.0]]), np.array([3.0])),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.imatrix.gguf"
    write_matrix(path, SUMS, ["demo/train.jsonl", "own.jsonl"], 1025)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    return path


def test_the_file_is_in_the_form_of_llama_cpp(file: Path) -> None:
    reader = GGUFReader(file)
    values = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert values == {
        "general.type": "imatrix", "imatrix.datasets": ["demo/train.jsonl", "own.jsonl"], "imatrix.chunk_count": 3,
        "imatrix.chunk_size": 512,
    }  # fmt: skip
    found = {tensor.name: (tensor.shape.tolist(), tensor.data.tolist()) for tensor in reader.tensors}
    assert found == {
        "blk.0.attn_q.weight.in_sum2": ([3, 1], [[9.0, 3.0, 6.0]]),
        "blk.0.attn_q.weight.counts": ([1, 1], [[3.0]]),
        "blk.0.ffn_down_exps.weight.in_sum2": ([2, 2], [[2.0, 4.0], [0.0, 0.0]]),
        "blk.0.ffn_down_exps.weight.counts": ([1, 2], [[2.0], [0.0]]),
    }


def test_the_quantizer_gets_means_and_one_for_experts_that_no_token_chose(file: Path) -> None:
    means = read_means(file)
    entries = for_quantizer(means)
    given = {entry.name.decode(): entry.data[: entry.size] for entry in entries if entry.name}
    assert given == {
        "blk.0.attn_q.weight": [3.0, 1.0, 2.0],
        "blk.0.ffn_down_exps.weight": [1.0, 2.0, 1.0, 1.0],
    }
    assert len(entries) == 3 and entries[2].name is None, "llama.cpp reads up to an entry without a name"


def test_the_header_says_what_fits_and_never_half_a_letter() -> None:
    keys = for_header("x.imatrix.gguf", ["ä" * 100], 14, 1025)
    told = {one.key.decode(): one.value.val_str if one.tag == 3 else one.value.val_i64 for one in keys if one.key}
    assert told == {
        "quantize.imatrix.file": b"x.imatrix.gguf",
        "quantize.imatrix.dataset": ("ä" * 63).encode(),
        "quantize.imatrix.entries_count": 14,
        "quantize.imatrix.chunks_count": 3,
    }
    assert keys[len(told)].key == b""


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gguf

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_matrix(tmp_path / "x.gguf", SUMS, ["a"], 1)
    assert list(tmp_path.iterdir()) == []

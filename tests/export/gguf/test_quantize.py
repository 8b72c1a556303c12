"""Quantising: what is refused, and what is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.errors import InputError, StoppedError, StudioError
from studio.export.gguf.quantize import notes, quantize
from studio.jobs import JobFolder
from tests.export.conftest import Counter, Recorder


@pytest.mark.parametrize("content", [b"", b"garbage", b"GGUF\x03\x00\x00\x00"])
def test_a_source_that_is_no_gguf(content: bytes, tmp_path: Path, watcher: Recorder, counter: Counter) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(content)
    with pytest.raises(StudioError, match=r"llama\.cpp could not write q4_k_m"):
        quantize(source, tmp_path / "target.gguf", "q4_k_m", 1, watcher, counter)
    assert not list(tmp_path.glob("target*"))
    assert source.read_bytes() == content


def test_source_and_target_must_not_be_one_file(tmp_path: Path, watcher: Recorder, counter: Counter) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(b"precious")
    (tmp_path / "link.gguf").symlink_to(source)
    for target in (source, tmp_path / "link.gguf"):
        with pytest.raises(InputError, match="same file"):
            quantize(source, target, "q4_k_m", 1, watcher, counter)
    assert source.read_bytes() == b"precious"


def test_an_already_quantised_source_is_refused(
    exported: JobFolder, tmp_path: Path, watcher: Recorder, counter: Counter
) -> None:
    source = next(exported.exports.glob("*-q4_0.gguf"))
    with pytest.raises(StudioError, match="requantiz"):
        quantize(source, tmp_path / "target.gguf", "q4_k_m", 1, watcher, counter)


def test_progress_counts_tensors_and_stop_leaves_nothing(exported: JobFolder, tmp_path: Path, counter: Counter) -> None:
    source = next(exported.exports.glob("*-f16.gguf"))
    made = quantize(source, tmp_path / "whole.gguf", "q4_k_m", 1, Recorder(), counter)
    assert counter.values[-1] == (272, 272)
    assert made.notes == ["180 of 272 tensors kept at higher precision: width 576 is not a multiple of 256"]
    assert made.result.peak_bytes > 0
    assert (tmp_path / "whole.gguf").stat().st_size > 70e6
    with pytest.raises(StoppedError):
        quantize(source, tmp_path / "half.gguf", "q4_0", 1, Recorder(stop_after=3), Counter())
    assert not list(tmp_path.glob("half*"))


def test_fallbacks_are_said() -> None:
    line = "llama_model_quantize_impl: WARNING: 180 of 272 tensor(s) required fallback quantization"
    assert notes([line], {"odd_width": 576}) == [
        "180 of 272 tensors kept at higher precision: width 576 is not a multiple of 256"
    ]
    assert notes(["nothing of interest"], {}) == []

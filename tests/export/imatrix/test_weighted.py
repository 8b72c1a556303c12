"""What the quantizer makes with an importance matrix: nearer where it matters, refused where it is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import AutoModelForCausalLM, LlamaConfig

from studio.errors import StoppedError, StudioError
from studio.export.gguf.quantize import quantize
from studio.export.gguf.toolchain import find_toolchain
from studio.export.gguf.trial import as_gguf, fill
from studio.export.imatrix import sample
from studio.export.imatrix.make import collect
from studio.export.imatrix.matrixfile import read_means, write_matrix
from studio.export.imatrix.sample import training_rows
from studio.export.proof.verify import verify
from studio.export.source import cpu_threads, open_run, open_source
from studio.export.steps import require, run_own_step
from studio.jobs import JobFolder
from studio.settings import ASSETS, Settings
from tests.export.conftest import Counter, Recorder

SMALL = LlamaConfig(
    vocab_size=256, hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
    num_key_value_heads=4, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
Matrix = dict[str, Any]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, session_settings: Settings) -> tuple[Path, Matrix]:
    """A small model as a GGUF of float32, and its importance matrix."""
    folder = tmp_path_factory.mktemp("small")
    tools = find_toolchain(session_settings)
    assert tools is not None
    model = AutoModelForCausalLM.from_config(SMALL).float().eval()
    fill(model)
    file, matrix = as_gguf(tools, model, folder), folder / "imatrix.gguf"
    rows = [[(7 * row + 3 * place) % 256 for place in range(40)] for row in range(5)]
    write_matrix(matrix, collect(file, rows, 1, lambda done, total: None), ["rows.jsonl"], 200)
    return file, {"path": str(matrix), "file": "x.imatrix.gguf", "sources": ["rows.jsonl"], "tokens": 200}


def test_two_bits_need_it_and_say_what_they_were_made_with(
    small: tuple[Path, Matrix], tmp_path: Path, watcher: Recorder, counter: Counter
) -> None:
    file, matrix = small
    with pytest.raises(StudioError, match="requires an i"):
        quantize(file, tmp_path / "two.gguf", "iq2_xs", 1, watcher, counter)
    assert not list(tmp_path.glob("two*"))
    made = quantize(file, tmp_path / "two.gguf", "iq2_xs", 1, watcher, counter, matrix)
    assert made.notes == []
    reader = GGUFReader(tmp_path / "two.gguf")
    told = {key: reader.fields[f"quantize.imatrix.{key}"].contents() for key in ("file", "dataset", "entries_count")}
    assert told == {"file": "x.imatrix.gguf", "dataset": "rows.jsonl", "entries_count": 7}
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["blk.0.attn_q.weight"] == "IQ2_XS"


@pytest.mark.parametrize("kind", ["q4_k_m", "iq4_xs", "q5_0"])
def test_columns_that_are_used_most_are_rounded_best(
    kind: str, small: tuple[Path, Matrix], tmp_path: Path, watcher: Recorder, counter: Counter
) -> None:
    file, matrix = small
    means = read_means(Path(matrix["path"]))
    plain = {tensor.name: tensor.data for tensor in GGUFReader(file).tensors}
    error = {}
    for name, given in (("without", None), ("with", matrix)):
        quantize(file, tmp_path / f"{name}.gguf", kind, 1, watcher, counter, given)
        read = {
            one.name: dequantize(one.data, one.tensor_type) for one in GGUFReader(tmp_path / f"{name}.gguf").tensors
        }
        error[name] = sum(float((weight * (read[part] - plain[part]) ** 2).sum()) for part, weight in means.items())
    assert 0 < error["with"] < error["without"]


def test_a_matrix_of_another_model_is_refused(
    small: tuple[Path, Matrix], tmp_path: Path, watcher: Recorder, counter: Counter
) -> None:
    file, matrix = small
    sums = collect(file, [[1, 2, 3]], 1, lambda done, total: None)
    for one in sums.values():
        one.squares = np.tile(one.squares, 2)
    write_matrix(tmp_path / "other.gguf", sums, ["x"], 3)
    with pytest.raises(StudioError, match="imatrix size 512 is different from tensor size 256"):
        quantize(
            file, tmp_path / "out.gguf", "q4_k_m", 1, watcher, counter,
            matrix | {"path": str(tmp_path / "other.gguf")},
        )  # fmt: skip
    assert not list(tmp_path.glob("out*"))


def request_of(exported: JobFolder, settings: Settings, target: Path) -> dict[str, Any]:
    run = open_run(settings, str(exported.request.config["run"]))
    rows = training_rows(run.request.config, settings)
    return {
        "file": str(next(exported.exports.glob("*-f16.gguf"))), "target": str(target), "tokenizer": str(run.model),
        "rows": rows.model_dump(mode="json"), "threads": cpu_threads(),
    }  # fmt: skip


@pytest.mark.long
def test_a_stop_leaves_no_matrix(exported: JobFolder, session_settings: Settings, tmp_path: Path) -> None:
    target, told = tmp_path / "out" / "imatrix.gguf", Counter()
    target.parent.mkdir()
    watcher = Recorder()
    watcher.should_stop = lambda: bool(told.values)  # type: ignore[method-assign]
    with pytest.raises(StoppedError):
        run_own_step(
            "studio.export.imatrix.make", request_of(exported, session_settings, target), tmp_path, watcher, told.set
        )
    assert told.values and list(target.parent.iterdir()) == []


@pytest.fixture(scope="module")
def compared(
    exported: JobFolder, session_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, bool], float]:
    """Mean KL divergence of a type from the trained model on held-out rows, with or without a matrix."""
    folder = tmp_path_factory.mktemp("compared")
    source = open_source(session_settings, str(exported.request.config["run"]))
    asked = {
        "base": str(source.weights), "adapter": str(source.adapter), "tokenizer": str(source.model),
        "texts_from": {"path": str(ASSETS / "demo" / "validation.jsonl")}, "rows_from": None, "limit": None,
        "folder": str(folder), "answers": False,
    }  # fmt: skip
    require(run_own_step("studio.export.proof.reference", asked, folder, Recorder()), "asking the trained model")
    request = request_of(exported, session_settings, folder / "imatrix.gguf")
    made = require(run_own_step("studio.export.imatrix.make", request, folder, Recorder()), "the matrix").answer
    assert made["entries"] == 210 and made["tokens"] == sample.TOKENS and made["unreached"] == 0
    matrix = made | {"path": request["target"], "file": "x.imatrix.gguf"}

    def measure(kind: str, weighted: bool) -> float:
        file = folder / f"{kind}-{weighted}.gguf"
        quantize(Path(request["file"]), file, kind, cpu_threads(), Recorder(), Counter(), matrix if weighted else None)
        asked = {"file": str(file), "folder": str(folder), "threads": cpu_threads()}
        found = verify(asked, lambda done, total: None)["overall"]["mean_kl"]
        assert isinstance(found, float)
        return found

    return measure


@pytest.mark.long
@pytest.mark.parametrize("kind", ["iq4_xs", "q2_k"])
def test_the_trained_model_loses_less_with_it(kind: str, compared: Callable[[str, bool], float]) -> None:
    assert compared(kind, True) < compared(kind, False)

"""A divided GGUF is the same model: the same metadata and tensors, loaded by its first file, within the same limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from studio.chat.ask import job_target
from studio.cli.work.results import export_config
from studio.config.jobs import is_model_file
from studio.errors import StudioError
from studio.export.delivery.hub import signatures
from studio.export.files import sha256
from studio.export.forms.split import split
from studio.export.job import export
from studio.export.serving.servers import Served, compose
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.settings import Settings


def nothing(done: float, total: float | None) -> None:
    """Stands in for a step's report."""


def values(reader: GGUFReader) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items() if not name.startswith(("GGUF.", "split."))}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Metadata of each kind, and tensors of two types."""
    file = tmp_path / "whole.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_name("a name")
    writer.add_array("tokenizer.ggml.tokens", ["a", "é", "c"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_uint32("llama.block_count", 3)
    for number in range(5):
        kind = np.float16 if number % 2 else np.float32
        writer.add_tensor(f"blk.{number}.weight", np.full((8, 32), number, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_the_parts_have_everything_once(small: Path) -> None:
    whole = GGUFReader(small)
    names = split({"file": str(small), "stem": "x", "most": int(whole.data_offset) + 1600}, nothing)["files"]
    assert names == [f"x-{number:05d}-of-00003.gguf" for number in (1, 2, 3)]
    parts = [GGUFReader(small.with_name(name)) for name in names]
    assert values(parts[0]) == values(whole)
    assert [set(values(part)) for part in parts[1:]] == [set(), set()]
    told = [[part.fields[f"split.{key}"].contents() for key in ("no", "count", "tensors.count")] for part in parts]
    assert told == [[0, 3, 5], [1, 3, 5], [2, 3, 5]]
    found = {tensor.name: tensor for part in parts for tensor in part.tensors}
    assert list(found) == [tensor.name for tensor in whole.tensors]
    for tensor in whole.tensors:
        assert np.array_equal(found[tensor.name].data, tensor.data)
        assert found[tensor.name].tensor_type == tensor.tensor_type
    assert [is_model_file(name) for name in names] == [True, False, False]


def test_one_tensor_is_not_divided(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_tensor("w", np.zeros((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(StudioError, match="one tensor, which is never divided"):
        split({"file": str(file), "stem": "x", "most": 10}, nothing)


def test_a_container_sees_all_parts() -> None:
    served = Served("llama-server", "x", "x-00001-of-00002.gguf", "", "", 100, beside=("x-00002-of-00002.gguf",))
    text = compose(served)
    assert 'target: "/models/x-00001-of-00002.gguf"' in text and 'target: "/models/x-00002-of-00002.gguf"' in text
    assert text.count("00002-of") == 2, "only the first is named to the server"


def divided(settings: Settings, wanted: str, **options: Any) -> tuple[JobFolder, dict[str, Any]]:
    config = export_config(settings, wanted, options)
    job = create_job(settings.jobs, "export", "divided", config.model_dump(mode="json"))
    export(JobContext(job, settings))
    return job, json.loads((job.report / "export.json").read_text())


@pytest.mark.long
def test_the_real_model_in_parts_is_proven_served_and_chatted_with(settings: Settings, rows_file: Path) -> None:
    job, report = divided(
        settings, "smollm2-135m-instruct", to="llama-server", types=["q8_0"], shard_size=0.05,
        evaluate=str(rows_file),
    )  # fmt: skip
    (line,) = report["files"]
    assert (line["verdict"], line["prompt_ids_equal"], line["exact_match"]["total"]) == ("as expected", True, 3)
    names = [part["file"] for part in line["shards"]]
    assert len(names) > 2 and line["file"] == names[0] == f"smollm2-135m-instruct-q8_0-00001-of-{len(names):05d}.gguf"
    files = sorted(job.exports.glob("*.gguf"))
    assert [file.name for file in files] == names and line["bytes"] == sum(file.stat().st_size for file in files)
    assert all(file.stat().st_size <= 0.05e9 for file in files[1:])
    signed = signatures(report, job.exports)
    assert signed == {file: sha256(file, lambda done: None) for file in files}
    assert names[0] in (job.exports / "serve.sh").read_text() and names[1] not in (job.exports / "serve.sh").read_text()
    assert names[1] in (job.exports / "compose.yaml").read_text()
    assert names[1] in (job.exports / "README.md").read_text()
    assert "modelfile" not in report and not (job.exports / "Modelfile").exists()
    assert job_target(job, settings).gguf == files[0]

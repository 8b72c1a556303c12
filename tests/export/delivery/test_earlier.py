"""What an earlier export made is taken for a delivery, if it is the same, was proven, and is as it was signed."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from typing import Any

import pytest

from studio.config.jobs import ExportConfig
from studio.export.adapter import AdapterExport
from studio.export.delivery.earlier import same_export, take
from studio.export.files import sha256
from studio.export.job import export
from studio.export.source import open_source, source_of
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.settings import Settings
from tests.export.delivery.conftest import contents, context_of

BASE = "lab/base"
FILES = {"adapter_model.safetensors": b"weights", "adapter_config.json": b"{}", "README.md": b"# old card"}


def made(
    settings: Settings, run: JobFolder, status: str = "failed", verdict: str = "as trained", **config: Any
) -> JobFolder:
    """An export of the run, as its upload left it."""
    context = context_of(settings, run, **{"to": "adapter", "base": BASE} | config)
    folder = context.job.exports / "tiny-run-adapter"
    folder.mkdir(parents=True)
    context.job.report.mkdir()
    parts = []
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
        digest = sha256(folder / name, lambda done: None)
        parts.append({"file": f"{folder.name}/{name}", "bytes": len(data), "sha256": digest})
    (context.job.exports / "README.md").write_bytes(b"# old card")
    entry = {
        "type": "adapter", "dtype": "float32", "file": folder.name, "verdict": verdict, "notes": [], "parts": parts,
        "greedy": None, "prompts_compared": 1, "prompt_ids_equal": True, "top1": 1.0, "mean_kl": 0.0,
        "exact_match": None, "differences": [],
    }  # fmt: skip
    report = {"run": run.id, "files": [entry], "reference": {"positions": 9}, "base_model": BASE}
    write_json(context.job.report / "export.json", report)
    context.set_state(status=status)
    return context.job


def wanted(settings: Settings, run: JobFolder, **config: Any) -> tuple[JobContext, ExportConfig]:
    usual = {"to": "folder", "what": "adapter", "path": "/nowhere", "base": BASE}
    context = context_of(settings, run, **usual | config)
    asked = ExportConfig.model_validate(context.config)
    return context, asked.model_copy(update={"to": asked.made})


def test_the_newest_of_the_same_is_found(session_settings: Settings, tiny_run: JobFolder) -> None:
    made(session_settings, tiny_run)
    time.sleep(1.1)
    newer = made(session_settings, tiny_run, to="hub", what="adapter", repo="ada/x")
    context, config = wanted(session_settings, tiny_run)
    assert same_export(context, config, source_of(tiny_run)) == newer


@pytest.mark.parametrize("known", [
    {"checkpoint": 98}, {"imatrix": "on"}, {"imatrix": "off"}, {"shard_size": 0.5}, {"types": ["f16"]}, {}
])  # fmt: skip
def test_of_gguf_files_all_that_changes_them_is_the_same(
    session_settings: Settings, tiny_run: JobFolder, known: dict[str, Any]
) -> None:
    """Above all, the result of a run is not taken for one of its checkpoints."""
    usual = {"base": None, "what": "gguf", "types": ["q4_0"], "evaluate": "demo/test.jsonl"}
    job = made(session_settings, tiny_run, **usual | {"to": "gguf", "what": "merged"} | known)
    for asked in ({}, known):
        context, config = wanted(session_settings, tiny_run, **usual | asked)
        source = replace(source_of(tiny_run), step=asked.get("checkpoint"))
        found = same_export(context, config, source)
        assert (found == job) == (asked == known)
    shutil.rmtree(job.path)


def test_an_importance_matrix_is_taken_as_it_was_signed(session_settings: Settings, tiny_run: JobFolder) -> None:
    job = made(session_settings, tiny_run, base="lab/matrix")
    file = job.exports / "tiny-run.imatrix.gguf"
    file.write_bytes(b"matrix")
    matrix = {"file": file.name, "bytes": 6, "sha256": sha256(file, lambda done: None), "rows": 3, "tokens": 9}
    report = json.loads((job.report / "export.json").read_text())
    write_json(job.report / "export.json", report | {"imatrix": matrix})
    context, config = wanted(session_settings, tiny_run, base="lab/matrix")
    making = AdapterExport(context, config, open_source(session_settings, tiny_run.id), None)
    context.job.exports.mkdir()
    assert take(context, job, making.report) and making.report["imatrix"] == matrix
    file.unlink()
    file.write_bytes(b"MATRIX")
    assert not take(context, job, making.report)


@pytest.mark.parametrize(
    "other", [{"base": "lab/other"}, {"verdict": "differs"}, {"status": "running"}, {"evaluate": "demo/test.jsonl"},
              {"to": "merged", "base": None}],
)  # fmt: skip
def test_what_is_not_the_same_is_not_taken(
    session_settings: Settings, tiny_run: JobFolder, other: dict[str, Any]
) -> None:
    base = f"lab/{abs(hash(str(other)))}"
    job = made(session_settings, tiny_run, **{"base": base} | other)
    context, config = wanted(session_settings, tiny_run, base=base)
    assert same_export(context, config, source_of(tiny_run)) is None
    job.exports.rename(job.path / "gone")


def test_an_export_of_an_older_model_is_not_taken(session_settings: Settings, tiny_run: JobFolder) -> None:
    made(session_settings, tiny_run, base="lab/older")
    context, config = wanted(session_settings, tiny_run, base="lab/older")
    assert same_export(context, config, source_of(tiny_run)) is not None
    (tiny_run.model / "adapter_config.json").touch()
    assert same_export(context, config, source_of(tiny_run)) is None


def test_files_are_taken_and_the_card_is_new(session_settings: Settings, tiny_run: JobFolder, tmp_path: Any) -> None:
    job = made(session_settings, tiny_run, base="lab/taken")
    context = context_of(
        session_settings, tiny_run, to="folder", what="adapter", base="lab/taken", path=str(tmp_path / "out")
    )
    export(context)
    found = contents(tmp_path / "out")
    assert {name: found[name] for name in FILES if name != "README.md"} == {
        name: data for name, data in FILES.items() if name != "README.md"
    }
    assert (
        found["README.md"].startswith(b"---\nbase_model: ")
        and (job.exports / "README.md").read_bytes() == b"# old card"
    )
    assert (job.exports / "tiny-run-adapter" / "README.md").read_bytes() == b"# old card"
    report = json.loads((context.job.report / "export.json").read_text())
    signed = {part["file"].rpartition("/")[2]: part["sha256"] for part in report["files"][0]["parts"]}
    assert signed == {name: sha256(tmp_path / "out" / name, lambda done: None) for name in FILES}
    assert report["taken_from"] == job.id and report["files"][0]["path"] == str(
        context.job.exports / "tiny-run-adapter"
    )


def test_damaged_files_are_made_anew(session_settings: Settings, tiny_run: JobFolder) -> None:
    job = made(session_settings, tiny_run, base="lab/damaged")
    (job.exports / "tiny-run-adapter" / "adapter_model.safetensors").write_bytes(b"WEIGHTS")
    context, config = wanted(session_settings, tiny_run, base="lab/damaged")
    making = AdapterExport(context, config, open_source(session_settings, tiny_run.id), None)
    assert not take(context, job, making.report)
    assert making.report["files"] == [] and not context.job.exports.exists()

"""The export as a job: report, files, failures that lose nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.errors import InputError, StoppedError, StudioError
from studio.export import files, job, making, source
from studio.export.cards.scores import evaluation_on
from studio.export.ggufs import GgufExport
from studio.export.job import export
from studio.export.proof.gates import gate_of
from studio.export.readme import readme
from studio.export.source import cpu_threads, open_source, texts_from
from studio.export.steps import StepResult
from studio.foreign import parse_yaml
from studio.jobs import JobFolder, read_events
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.settings import ASSETS, Settings
from tests.export.conftest import TYPES

TEST_ROWS = ASSETS / "demo" / "test.jsonl"


def test_report_and_files(exported: JobFolder, report: dict[str, Any]) -> None:
    assert exported.state().status == "completed"
    assert not (exported.path / "work").exists()
    assert sorted(path.name for path in exported.exports.iterdir()) == sorted(
        ["Modelfile", "README.md", *(f"stand-in-{kind}.gguf" for kind in TYPES)]
    )
    for file in report["files"]:
        content = (exported.exports / file["file"]).read_bytes()
        assert file["bytes"] == len(content)
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["exact_match"]["total"] == 1
        assert file["task"] is None, "no evaluation of this run exists"
        assert file["sha256"] in (exported.exports / "README.md").read_text()
    front = parse_yaml((exported.exports / "README.md").read_text().split("---\n")[1])
    assert (front["library_name"], front["pipeline_tag"]) == ("gguf", "text-generation")
    assert "base_model" not in front, "the embedded model has no Hub id"
    assert report["files"][1]["notes"] == [
        "1 of 272 tensors kept at higher precision: width 576 is not a multiple of 256"
    ]
    assert report["merge"]["method"] == "streaming"
    assert report["merge"]["merged"] == 210
    assert report["reference"]["dtype"] == "float32"
    assert report["reference"]["own_text"]
    assert report["peak_memory_bytes"] == max(phase["peak_bytes"] for phase in report["phases"])
    assert 100e6 < report["peak_memory_bytes"] < 3e9


def test_phases_are_visible(exported: JobFolder) -> None:
    events, _ = read_events(exported.events_path, 0, 10_000_000)
    begun = [event["phase"] for event in events if event["kind"] == "phase" and event["state"] == "begin"]
    each = [name for kind in TYPES for name in (f"verifying {kind}", f"evaluating {kind}", "checksums")]
    wanted = ["merging", "converting", "quantizing q4_0", "running the trained model", *each]
    wanted.append("comparing answers")  # the rows that were answered wrongly, by the trained model
    assert begun == wanted
    # The bar of the whole job is divided by these names; a checksum takes no time that would show.
    outline = next(event for event in events if event["kind"] == "outline")
    assert {*outline["seconds"], "checksums"} == set(begun)
    assert [event["values"]["type"] for event in events if event["kind"] == "result"] == TYPES
    assert any(event["kind"] == "phase" and event["phase"] == "merging" and event["total"] == 272 for event in events)


def make_export(settings: Settings, run: JobFolder, **config: Any) -> tuple[JobContext, JobFolder]:
    made = create_job(settings.jobs, "export", "again", {"run": run.id, "types": ["f16"]} | config)
    return JobContext(made, settings), made


@pytest.fixture(scope="module")
def run(adapter: Path, make_run: Callable[[Path], JobFolder]) -> JobFolder:
    return make_run(adapter)


def test_no_disk_is_said_before_anything_is_written(
    session_settings: Settings, run: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda folder: 300_000_000)
    context, made = make_export(session_settings, run)
    with pytest.raises(StudioError) as caught:
        export(context)
    assert "605 MB" in caught.value.what
    assert "300 MB is free" in caught.value.what
    assert str(made.path) == caught.value.where
    assert not made.exports.exists()
    assert (run.model / "adapter_model.safetensors").exists()


def test_a_stop_leaves_no_file_behind(session_settings: Settings, run: JobFolder) -> None:
    context, made = make_export(session_settings, run)
    write_json(made.stop_path, {})
    with pytest.raises(StoppedError):
        export(context)
    assert not (made.path / "work").exists()
    assert list(made.exports.iterdir()) == []


CHAT: dict[str, Any] = {
    "templated": False, "turns": None, "why": "", "compared": 0, "blanks": [], "stops": [], "context": 0,
    "sampling": {}, "system": "", "license": "",
}  # fmt: skip


def test_a_file_that_differs_is_kept_and_the_job_fails(
    session_settings: Settings, run: JobFolder, exported: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes are replaced by their answers, so that the verdict's way is followed and nothing else."""
    answers = {
        "reference": {"dtype": "float32", "positions": 9, "own_text": True, "notes": [], "end": "", "chat": CHAT,
            "begun": True,
        },
        "verify": {
            "overall": {"top1": 0.2, "mean_kl": 3.0, "p99_kl": 9.0}, "answers": None, "prompts_compared": 12,
            "prompts_equal": 12, "template_carried": True, "end_of_turn_stops": True, "differences": [],
        },
    }  # fmt: skip

    def step(module: str, request: Any, folder: Path, watcher: Any, report: Any = None) -> StepResult:
        return StepResult(0, 1.0, 1000, answer=answers[module.rsplit(".", 1)[-1]])

    monkeypatch.setattr(making, "run_own_step", step)
    context, made = make_export(session_settings, run)
    config = job.build(job.ExportConfig, context.config)
    monkeypatch.setattr(GgufExport, "_write", lambda self, tools: self._file("f16").write_bytes(b"weights"))
    with pytest.raises(StudioError, match=r"1 of 1 files differ .*stand-in-f16\.gguf \(mean KL 3 is above 0\.001"):
        GgufExport(context, config, open_source(session_settings, run.id), None).run()
    assert (made.exports / "stand-in-f16.gguf").read_bytes() == b"weights"
    entry = json.loads((made.report / "export.json").read_text())["files"][0]
    assert entry["verdict"] == "differs"
    assert entry["notes"] == ["mean KL 3 is above 0.001", "the same next token in 20.0 %, below 98 %"]


def test_rare_texts_are_notes_and_rows_are_failures(session_settings: Settings, run: JobFolder) -> None:
    context, _ = make_export(session_settings, run)
    made = GgufExport(context, job.build(job.ExportConfig, context.config), open_source(session_settings, run.id), None)
    made.reference = {"dtype": "float32"}
    difference = {
        "prompts": ["row 4"], "rare": True, "kind": "literal", "cause": "llama.cpp takes '</s>' for a token",
        "example": "'</s>'", "fix": "Avoid '</s>' in prompts",
    }  # fmt: skip
    found = {
        "overall": {"top1": 1.0, "mean_kl": 0.0, "p99_kl": 0.0}, "answers": None, "prompts_compared": 13,
        "prompts_equal": 13, "template_carried": True, "end_of_turn_stops": True, "differences": [difference],
    }  # fmt: skip
    entry = made.entry("f16", gate_of("f16"), "as trained", StepResult(0, 1.0, 0, answer=found))
    assert (entry["verdict"], entry["notes"]) == ("as trained", [])
    text = readme("r", "b", [entry | {"file": "r-f16.gguf", "bytes": 1, "sha256": "0"}] * 2, None)
    assert text.count("Avoid '&lt;/s&gt;' in prompts.") == 1, "a reader of Markdown shows the literal"
    found |= {"prompts_equal": 12, "differences": [difference | {"rare": False}]}
    entry = made.entry("f16", gate_of("f16"), "as trained", StepResult(0, 1.0, 0, answer=found))
    assert entry["verdict"] == "differs"
    assert "takes '</s>' for a token" in entry["notes"][0]
    assert "row 4" in entry["notes"][0]
    made.report["files"].append(entry | {"file": "r-f16.gguf"})
    made.phases.append({"peak_bytes": 1})
    with pytest.raises(StudioError) as caught:
        made._conclude()
    assert "Avoid '</s>' in prompts" in caught.value.fix


def test_a_crash_of_llama_cpp_is_a_verdict(session_settings: Settings, run: JobFolder) -> None:
    context, _ = make_export(session_settings, run)
    config = job.build(job.ExportConfig, context.config)
    made = GgufExport(context, config, open_source(session_settings, run.id), None)
    made.reference = {"dtype": "float32"}
    entry = made.entry("f16", gate_of("f16"), "as trained", StepResult(-6, 1.0, 0, ["GGML_ASSERT(...) failed"]))
    assert entry["verdict"] == "differs"
    assert entry["notes"] == ["llama.cpp failed: the process was killed by SIGABRT"]


def test_a_lost_task_is_said_when_the_trained_model_was_measured(session_settings: Settings, run: JobFolder) -> None:
    evaluation = create_job(session_settings.jobs, "evaluate", "e", {"run": run.id, "data": str(TEST_ROWS)})
    evaluation.report.mkdir()
    after = {"correct": 98, "total": 100, "exact_match": 0.98, "seconds": 1.0}
    write_json(
        evaluation.report / "evaluation.json", {"run": run.id, "data": "demo/test.jsonl", "after": after, "rows": []}
    )
    assert evaluation_on(session_settings, run, TEST_ROWS) is None, "it is not completed yet"
    write_state(evaluation.state_path, JobState(status="completed"))
    other = create_job(session_settings.jobs, "evaluate", "f", {"run": run.id, "data": str(TEST_ROWS)})
    other.report.mkdir()
    preferred = {"run": run.id, "data": "demo/test.jsonl", "after": {"preference_accuracy": 0.5, "total": 9}}
    write_json(other.report / "evaluation.json", preferred)
    write_state(other.state_path, JobState(status="completed"))
    context, _ = make_export(session_settings, run, evaluate="demo/test.jsonl")
    config = job.build(job.ExportConfig, context.config)
    made = GgufExport(context, config, open_source(session_settings, run.id), TEST_ROWS)
    assert made.report["trained"] == {"correct": 98, "total": 100, "exact_match": 0.98}
    for correct, task in ((95, "kept"), (94, "lost")):
        entry: dict[str, Any] = {"notes": [], "task": None}
        made._compare_scores(entry, {"correct": correct, "total": 100, "exact_match": correct / 100})
        assert entry["task"] == task
    assert entry["notes"] == ["loses accuracy on the task: 94 of 100 rows right, the trained model 98"]


def test_sources_that_cannot_be_exported(session_settings: Settings, run: JobFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no run 'nothing of the kind'"):
        open_source(session_settings, "nothing of the kind")
    empty = create_job(session_settings.jobs, "train", "empty", {})
    with pytest.raises(InputError, match=r"no trained model \(it is queued\)"):
        open_source(session_settings, empty.id)
    shutil.copytree(run.model, empty.model)
    write_json(empty.environment_path, {"base_model": {"name": "x", "path": str(tmp_path / "gone")}})
    with pytest.raises(InputError, match="base model of run 'empty' is not there"):
        open_source(session_settings, empty.id)


def test_held_out_rows_come_before_training_rows(session_settings: Settings, run: JobFolder, tmp_path: Path) -> None:
    test = ASSETS / "demo" / "test.jsonl"
    assert texts_from(run.training, test, session_settings).path == str(test)
    assert texts_from(run.training, None, session_settings).path == str(ASSETS / "demo" / "validation.jsonl")
    plain = create_job(session_settings.jobs, "train", "plain", {"data": {"validation": 0.1}})
    assert texts_from(plain.training, None, session_settings).path == str(ASSETS / "demo" / "train.jsonl")
    gone = create_job(session_settings.jobs, "train", "gone", {"data": {"train": [{"path": "/gone.jsonl"}]}})
    assert texts_from(gone.training, None, session_settings) is None


def test_threads_are_the_cores_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((1, 1), (8, 8), (96, 16)):
        monkeypatch.setattr(source.os, "sched_getaffinity", lambda pid, cores=cores: set(range(cores)), raising=False)
        assert cpu_threads() == threads


@pytest.mark.long
def test_full_fine_tune_needs_no_merge(
    session_settings: Settings, model_path: Path, make_run: Callable[[Path], JobFolder]
) -> None:
    """The base itself as a full run: what comes out of the f16 file is exactly what went in."""
    full = make_run(model_path)
    context, made = make_export(session_settings, full)
    export(context)
    report = json.loads((made.report / "export.json").read_text())
    assert "merge" not in report
    assert report["files"][0]["verdict"] == "as trained"
    assert report["files"][0]["exact_match"] is None

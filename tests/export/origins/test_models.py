"""A model that no run made is exported: proven against its own answers, and nothing is said of a training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from studio.cli.work.results import export_config
from studio.errors import StudioError
from studio.export.job import export
from studio.jobs import JobFolder, read_events
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.settings import Settings


def exported(settings: Settings, wanted: str, **options: Any) -> tuple[JobFolder, dict[str, Any]]:
    config = export_config(settings, wanted, options)
    job = create_job(settings.jobs, "export", "elsewhere", config.model_dump(mode="json"))
    export(JobContext(job, settings))
    return job, json.loads((job.report / "export.json").read_text())


def said(job: JobFolder) -> str:
    events, _ = read_events(job.events_path, 0, 10_000_000)
    return " ".join(str(event.get("text", "")) for event in events)


@pytest.mark.long
def test_a_folder_becomes_a_gguf(folder: Path, session_settings: Settings, rows_file: Path) -> None:
    job, report = exported(session_settings, str(folder), types=["q8_0"], evaluate=str(rows_file))
    (line,) = report["files"]
    assert (line["file"], line["verdict"]) == ("lab-model-q8_0.gguf", "as expected"), line["notes"]
    assert line["mean_kl"] < 0.02 and line["prompt_ids_equal"] and line["exact_match"]["total"] == 3
    assert (report["run"], report["compared_with"]) == (str(folder), "the original model")
    assert report["license"] == {"license": "apache-2.0"}
    readme = (job.exports / "README.md").read_text()
    front = yaml.safe_load(readme.split("---\n")[1])
    assert (front["base_model"], front["license"], front["tags"]) == ("lab/parent", "apache-2.0", ["finetune-studio"])
    assert "the original model" in readme and "train" not in readme, "nothing is known of a training"
    events, _ = read_events(job.events_path, 0, 10_000_000)
    begun = {event["phase"] for event in events if event["kind"] == "phase" and event["state"] == "begin"}
    outline = next(event for event in events if event["kind"] == "outline")
    assert {*outline["seconds"], "checksums"} == begun, "the bar knows each phase by its name"


@pytest.mark.long
def test_a_folder_becomes_a_checkpoint_in_other_files(folder: Path, session_settings: Settings) -> None:
    job, report = exported(session_settings, str(folder), to="merged", dtype="float32", shard_gb=0.05)
    (line,) = report["files"]
    assert (line["verdict"], line["dtype"], line["file"]) == ("as the original", "float32", "lab-model-merged")
    card = (job.exports / "README.md").read_text()
    assert "This is lab-model, exported from the folder lab-model, weights in float32." in card
    assert "## Compared with the original model" in card and str(folder) not in card
    assert "The license (apache-2.0) and the limitations of the original model apply." in card
    assert "the demo's are used for the comparison" in said(job)


@pytest.mark.long
def test_a_base_model_without_template_and_settings(folder: Path, session_settings: Settings, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    for name in ("chat_template.jinja", "generation_config.json"):
        (bare / name).unlink(missing_ok=True)
    config = json.loads((bare / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    _, report = exported(session_settings, str(bare), types=["f16", "iq4_xs"])
    assert [line["verdict"] for line in report["files"]] == ["as the original", "as expected"]
    assert report["imatrix"]["of"] == "rows" and report["imatrix"]["sources"] == ["demo/train.jsonl"]
    assert "has no chat template" in report["reference"]["notes"][0]
    _, merged = exported(session_settings, str(bare), to="sglang")
    assert merged["files"][0]["verdict"] == "as the original" and merged["serving"]["server"] == "SGLang"


@pytest.mark.long
def test_an_adapter_is_exported_in_every_way(adapter_folder: Path, folder: Path, session_settings: Settings) -> None:
    for options, verdict in (
        ({"to": "adapter", "base": "lab/base"}, "as the original"),
        ({"to": "gguf-lora"}, "as the original"),
        ({"to": "llama-server", "types": ["q8_0"]}, "as expected"),
    ):
        job, report = exported(session_settings, str(adapter_folder), **options)
        assert [line["verdict"] for line in report["files"]] == [verdict], (options, report["files"])
        readme = (job.exports / "README.md").read_text()
        assert str(folder) not in readme and "fine-tuned" not in readme
        assert 'license: "apache-2.0"' in readme, "the base model's"


@pytest.mark.long
def test_the_real_model_goes_into_a_folder(settings: Settings, tmp_path: Path) -> None:
    asked = {"to": "folder", "what": "gguf", "types": ["q4_k_m"], "path": str(tmp_path / "one")}
    _, first = exported(settings, "smollm2-135m-instruct", **asked)
    (line,) = first["files"]
    assert (line["verdict"], line["prompt_ids_equal"], line["template_carried"]) == ("as expected", True, True)
    assert (tmp_path / "one" / "smollm2-135m-instruct-q4_k_m.gguf").stat().st_size == line["bytes"]
    assert first["license"] == {"license": "apache-2.0"}


@pytest.mark.long
def test_a_model_that_transformers_does_not_know_is_one_sentence(
    folder: Path, session_settings: Settings, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(
        json.dumps(config | {"model_type": "labtype", "architectures": ["LabForCausalLM"]})
    )
    for to in ("merged", "gguf"):
        with pytest.raises(StudioError) as raised:
            exported(session_settings, str(copy), to=to)
        assert "labtype" in raised.value.what or "LabForCausalLM" in raised.value.what
        assert "\n" not in raised.value.sentence

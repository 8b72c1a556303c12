"""A merged checkpoint is the trained model, and one that is not is caught: each kind of damage by what proves it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from studio.config.jobs import ExportConfig
from studio.config.load import build
from studio.errors import StoppedError, StudioError
from studio.export import files
from studio.export.job import export
from studio.export.merged import MergedExport, end_answers
from studio.export.proof.greedy import asked_greedily, parted
from studio.export.source import open_source
from studio.jobs import JobFolder, read_events
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.settings import Settings

LAYER = "model.layers.7.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def run(adapter: Path, make_run: Callable[[Path], JobFolder]) -> JobFolder:
    return make_run(adapter)


def make(settings: Settings, run: JobFolder, **config: Any) -> JobContext:
    asked = {"run": run.id, "to": "merged", "dtype": "float32"} | config
    return JobContext(create_job(settings.jobs, "export", "merged", asked), settings)


@pytest.fixture(scope="module")
def merged(session_settings: Settings, run: JobFolder, rows_file: Path) -> JobFolder:
    """A finished export in float32."""
    context = make(session_settings, run, evaluate=str(rows_file), shard_gb=0.2)
    export(context)
    return context.job


@pytest.fixture(scope="module")
def entry(merged: JobFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((merged.report / "export.json").read_text())["files"][0]
    return found


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: one for file in folder.glob("*.safetensors") for name, one in load_file(file).items()}


@pytest.mark.long
def test_it_is_pefts_merge_to_the_last_bit(merged: JobFolder, model_path: Path, adapter: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload(safe_merge=True).state_dict()
    ours = tensors(merged.exports / "stand-in-merged")
    assert len(ours) == 272
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.long
def test_it_is_proven(merged: JobFolder, entry: dict[str, Any]) -> None:
    assert (entry["type"], entry["dtype"], entry["verdict"], entry["notes"]) == ("merged", "float32", "as trained", [])
    assert entry["mean_kl"] < 1e-4 and entry["top1"] > 0.99
    assert entry["prompt_ids_equal"] and entry["prompts_compared"] >= 12
    assert entry["template_carried"] and entry["end_of_turn_stops"]
    assert (entry["greedy"]["equal"], entry["greedy"]["total"]) == (8, 8)
    assert entry["exact_match"]["total"] == 3


@pytest.mark.long
def test_its_folder_has_what_its_users_expect(merged: JobFolder, entry: dict[str, Any], model_path: Path) -> None:
    folder = merged.exports / "stand-in-merged"
    assert entry["path"] == str(folder)
    assert {part["file"] for part in entry["parts"]} == {
        f"stand-in-merged/{path.relative_to(folder)}" for path in folder.rglob("*") if path.is_file()
    }
    assert entry["bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (model_path / name).read_bytes()
    assert len(list(folder.glob("*.safetensors"))) > 2 and (folder / "model.safetensors.index.json").is_file()
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 2  # <|im_end|>
    card = (folder / "README.md").read_text()
    assert "This is smollm2-135m-instruct, fine-tuned" in card and "| verdict | as trained |" in card
    assert (merged.exports / "README.md").read_text() == card
    assert not (merged.path / "work").exists()


@pytest.mark.long
def test_the_phases_are_those_that_were_foretold(merged: JobFolder) -> None:
    events, _ = read_events(merged.events_path, 0, 10_000_000)
    begun = {event["phase"] for event in events if event["kind"] == "phase" and event["state"] == "begin"}
    outline = next(event for event in events if event["kind"] == "outline")
    assert {*outline["seconds"], "checksums"} == begun


# What is damaged in a finished folder, and a word of what is said of it.
DAMAGES: dict[str, str] = {
    "a transposed tensor": "mean KL",
    "a dropped adapter": "no closer to the trained model than the base model",
    "an adapter scaled twice": "mean KL",
    "a wrong rope": "mean KL",
    "a wrong template": "chat template",
    "no end of turn": "end-of-turn",
    "another tokenizer": "other ids",
}


def damage(what: str, folder: Path, base: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    if what in ("a transposed tensor", "a dropped adapter", "an adapter scaled twice"):
        before = tensors(base)
        for file in folder.glob("*.safetensors"):
            held = load_file(file)
            if what == "a transposed tensor":
                held = {name: one.T.contiguous() if name == LAYER else one for name, one in held.items()}
            elif what == "a dropped adapter":
                held = {name: before[name].float() for name in held}
            else:
                held = {name: one + (one - before[name].float()) for name, one in held.items()}
            save_file(held, file, metadata={"format": "pt"})
    elif what == "a wrong rope":
        config["rope_parameters"] = {**(config.get("rope_parameters") or {}), "rope_theta": 500.0}
        config["rope_theta"] = 500.0
        write_json(folder / "config.json", config)
    elif what == "a wrong template":
        for path in folder.glob("*"):
            if path.name in ("chat_template.jinja", "tokenizer_config.json"):
                path.write_text(path.read_text().replace("<|im_start|>assistant", "<|im_start|>user"))
    elif what == "no end of turn":
        generation = json.loads((folder / "generation_config.json").read_text())
        write_json(folder / "generation_config.json", generation | {"eos_token_id": 0})
    else:
        state = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = state["model"]["vocab"]
        one, other = [word for word in vocabulary if word.isalpha() and vocabulary[word] > 300][:2]
        state["model"]["vocab"] |= {one: vocabulary[other], other: vocabulary[one]}
        state["model"]["merges"] = state["model"]["merges"][:2000]
        write_json(folder / "tokenizer.json", state)


@pytest.mark.long
@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_caught(
    what: str, session_settings: Settings, run: JobFolder, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make(session_settings, run)
    config = build(ExportConfig, context.config, "job.yaml")
    made = MergedExport(context, config, open_source(session_settings, run.id), None)
    original = MergedExport.refer

    def refer(self: MergedExport, answers: bool = False) -> None:
        original(self, answers)
        end_answers(self.folder, self.reference["ends"])
        damage(what, self.folder, model_path)

    monkeypatch.setattr(MergedExport, "refer", refer)
    monkeypatch.setattr("studio.export.merged.end_answers", lambda folder, ends: None)
    with pytest.raises(StudioError, match="differ"):
        made.run()
    (line,) = json.loads((context.job.report / "export.json").read_text())["files"]
    assert line["verdict"] == "differs" and DAMAGES[what] in " ".join(line["notes"]), line["notes"]
    assert (context.job.exports / line["file"]).is_dir(), "what differs is kept"
    shutil.rmtree(context.job.exports)


def test_an_answer_that_parts_is_judged_by_how_sure_the_model_was() -> None:
    trained = {"ids": [5, 6], "likeliest": [[(5, -0.1), (7, -2.5)], [(6, -0.7), (8, -0.72)]]}
    assert parted(trained, [5, 6]) is None
    assert parted(trained, [5, 8]) == pytest.approx(0.02)
    assert parted(trained, [7, 6]) == pytest.approx(2.4)
    assert parted(trained, [9, 6]) == pytest.approx(2.4), "no likelier than the last that is known"
    assert parted(trained, [5, 6, 1]) == float("inf"), "it did not end"
    assert parted(trained, [5]) == pytest.approx(0.02), "it ended before"


def test_rows_come_first_and_rare_texts_are_not_asked() -> None:
    prompts = [{"name": name, "ids": [1], "rare": name == "rare"} for name in ("system", "rare", "row 1", "row 2")]
    assert [name for name, _ in asked_greedily(prompts)] == ["row 1", "row 2", "system"]


@pytest.mark.parametrize("known", [None, {"eos_token_id": 7, "temperature": 0.2}])
def test_the_ends_of_answers_are_written(known: dict[str, Any] | None, tmp_path: Path) -> None:
    if known is not None:
        write_json(tmp_path / "generation_config.json", known)
    end_answers(tmp_path, [2, 7])
    assert json.loads((tmp_path / "generation_config.json").read_text()) == (known or {}) | {"eos_token_id": [2, 7]}


def test_no_disk_is_said_before_anything_is_written(
    session_settings: Settings, run: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda folder: 300_000_000)
    context = make(session_settings, run)
    with pytest.raises(StudioError, match="the merged checkpoint needs"):
        export(context)
    assert not context.job.exports.exists()


def test_a_stop_leaves_no_folder_behind(session_settings: Settings, run: JobFolder) -> None:
    context = make(session_settings, run)
    write_json(context.job.stop_path, {})
    with pytest.raises(StoppedError):
        export(context)
    assert not (context.job.path / "work").exists() and list(context.job.exports.iterdir()) == []

"""The card of an export: front matter that YAML reads, the figures of the run and of its evaluation, and no secrets."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from studio.config import RunConfig
from studio.config.jobs import ExportConfig
from studio.export.card import KNOWN, UNKNOWN, model_card
from studio.export.cards.curves import Losses, draw_curves, losses_of
from studio.export.cards.front import front_matter
from studio.export.cards.license import license_of, told
from studio.export.cards.scores import evaluation_of, evaluation_on, results
from studio.export.origins.run import RunOrigin
from studio.export.reporting.beginning import beginning
from studio.export.source import Source
from studio.jobs import JobFolder
from studio.jobs.store.events import EventWriter
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.settings import ASSETS, Settings
from tests.ui.made_jobs import made_evaluation, made_preference

BASE = "lab/base"
ENTRY: dict[str, Any] = {
    "type": "merged", "dtype": "bfloat16", "greedy": {"equal": 7, "total": 8}, "prompts_compared": 12, "top1": 0.998,
    "prompt_ids_equal": True, "mean_kl": 0.00012, "exact_match": {"correct": 98, "total": 100}, "verdict": "as trained",
    "notes": [],
}  # fmt: skip
SETS = {
    "data": {
        "train": [{"path": "/home/ada/private/orders.jsonl"}, {"path": "org/rows"}], "validation": 0.1,
        "system": "You are the secret helper of ada.",
    },
    "method": {"name": "sft"}, "tuning": {"name": "lora", "rank": 32}, "training": {"epochs": 2.0, "seed": 7},
}  # fmt: skip
SOURCES = [
    {"path": "/home/ada/private/orders.jsonl", "part": "train", "kept": 1200, "tokens": 90_000, "commit": ""},
    {"path": "org/rows", "part": "train", "kept": 300, "tokens": 10_500, "commit": "abc"},
    {"path": "/home/ada/private/held.jsonl", "part": "validation", "kept": 50, "tokens": 4000, "commit": ""},
]  # fmt: skip


@pytest.fixture
def run(settings: Settings) -> JobFolder:
    """A run on a file of somebody's home and on a set of the Hub."""
    config = RunConfig.model_validate(SETS).model_dump(mode="json")
    made = create_job(settings.jobs, "train", "orders", config)
    made.model.mkdir()
    (made.model / "adapter_config.json").write_text('{"r": 32}')
    written = time.time() - 3600  # an evaluation that began before is of an older model
    os.utime(made.model / "adapter_config.json", (written, written))
    write_json(made.environment_path, {
        "base_model": {"name": f"{BASE}@main", "path": "/home/ada/.studio/models/hub--lab--base", "source": "hub"},
        "data": {
            "sources": SOURCES, "train_rows": 1500, "validation_rows": 50, "tokens": 104_500,
            "supervised_tokens": 33_000,
        },
        "plan": {"choices": {"training.learning_rate": {"value": 0.0002}}},
        "versions": {"transformers": "5.23.0", "torch": "2.13.0", "python": "3.11.9"},
    })  # fmt: skip
    write_state(made.state_path, JobState(status="completed"))
    return made


def card_of(run: JobFolder, **report: Any) -> tuple[str, dict[str, Any]]:
    known = {"name": "orders", "base_model": f"{BASE}@main", "reference": {"positions": 512}} | report
    text = model_card(RunOrigin(run), known, ENTRY | report.pop("entry", {}))
    return text, yaml.safe_load(text.split("---\n")[1])


def test_the_front_matter_is_what_the_hub_reads(run: JobFolder, settings: Settings) -> None:
    made_evaluation(settings.jobs, run)
    text, front = card_of(run, license={"license": "mit"}, evaluation=evaluation_of(settings, run))
    assert front == {
        "base_model": BASE, "base_model_relation": "finetune", "library_name": "transformers",
        "pipeline_tag": "text-generation", "tags": ["finetune-studio", "sft", "lora"], "license": "mit",
        "datasets": ["org/rows"],
        "model-index": [{"name": "orders", "results": [{
            "task": {"type": "text-generation", "name": "Text generation"},
            "dataset": {"name": "test.jsonl", "type": "test.jsonl"},
            "metrics": [{"type": "exact_match", "name": "Exact match", "value": 0.96}],
        }]}],
    }  # fmt: skip
    (result,) = ModelCard(text).data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("exact_match", 0.96, "test.jsonl")
    assert "language" not in front


def test_an_adapter_is_one_of_its_base(run: JobFolder) -> None:
    _, front = card_of(run, entry={"type": "adapter"})
    assert (front["base_model_relation"], front["library_name"]) == ("adapter", "peft")


def test_data_and_settings_are_told_and_nothing_of_this_machine(run: JobFolder) -> None:
    text, _ = card_of(run, entry={"notes": ["it was compared on /home/ada/.studio/models/hub--lab--base; and so on"]})
    for line in (
        "| orders.jsonl | training | 1,200 | 90,000 |", "| org/rows | training | 300 | 10,500 |",
        "| held.jsonl | validation | 50 | 4,000 |",
        "1,500 rows for training and 50 for validation. Together 104,500 tokens, of which the loss counts 33,000.",
        "`tuning.rank` | 32 |", "`training.seed` | 7 |", "`training.epochs` | 2 |", "`method.name` | sft |",
        "`training.learning_rate` | auto (0.0002) |", "`data.system` | set |", "`training.batch_size` | ",
        "transformers 5.23.0, torch 2.13.0, python 3.11.9", "it was compared on hub--lab--base; and so on.",
        "This is lab/base, fine-tuned (", "base model and adapter merged, weights in bfloat16",
    ):  # fmt: skip
        assert line in text, line
    for secret in ("/home", "secret helper", "private"):
        assert secret not in text, secret
    assert "`training.weight_decay`" not in text, "what is at its default is not told"


def test_a_full_fine_tune_has_nothing_merged(run: JobFolder) -> None:
    (run.model / "adapter_config.json").unlink()
    text, _ = card_of(run)
    assert "adapter merged" not in text and "orders.jsonl, org/rows, weights in bfloat16." in text


def test_the_license_is_told_or_said_to_be_unknown(run: JobFolder, tmp_path: Path) -> None:
    text, front = card_of(run)
    assert UNKNOWN.format(whose="the base model") in text and "license" not in front
    text, front = card_of(run, license={"license": "other", "license_name": "lab-1.0", "license_link": "https://x.org"})
    assert KNOWN.format(license="lab-1.0", whose="the base model") in text and front["license_link"] == "https://x.org"
    base = tmp_path / "base"
    base.mkdir()
    assert license_of(base, {"name": BASE}) == {} and license_of(None, {}) == {}
    (base / "studio.json").write_text(json.dumps({"hub": BASE, "license": "gemma"}))
    assert license_of(base, {"name": BASE}) == {"license": "gemma"}
    (base / "README.md").write_text("---\nlicense: Apache License, Version 2\n---\n")
    assert license_of(base, {"name": BASE}) == {"license": "gemma"}, "a license that the Hub would refuse is none"
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: x\nlicense_link: LICENSE\n---\n# x\n")
    link = "https://huggingface.co/lab/base/blob/main/LICENSE"
    assert license_of(base, {"name": f"{BASE}@v1"}) == {"license": "other", "license_name": "x", "license_link": link}
    assert license_of(base, {"name": "/home/x"}) == {"license": "other", "license_name": "x"}
    for broken in ("---\n[: {\n---\n", "---\n- a\n---\n", "no front", "---\nlicense: [mit]\n---\n"):
        (base / "README.md").write_text(broken)
        assert license_of(base, {"name": BASE}) == {"license": "gemma"}
    assert license_of(base, {"name": "smollm2-135m-instruct", "source": "embedded"}) == {"license": "apache-2.0"}
    assert told({"license": "mit", "license_link": "javascript:alert(1)"}, BASE)["license_link"].startswith("https://")


@pytest.mark.parametrize("base", ["/home/ada/models/x", "smollm2-135m-instruct", "", "a/b/c"])
def test_a_base_that_is_no_hub_id_is_left_out(base: str, run: JobFolder) -> None:
    text, front = card_of(run, base_model=base)
    assert "base_model" not in front and "base_model_relation" not in front and "/home" not in text


def test_the_evaluation_stands_beside_that_before_training(run: JobFolder, settings: Settings) -> None:
    assert evaluation_of(settings, run) is None and results(None) == []
    made_evaluation(settings.jobs, run)
    text, _ = card_of(run, evaluation=evaluation_of(settings, run))
    assert "25 rows of test.jsonl." in text and "| Exact match | 0.0% (0 of 25) | 96.0% (24 of 25) |" in text
    time.sleep(1.1)  # the newest counts; a job's name has its second
    made_preference(settings.jobs, run)
    text, front = card_of(run, evaluation=evaluation_of(settings, run))
    assert "| Preference accuracy | 0.0% | 91.7% |" in text
    (metric,) = front["model-index"][0]["results"][0]["metrics"]
    assert metric == {"type": "preference_accuracy", "name": "Preference accuracy", "value": 0.916667}


def test_an_evaluation_of_some_rows_or_of_another_run_does_not_count(run: JobFolder, settings: Settings) -> None:
    other = made_evaluation(settings.jobs, run)
    report = json.loads((other.report / "evaluation.json").read_text())
    write_json(other.report / "evaluation.json", report | {"run": "another"})
    assert evaluation_of(settings, run) is None


def test_an_evaluation_of_an_older_model_does_not_count(run: JobFolder, settings: Settings) -> None:
    made_evaluation(settings.jobs, run)
    assert evaluation_of(settings, run) is not None
    assert evaluation_on(settings, run, ASSETS / "demo" / "test.jsonl") is not None
    (run.model / "adapter_config.json").touch()
    assert evaluation_of(settings, run) is None
    assert evaluation_on(settings, run, ASSETS / "demo" / "test.jsonl") is None


@pytest.mark.parametrize("text", ["[" * 60 + "]" * 60, "{", "[]"])
def test_an_evaluation_that_cannot_be_read_stops_no_export(run: JobFolder, settings: Settings, text: str) -> None:
    made_evaluation(settings.jobs, run)
    time.sleep(1.1)  # the broken one is looked at first
    (made_evaluation(settings.jobs, run).report / "evaluation.json").write_text(text)
    found = evaluation_of(settings, run)
    assert found is not None and found["after"]["total"] == 25
    assert evaluation_on(settings, run, ASSETS / "demo" / "test.jsonl") is not None


@pytest.mark.parametrize("step", [None, 98])
def test_a_checkpoint_has_no_score_of_the_run(run: JobFolder, settings: Settings, step: int | None) -> None:
    made_evaluation(settings.jobs, run)
    source = Source(RunOrigin(run), None, run.model, run.model, run.model, step)
    config = ExportConfig(run=run.id, to="adapter", checkpoint=step)
    report = beginning(settings, config, source, ASSETS / "demo" / "test.jsonl")
    assert (report["evaluation"] is None, report["trained"] is None) == (step is not None, step is not None)


def test_curves_are_those_of_the_events(run: JobFolder, tmp_path: Path) -> None:
    writer = EventWriter(run.events_path)
    for step, loss in ((1, 3.0), (2, 2.0), (3, 1.9)):
        writer.write("metric", step=step, values={"loss": loss})
    writer.write("metric", step=3, values={"eval_loss": 2.2})
    writer.write("resume", step=2)
    writer.write("metric", step=3, values={"loss": 1.5, "eval_loss": "nan"})
    writer.write("metric", step=4, values={"loss": 1.0, "eval_loss": 1.1})
    writer.close()
    losses = losses_of(run)
    assert losses == Losses([(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)], [(4, 1.1)])
    assert losses.sentence() == (
        "training loss from 3 at step 1 to 1 at step 4 and validation loss from 1.1 at step 4 to 1.1 at step 4"
    )
    draw_curves(losses, tmp_path / "curves.png")
    image = Image.open(tmp_path / "curves.png").convert("RGB")
    assert image.size == (880, 420)
    train, validation = drawn(image, (79, 70, 229)), drawn(image, (194, 65, 12))
    assert min(train)[0] < 80 and min(train)[1] < 120 and max(train)[0] > 840 and max(train)[1] > 300, "it falls"
    assert validation and min(validation)[0] > 840, "one point at the last step"
    text, _ = card_of(run, curves={"file": "curves.png", "sentence": losses.sentence()})
    assert "![Loss by step: training loss from 3 at step 1" in text and "](curves.png)" in text


def drawn(image: Image.Image, color: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Places in the plot that have about this color: edges are smoothed."""
    return [
        (x, y) for x in range(64, 880) for y in range(48, 376)
        if sum(abs(one - other) for one, other in zip(image.getpixel((x, y)), color, strict=True)) < 30
    ]  # fmt: skip


@pytest.mark.parametrize("points", [[(1, 0.0), (2, 0.0)], [(1, 1e-9), (90_000, 1e6)], [(5, -2.0), (6, -1.5)]])
def test_any_losses_can_be_drawn(points: list[tuple[int, float]], tmp_path: Path) -> None:
    draw_curves(Losses(points), tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size == (880, 420)


def test_words_that_yaml_reads_otherwise_are_quoted() -> None:
    words = ["yes", "null", "1e3", "a: b", "# x", "- y", "é\n", "lora", "0x1f"]
    front = yaml.safe_load(front_matter("", "finetune", "peft", words, {}, [], [], "x").split("---\n")[1])
    assert front["tags"] == ["finetune-studio", *words]

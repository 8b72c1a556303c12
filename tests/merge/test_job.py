"""A merge as a job: the child is a model of the studio, and whatever ends a merge leaves a whole child or none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.chat.ask import job_target
from studio.config.jobs import usual_rows
from studio.errors import InputError, StoppedError
from studio.export.source import open_source
from studio.jobs import JobFolder, find_job, read_events
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.merge.asking import prepare
from studio.merge.job import merge
from studio.settings import Settings
from studio.train.runs import find_model, whole_run
from tests.merge.made import home_at, put_run, tensors

LAYER = "model.layers.1.mlp.up_proj.weight"


def queue(settings: Settings, text: dict[str, Any], name: str = "child", **options: Any) -> JobFolder:
    config = prepare(json.dumps(text), settings, **options).config
    return create_job(settings.jobs, "merge", name, config.model_dump(mode="json"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("merges") / "home @ + 1"  # of signs that mergekit reads into a path
    return home_at(folder)


@pytest.fixture(scope="module")
def child(home: Settings, base: Path, one: Path, make_adapter: Callable[..., Path]) -> JobFolder:
    """A run's adapter and a folder, merged by the process that the studio starts."""
    put_run(home, "orders", make_adapter(5, base), base, method={"name": "sft"})
    models = [{"model": "orders", "parameters": {"weight": 0.25}}, {"model": str(one), "parameters": {"weight": 0.75}}]
    job = queue(home, {"merge_method": "linear", "models": models})
    with job.log_path.open("w") as log:
        done = subprocess.run(
            [sys.executable, "-m", "studio.merge", str(job.path)], stdout=log, stderr=log, timeout=300,
            env={**os.environ, "STUDIO_HOME": str(home.home)},
        )  # fmt: skip
    assert done.returncode == 0, job.log_path.read_text()[-3000:]
    return job


@pytest.fixture(scope="module")
def report(child: JobFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((child.report / "merge.json").read_text())
    return found


def test_the_child_is_the_mean_of_the_merged_run_and_the_folder(child: JobFolder, home: Settings, one: Path) -> None:
    from peft import PeftModel

    source = open_source(home, "orders")
    loaded = AutoModelForCausalLM.from_pretrained(source.base, dtype=torch.float32)
    run = PeftModel.from_pretrained(loaded, str(source.adapter)).merge_and_unload().state_dict()
    made, other = tensors(child.model), tensors(one)
    for name in (LAYER, "model.embed_tokens.weight"):
        torch.testing.assert_close(made[name], 0.25 * run[name] + 0.75 * other[name], rtol=1e-5, atol=1e-7)
    assert not torch.allclose(run[LAYER], tensors(source.base)[LAYER]), "the adapter changes something"  # type: ignore[arg-type]


def test_its_folder_is_that_of_a_whole_model(child: JobFolder, model_path: Path, home: Settings) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (child.model / name).read_bytes() == (model_path / name).read_bytes()
    assert json.loads((child.model / "config.json").read_text())["dtype"] == "float32"
    card = (child.model / "README.md").read_text()
    assert "the weighted mean of the models" in card and "| orders |" in card
    assert not (child.path / "work").exists() and not (child.path / ".model.new").exists()


def test_the_report_says_what_was_merged(child: JobFolder, report: dict[str, Any], home: Settings, one: Path) -> None:
    run = find_job(home.jobs, "orders", "train")
    assert [(parent["kind"], parent["id"]) for parent in report["parents"]] == [("run", run.id), ("folder", str(one))]
    assert json.loads(report["recipe"])["models"][0]["model"] == "orders"
    assert "parents/1" in report["merged_recipe"] and "dtype: float32" in report["merged_recipe"]
    assert [phase["phase"] for phase in report["phases"]] == ["merging the adapter of orders", "merging"]
    assert all(phase["seconds"] > 0 and phase["peak_bytes"] > 0 for phase in report["phases"])
    environment = child.environment()
    assert environment["base_model"]["name"] == "the base" and environment["versions"]["mergekit"] != "not installed"


def test_its_progress_is_seen(child: JobFolder) -> None:
    events, _ = read_events(child.events_path, 0, 10_000_000)
    merging = [event for event in events if event["kind"] == "phase" and event["phase"] == "merging"]
    assert merging[-1]["state"] == "end" and merging[-1]["total"] > 50 and merging[-1]["unit"] == "operations"
    outline = next(event for event in events if event["kind"] == "outline")
    assert {*outline["seconds"]} < {event["phase"] for event in events if event["kind"] == "phase"}
    assert "Executing graph" not in child.log_path.read_text()


def test_it_is_a_run_to_chat_evaluation_export_and_training(child: JobFolder, home: Settings, base: Path) -> None:
    target = job_target(child, home)
    assert (target.tuned, target.adapter, target.model) == (child.model, None, base)
    source = open_source(home, "child")
    assert (source.origin.id, source.adapter, source.weights) == (child.id, None, child.model)
    assert usual_rows(child.training) == "demo/test.jsonl" and child.training["method"] == {"name": "sft"}
    assert find_model("child", home, "tuning.adapter") == child.model
    assert whole_run("child", home) == JobFolder(child.path)
    with pytest.raises(InputError, match="made an adapter, which is no model by itself"):
        whole_run("orders", home)


def test_it_answers(child: JobFolder) -> None:
    tokenizer = AutoTokenizer.from_pretrained(child.model)
    model = AutoModelForCausalLM.from_pretrained(child.model)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], return_tensors="pt", return_dict=True)
    out = model.generate(**ids, max_new_tokens=4, do_sample=False)
    assert out.shape[1] > ids["input_ids"].shape[1]


def run_here(settings: Settings, job: JobFolder) -> JobFolder:
    merge(JobContext(job, settings))
    return job


@pytest.mark.long
def test_one_run_is_merged_into_its_base(home: Settings, child: JobFolder, base: Path) -> None:
    from peft import PeftModel

    job = run_here(home, queue(home, {"models": [{"model": "orders"}]}, "whole"))
    source = open_source(home, "orders")
    loaded = AutoModelForCausalLM.from_pretrained(source.base, dtype=torch.float32)
    expected = PeftModel.from_pretrained(loaded, str(source.adapter)).merge_and_unload().state_dict()
    made = tensors(job.model)
    assert [name for name in made if not torch.equal(made[name], expected[name])] == []
    assert open_source(home, str(job.path)).adapter is None


@pytest.mark.long
def test_a_child_is_a_parent(home: Settings, child: JobFolder, one: Path) -> None:
    write_state(child.state_path, JobState(status="completed"))
    text = {
        "merge_method": "slerp", "base_model": "child", "models": [{"model": "child"}, {"model": str(one)}],
        "parameters": {"t": 1}, "out_dtype": "bfloat16",
    }  # fmt: skip
    job = run_here(home, queue(home, text, "grandchild"))
    made, other = tensors(job.model), tensors(one)
    assert made[LAYER].dtype == torch.bfloat16
    assert torch.equal(made[LAYER], other[LAYER].bfloat16())
    assert json.loads((job.model / "config.json").read_text())["dtype"] == "bfloat16"
    assert job.training["method"] == {"name": "sft"}, "that of the run that the child was made of"


@pytest.mark.long
def test_slices_change_the_number_of_layers(home: Settings, child: JobFolder, one: Path, two: Path) -> None:
    text = {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": str(one), "layer_range": [0, 2]}]},
            {"sources": [{"model": str(two), "layer_range": [1, 2]}]},
        ],
    }
    job = run_here(home, queue(home, text, "stack"))
    assert json.loads((job.model / "config.json").read_text())["num_hidden_layers"] == 3
    loaded = AutoModelForCausalLM.from_pretrained(job.model)
    assert len(loaded.model.layers) == 3
    assert torch.equal(loaded.model.layers[2].mlp.up_proj.weight, tensors(two)["model.layers.1.mlp.up_proj.weight"])


def longer(folder: Path, target: Path) -> Path:
    """A model whose vocabulary has one more token than that of another one."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens("<one more>")
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


@pytest.mark.long
def test_vocabularies_are_united_where_the_recipe_says_so(
    home: Settings, child: JobFolder, one: Path, two: Path, tmp_path: Path
) -> None:
    other = longer(two, tmp_path / "longer")
    models = [{"model": str(folder), "parameters": {"weight": 1}} for folder in (one, other)]
    with pytest.raises(InputError, match=r"different vocabulary sizes: 49152 in .*, 49153 in"):
        prepare(json.dumps({"merge_method": "linear", "models": models}), home)
    text = {"merge_method": "linear", "models": models, "tokenizer": {"source": "union"}}
    job = run_here(home, queue(home, text, "united"))
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    config = json.loads((job.model / "config.json").read_text())
    assert config["vocab_size"] == len(tokenizer) == 49153
    loaded = AutoModelForCausalLM.from_pretrained(job.model)
    assert loaded.get_input_embeddings().weight.shape[0] == 49153
    number, name = tokenizer.convert_tokens_to_ids("<one more>"), "model.embed_tokens.weight"
    torch.testing.assert_close(tensors(job.model)[name][number], tensors(other)[name][49152])
    torch.testing.assert_close(tensors(job.model)[LAYER], (tensors(one)[LAYER] + tensors(other)[LAYER]) / 2)


@pytest.mark.long
def test_the_recipe_chooses_the_template(
    home: Settings, child: JobFolder, one: Path, two: Path, model_path: Path
) -> None:  # fmt: skip
    models = [{"model": str(folder), "parameters": {"weight": 1}} for folder in (one, two)]
    job = run_here(home, queue(home, {"merge_method": "linear", "models": models, "chat_template": "alpaca"}, "alpaca"))
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    said = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert "### Instruction:" in said and "<|im_start|>" not in said
    assert (job.model / "tokenizer.json").read_bytes() == (model_path / "tokenizer.json").read_bytes()


def test_a_stop_leaves_no_model(home: Settings, child: JobFolder, one: Path, two: Path) -> None:
    models = [{"model": str(folder), "parameters": {"weight": 1}} for folder in (one, two)]
    job = queue(home, {"merge_method": "linear", "models": models}, "stopped")
    write_json(job.stop_path, {})
    with pytest.raises(StoppedError, match="the merge was stopped"):
        run_here(home, job)
    assert not job.model.exists() and not (job.path / "work").exists()


@pytest.mark.long
@pytest.mark.parametrize("wait", ["merging", "saving"])
def test_a_kill_leaves_a_whole_model_or_none(wait: str, home: Settings, child: JobFolder, one: Path, two: Path) -> None:
    models = [{"model": str(folder), "parameters": {"weight": 1}} for folder in (one, two)]
    job = queue(home, {"merge_method": "linear", "models": models}, "killed")
    with job.log_path.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "studio.merge", str(job.path)], stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "STUDIO_HOME": str(home.home)},
        )  # fmt: skip
        end = time.monotonic() + 120
        while f"  {wait}" not in job.log_path.read_text() and time.monotonic() < end:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert f"  {wait}" in job.log_path.read_text()
    whole = [path for path in (job.model / "model.safetensors", job.model / "config.json") if path.is_file()]
    assert len(whole) in (0, 2)
    if whole:
        assert tensors(job.model).keys() == tensors(one).keys()


@pytest.mark.long
def test_a_full_disk_is_a_sentence_and_leaves_no_model(
    home: Settings, child: JobFolder, one: Path, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step writes as much as it may, a limit of the process standing in for the end of the disk."""
    import resource

    models = [{"model": str(folder), "parameters": {"weight": 1}} for folder in (one, two)]
    job = queue(home, {"merge_method": "linear", "models": models}, "full")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, before[1]))
        with pytest.raises(Exception, match=r"could not be written|merging failed|File too large") as error:
            run_here(home, job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "Traceback" not in str(error.value)
    assert not job.model.exists() and not (job.path / "work").exists()

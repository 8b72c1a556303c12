"""`studio merge`: a check without a merge, wrong recipes as sentences, and a merge that is left to the studio."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from studio.cli.main import main
from studio.jobs import list_jobs
from studio.models.inspect.tokenizerfiles import copy_tokenizer
from studio.settings import Settings
from tests.merge.made import SIZES, put_run

Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture(scope="module")
def tiny(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(folder)
    copy_tokenizer(model_path, folder)
    return folder


@pytest.fixture
def run(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("studio.jobs.actions.client.ensure_supervisor", lambda settings: None)

    def call(*arguments: str) -> tuple[int, dict[str, Any], str]:
        code = main(["merge", *arguments, "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out.strip() else {}, said.err

    return call


def test_a_recipe_is_checked_without_a_merge(run: Run, settings: Settings, tiny: Path, tmp_path: Path) -> None:
    job = put_run(settings, "orders", tiny, tiny)
    file = tmp_path / "mean.yaml"
    file.write_text(
        f"merge_method: linear\nparameters: {{weight: 1}}\nmodels: [{{model: orders}}, {{model: {tiny}}}]\n"
    )
    code, values, _ = run(str(file), "--check")
    assert code == 0 and values["parents"] == {"orders": job.id, str(tiny): str(tiny)} and values["seconds"] > 0
    assert [one.id for one in list_jobs(settings.jobs)] == [job.id]
    code, values, _ = run(str(file), "--detach")
    made = next(one for one in list_jobs(settings.jobs) if one.id == values["id"])
    assert (made.request.kind, made.request.name) == ("merge", "mean")
    assert made.request.config["recipe"] == file.read_text() and made.state().status == "queued"


def test_a_sweep_is_checked_and_left_to_the_studio(run: Run, settings: Settings, tiny: Path, tmp_path: Path) -> None:
    file, rows = tmp_path / "one.yaml", tmp_path / "rows.jsonl"
    file.write_text(f"merge_method: passthrough\nmodels: [{{model: {tiny}, parameters: {{scale: 1}}}}]\n")
    rows.write_text('{"prompt": "Hi", "completion": "Hello"}\n')
    words = (str(file), "--sweep", "models.0.parameters.scale=0.5,1", "--evaluate", str(rows))
    code, values, _ = run(*words, "--check")
    assert code == 0 and values["values"] == [0.5, 1.0] and values["bytes"] > 2e6 and not list_jobs(settings.jobs)
    code, values, _ = run(*words, "--detach")
    jobs = list_jobs(settings.jobs)
    assert code == 0 and sorted(values["ids"]) == sorted(job.id for job in jobs) and len(jobs) == 2
    assert {job.request.group for job in jobs} == {values["group"]}
    assert {job.request.config["asked_by"] for job in jobs} == {None, values["ids"][0]}
    code, values, _ = run(*words[:3])
    assert code == 2 and "compares its children on rows" in values["error"]["what"]


WRONG = {
    "no file": ("{folder}/none.yaml", "", "there is no such file"),
    "a folder": ("{folder}", "", "this is a folder"),
    "a recipe that makes no sense": ("{folder}/r.yaml", "merge_method: ties\nmodels: [{model: a}]", "needs a base"),
    "no such run": ("{folder}/r.yaml", "models: [{model: nobody}]", "there is no run or model 'nobody'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_a_sentence_and_exit_code_2(name: str, run: Run, tmp_path: Path) -> None:
    file, text, said = WRONG[name]
    (tmp_path / "r.yaml").write_text(text)
    code, values, err = run(file.format(folder=tmp_path))
    assert code == 2 and said in values["error"]["sentence"] and said in err and "Traceback" not in err

"""A YAML file of a stranger, loaded on the page: it runs nothing, names no place to write to, and does not hang it."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from tests.security.conftest import Handlers

SECONDS = 10.0
CODE = {
    "apply": "training: !!python/object/apply:os.mkdir ['{target}']",
    "apply-anywhere": "!!python/object/apply:os.system ['mkdir {target}']",
    "new": "model: !!python/object/new:os.mkdir ['{target}']",
    "tuple-state": "a: !!python/object/new:tuple [!!python/object/new:map [!!python/name:eval , ['1']]]",
    "name": "model: {path: !!python/name:os.system ''}",
    "module": "model: {path: !!python/module:os ''}",
    "full-tag": "model: !<tag:yaml.org,2002:python/object/apply:os.mkdir> ['{target}']",
    "own-handle": "%TAG !p! tag:yaml.org,2002:python/object/\n---\nmodel: !p!apply:os.mkdir ['{target}']",
    "as-a-key": "? !!python/object/apply:os.mkdir ['{target}']\n: 1",
    "include": "model: !include {target}/../outside/secret.yaml",
    "template": "model: {path: \"${jndi:x}{{ ''.__class__ }}$(mkdir {target})`mkdir {target}`\"}",
}  # fmt: skip
ELSEWHERE = [
    "training: {output_dir: '%s'}", "output_dir: '%s'", "data: {output: '%s'}", "model: {save_to: '%s'}",
    "training: {logging_dir: '%s'}", "model: {cache_dir: '%s'}", "jobs: '%s'", "home: '%s'", "job: {path: '%s'}",
]  # fmt: skip
HEAVY = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{two}: &{two} [{','.join(f'*{one}' for _ in range(9))}]\n"
        for one, two in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "data: {train: *i}\nmodel: *i\ntraining: {epochs: *i}\n",
    "nested": "data: " + "[" * 20_000 + "]" * 20_000,
    "merged": "a: &a {x: 1}\nmodel:\n" + "  <<: *a\n" * 2000,
    "long-key": "x" * 500_000 + ": 1",
    "no-date": "training: {epochs: 2026-99-99}",
    "long-number": "training: {epochs: " + "9" * 100_000 + "}",
}


def load(signed_in: TestClient, handlers: Handlers, text: str) -> httpx.Response:
    """Upload a YAML file and load it, as the page does."""
    (sent,) = signed_in.post("/gradio_api/upload", files={"files": ("run.yaml", text)}).json()
    return handlers.call("load_file", {"path": sent, "meta": {"_type": "gradio.FileData"}, "orig_name": "run.yaml"})


def wrong(answer: httpx.Response) -> list[str]:
    """The sentences about what is wrong with the file."""
    assert answer.status_code == 200, answer.text
    shown = answer.json()["data"][-1]
    return list(shown.get("errors", []))


def test_a_file_of_a_run_is_loaded(signed_in: TestClient, handlers: Handlers) -> None:
    """So that the refusals below mean something."""
    answer = load(signed_in, handlers, "training: {epochs: 7}\n")
    assert wrong(answer) == [] and "run.yaml loaded" in answer.text


@pytest.mark.parametrize("name", CODE)
def test_no_tag_runs_code(signed_in: TestClient, handlers: Handlers, tmp_path: Path, name: str) -> None:
    target = tmp_path / "made"
    answer = load(signed_in, handlers, CODE[name].replace("{target}", str(target)))
    assert not target.exists() and list(tmp_path.iterdir()) == []
    if name != "template":  # a text like any other: a folder of that name is not there
        assert wrong(answer), "it was taken"


def test_the_switches_that_let_code_run_stay_off(signed_in: TestClient, handlers: Handlers) -> None:
    """A click on Start would be too late: the tokenizer of the model is loaded for the first look at the data."""
    text = "model: {trust_remote_code: true}\nmethod: {trust_reward_code: true, name: grpo}\n"
    answer = load(signed_in, handlers, text)
    assert wrong(answer) == [] and "turned off" in answer.text
    loaded = handlers.values_of("load_file", answer)
    assert loaded["f-model-trust_remote_code"] is False and loaded["f-method-trust_reward_code"] is False
    assert loaded["f-method-name"] == "grpo", "the rest of the file is taken"


@pytest.mark.parametrize("line", ELSEWHERE)
def test_no_option_says_where_results_go(signed_in: TestClient, handlers: Handlers, tmp_path: Path, line: str) -> None:
    (sentence,) = wrong(load(signed_in, handlers, line % (tmp_path / "elsewhere")))
    assert "there is no option" in sentence
    assert list(tmp_path.iterdir()) == []


def test_paths_of_a_file_are_confined_like_typed_ones(handlers: Handlers, signed_in: TestClient, outside: Path) -> None:
    rows = outside / "rows.jsonl"
    rows.write_text('{"prompt": "CANARY-4711", "completion": "b"}\n')
    answer = load(signed_in, handlers, f"data: {{train: [{{path: {rows}}}]}}")
    assert wrong(answer) == []  # it is text of the form now, and the plan says what is wrong with it
    plan = handlers.form("update", data__train=[{"path": str(rows)}], meta="")
    assert "may not read" in plan.text and "CANARY" not in plan.text
    rows.unlink()


@pytest.mark.parametrize("name", HEAVY)
def test_a_heavy_file_is_a_sentence_soon(signed_in: TestClient, handlers: Handlers, name: str) -> None:
    began = time.process_time()
    answer = load(signed_in, handlers, HEAVY[name])
    assert time.process_time() - began < SECONDS
    assert wrong(answer) and len(answer.text) < 2_000_000


@pytest.mark.parametrize("value", ["!!python/object/apply:os.getcwd []", "!!python/name:os.system ''"])
def test_a_value_on_the_command_line_runs_nothing(value: str) -> None:
    from studio.config.load import apply_set
    from studio.errors import InputError

    with pytest.raises(InputError, match="is not a YAML value"):
        apply_set({}, f"training.epochs={value}")
    raw: dict[str, dict[str, object]] = {}
    apply_set(raw, f"model.path={value}")
    assert raw["model"]["path"] == value.strip(), "an option that is text takes it as text"

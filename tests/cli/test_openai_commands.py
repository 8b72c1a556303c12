"""`studio openai`: from the table of models to the tuned model's deletion, against the local service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.cli.main import main
from tests.support.servers.openaiserver import OpenAI, serve_openai

Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAI]:
    """The service, and a home with nothing in it."""
    found = OpenAI(pace=0.002)
    with serve_openai(found) as address:
        for name, value in {
            "STUDIO_HOME": tmp_path / "home", "OPENAI_API_KEY": "sk-ada", "OPENAI_BASE_URL": address,
            "STUDIO_OPENAI_POLL": "0.1", "TIKTOKEN_CACHE_DIR": tmp_path,
        }.items():  # fmt: skip
            monkeypatch.setenv(name, str(value))
        yield found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command and returns its code, its JSON, and what it said besides."""

    def command(*words: str) -> tuple[int, dict[str, Any], str]:
        code = main(["openai", *words, "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out.splitlines()[0]), said.err

    return command


def test_from_check_to_delete(service: OpenAI, run: Run) -> None:
    code, found, said = run("models")
    assert code == 0 and found["as_of"] == "2026-05-07" and "days old" in said and "winding down" in said
    code, found, said = run("check", "demo/validation.jsonl", "--set", "n_epochs=2")
    assert code == 0 and found["rows"] == 40 and found["price"] > 0 and "40 rows are few" in said
    assert service.requests == []
    code, found, said = run("start", "demo/validation.jsonl", "--set", "n_epochs=1")
    assert code == 2 and "nobody confirmed the price" in said and service.requests == []
    code, found, said = run("start", "demo/validation.jsonl", "--set", "n_epochs=1", "--name", "orders", "--yes")
    assert code == 0 and found["there"] == "succeeded", said
    tuned = found["tuned"]
    code, found, said = run("start", "demo/validation.jsonl", "--set", "n_epochs=1", "--yes")
    assert code == 2 and "'orders' has sent these rows" in said
    assert [one["tuned"] for one in run("jobs")[1]["jobs"]] == [tuned]
    there = run("jobs", "--there")[1]["jobs"]
    assert [one["tuned"] for one in there] == [tuned] and there[0]["here"].endswith("-orders")
    shown = run("show", "orders")[1]
    assert shown["models"]["tuned"] == tuned and shown["trained_tokens"] > 0
    assert run("delete", tuned)[0] == 2 and tuned in service.models()
    assert run("delete", tuned, "--yes")[0] == 0 and tuned not in service.models()
    assert run("delete", shown["files"][0], "--yes")[0] == 0 and service.files == {}


def test_a_yaml_file_and_wrong_input(service: OpenAI, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("model: openai:gpt-4.1-mini-2025-04-14\ndata: demo/pairs_test.jsonl\nmethod: dpo\nbeta: 0.2\n")
    code, found, _ = run("check", str(file))
    assert code == 0 and (found["model"], found["method"]) == ("gpt-4.1-mini-2025-04-14", "dpo")
    file.write_text("modell: openai:gpt-4.1-mini-2025-04-14\n")
    code, found, _ = run("check", str(file))
    assert code == 2 and "model" in found["error"]["sentence"]
    code, _, said = run("check", "demo/validation.jsonl", "--set", "n_epoch=2")
    assert code == 2 and "n_epochs" in said
    code, _, said = run("delete", "ftjob-1", "--yes")
    assert code == 2 and "neither a file nor a tuned model" in said

"""The chain through the command line on the real model, short: train four steps, evaluate, export, chat."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from studio.jobs import JobFolder
from studio.settings import ASSETS
from tests.conftest import call_studio, run_studio


def test_a_run_leaves_a_model_a_card_and_its_environment(short_run: JobFolder) -> None:
    assert (short_run.model / "adapter_model.safetensors").exists()
    assert "smollm2-135m-instruct" in (short_run.model / "README.md").read_text(encoding="utf-8")
    assert (short_run.model / "run.yaml").exists()
    assert not list(short_run.model.rglob("*.bin")), "pickles are not shipped"
    environment = short_run.environment()
    assert environment["peak_memory_bytes"] > 3e8
    assert environment["plan"]["steps"] == 4
    assert "trl" in environment["versions"]
    train = hashlib.sha256((ASSETS / "demo" / "train.jsonl").read_bytes()).hexdigest()
    assert train in json.dumps(environment["data"])


@pytest.mark.long
def test_it_is_evaluated_before_and_after(short_run: JobFolder, session_home: Path) -> None:
    done = run_studio("evaluate", short_run.id, "--limit", "8", "--json", home=session_home)
    assert done.code == 0, done.stderr
    assert done.json["before"]["total"] == done.json["after"]["total"] == len(done.json["rows"]) == 8
    assert done.json["rows"][0]["expected"].startswith("{")
    assert all(row["after"] != row["before"] for row in done.json["rows"])


@pytest.mark.long
def test_its_file_is_proven_and_both_answer(short_run: JobFolder, short_export: JobFolder, session_home: Path) -> None:
    report = json.loads((short_export.report / "export.json").read_text(encoding="utf-8"))
    (line,) = report["files"]
    assert (line["type"], line["verdict"]) == ("q4_k_m", "as expected")
    (gguf,) = short_export.exports.glob("*.gguf")
    assert hashlib.sha256(gguf.read_bytes()).hexdigest() == line["sha256"]
    row = json.loads((ASSETS / "demo" / "test.jsonl").read_text(encoding="utf-8").splitlines()[0])["messages"]
    for target in (short_run.id, str(gguf)):
        done = run_studio(
            "chat", target, "--system", row[0]["content"], "--prompt", row[1]["content"], "--max-tokens", "16",
            "--json", home=session_home,
        )  # fmt: skip
        assert done.code == 0, done.stderr
        assert done.json["text"].strip()


def test_jobs_are_listed_shown_and_logged(short_run: JobFolder, session_home: Path) -> None:
    listed = call_studio("jobs", "--json", home=session_home).json["jobs"]
    assert (short_run.id, "train") in [(job["id"], job["kind"]) for job in listed]
    shown = call_studio("jobs", "show", short_run.id, "--json", home=session_home).json
    assert shown["state"]["status"] == "completed"
    assert shown["summary"]["step"] == 4
    log = call_studio("jobs", "log", short_run.id, home=session_home).stdout
    assert "training" in log
    others = [line for line in log.splitlines() if not re.match(r"\d\d:\d\d:\d\d  ", line)]
    assert others == [], "a log tells of the run, not what libraries say to themselves"

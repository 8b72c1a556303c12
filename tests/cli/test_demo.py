"""`studio demo` once a session (long), what scripts do with its result, and runs that are interrupted or detached."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio.jobs import find_job, list_jobs
from studio.settings import ASSETS
from tests.conftest import call_studio, run_studio
from tests.support.processes import interruptible


@pytest.mark.long
def test_the_demo_learned_its_task_and_every_file_kept_it(demo_result) -> None:
    match = demo_result["exact_match"]
    assert demo_result["ok"] is True
    assert demo_result["rows"] >= 100
    assert match["before"] < 0.05
    assert match["after"] >= 0.97
    assert set(match["gguf"]) == {"f16", "q8_0", "q4_k_m"}
    assert all(value >= match["after"] - 0.03 for value in match["gguf"].values())
    assert demo_result["peak_memory_gb"] <= 6.0
    assert {"train.training", "evaluate.loading model"} <= set(demo_result["seconds"])


@pytest.mark.long
def test_the_run_left_a_model_a_card_and_its_environment(trained_run) -> None:
    assert (trained_run.model / "adapter_model.safetensors").exists()
    card = (trained_run.model / "README.md").read_text(encoding="utf-8")
    assert "smollm2-135m-instruct" in card
    assert (trained_run.model / "run.yaml").exists()
    assert not list(trained_run.model.rglob("*.bin")), "pickles are not shipped"
    environment = trained_run.environment()
    assert environment["peak_memory_bytes"] > 3e8
    assert environment["plan"]["steps"] > 0
    assert "trl" in environment["versions"]
    train = hashlib.sha256((ASSETS / "demo" / "train.jsonl").read_bytes()).hexdigest()
    assert train in json.dumps(environment["data"])


@pytest.mark.long
def test_evaluate_with_another_file(trained_run, session_home, tmp_path) -> None:
    rows = (ASSETS / "demo" / "test.jsonl").read_text(encoding="utf-8").splitlines()[:3]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    done = run_studio("evaluate", trained_run.id, "--data", str(path), "--json", home=session_home)
    assert done.code == 0, done.stderr
    assert done.json["after"]["total"] == 3
    assert done.json["rows"][0]["expected"].startswith("{")


@pytest.mark.long
def test_chat_with_run_and_gguf(trained_run, exported_job, session_home) -> None:
    row = json.loads((ASSETS / "demo" / "test.jsonl").read_text(encoding="utf-8").splitlines()[0])["messages"]
    expected = json.loads(row[2]["content"])
    gguf = next(exported_job.exports.glob("*q8_0.gguf"))
    for target in (trained_run.id, str(gguf)):
        done = run_studio(
            "chat", target, "--system", row[0]["content"], "--prompt", row[1]["content"], "--json", home=session_home
        )
        assert done.code == 0, done.stderr
        assert json.loads(done.json["text"]).keys() == expected.keys()


@pytest.mark.long
def test_jobs_list_show_log(trained_run, session_home) -> None:
    listed = run_studio("jobs", "--json", home=session_home).json["jobs"]
    assert {job["kind"] for job in listed} >= {"train", "evaluate", "export"}
    shown = run_studio("jobs", "show", trained_run.id, "--json", home=session_home).json
    assert shown["state"]["status"] == "completed"
    assert shown["summary"]["best"][0] < 0.5
    log = run_studio("jobs", "log", trained_run.id, home=session_home)
    assert "training" in log.stdout


def test_plan_inspect_and_doctor_answer_in_json(session_home, model_path) -> None:
    plan = call_studio("plan", "demo/sft", "--json", home=session_home).json
    assert plan["plan"]["trainable"] == 4_884_480
    assert plan["plan"]["steps"] > 0
    assert plan["lengths"]["count"] > 100
    found = call_studio("data", "inspect", "demo/test.jsonl", "--json", home=session_home).json
    assert (found["rows"], found["format"]) == (120, "messages")
    assert 0 < found["supervised_tokens"] < found["tokens"]
    doctor = call_studio("doctor", "--json", home=session_home)
    assert doctor.code == 0, doctor.stderr
    assert doctor.json["ok"] is True
    assert doctor.json["device"]["gflops"]["float32"] > 0


@pytest.mark.matrix
def test_a_demo_that_falls_short_exits_with_1(tmp_path, session_home, model_path) -> None:
    done = run_studio(
        "demo", "--json", "--set", "training.max_steps=1", "--set", "data.validation=0",
        home=session_home,
    )  # fmt: skip
    assert done.code == 1
    assert "exact match after" in done.stderr
    assert done.json["ok"] is False


@pytest.mark.long
def test_ctrl_c_stops_saves_and_exits_with_130(session_home, session_settings, model_path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "studio", "train", "demo/sft", "--name", "interrupted", "--json",
         "--set", "training.batch_size=2", "--set", "data.validation=0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "STUDIO_HOME": str(session_home)},
        preexec_fn=interruptible,
    )  # fmt: skip
    end = time.monotonic() + 180
    job = None
    while time.monotonic() < end:
        found = [job for job in list_jobs(session_settings.jobs) if job.request.name == "interrupted"]
        job = found[0] if found else None
        if job and '"step": 2' in job.events_path.read_text(encoding="utf-8"):
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert job is not None
    assert json.loads(out)["error"]["exit_code"] == 130
    assert job.state().status == "stopped"
    assert (job.model / "adapter_model.safetensors").exists(), "what was learned is saved"
    assert list(job.checkpoints.iterdir())


@pytest.mark.long
def test_detach_returns_at_once_and_the_job_goes_on(session_home, session_settings, model_path) -> None:
    done = run_studio(
        "train", "demo/sft", "--detach", "--json", "--name", "detached", "--set", "training.max_steps=1",
        "--set", "training.batch_size=2", "--set", "data.validation=0", home=session_home,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    job = find_job(session_settings.jobs, done.json["id"])
    shown = run_studio("jobs", "show", job.id, "--follow", "--json", home=session_home)
    assert shown.json["state"]["status"] == "completed"
    assert Path(done.json["path"]) == job.path

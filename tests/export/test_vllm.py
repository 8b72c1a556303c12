"""vLLM itself, in an environment of its own, answers as the trained model does: `make test-vllm`.

Its packages pin versions that the studio's environment cannot have (transformers below 5.20), so it is another one. The
CPU build has no metadata under the name that its own program asks for; the module behind it is started instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import AutoTokenizer

from studio.export.destinations.served import ServedAdapter, ServedCheckpoint
from studio.export.job import export
from studio.export.proof.gates import gate_of, near_tie
from studio.export.proof.greedy import parted
from studio.export.trying.running import wait
from studio.jobs import JobFolder, Summaries
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.settings import Settings
from studio.ui.server.services import Services
from studio.ui.tabs.chat.ask import Sampling, make_ask
from studio.ui.tabs.chat.pane import Piece
from studio.ui.tabs.chat.targets import find_target, served_key, targets_of
from tests.support.processes import ended

PYTHON = os.environ.get("STUDIO_VLLM_PYTHON", "")
URL = "http://127.0.0.1:8000"
PROGRAM = """#!/bin/sh
shift
exec {python} -m vllm.entrypoints.openai.api_server --enforce-eager --model "$@"
"""
pytestmark = [pytest.mark.long, pytest.mark.skipif(not PYTHON, reason="make test-vllm installs vLLM and runs this")]


@contextmanager
def served(job: JobFolder, folder: Path) -> Iterator[str]:
    """Run the export's own script and give what clients ask for."""
    program = folder / "vllm"
    program.write_text(PROGRAM.format(python=PYTHON))
    program.chmod(0o755)
    env = {
        **os.environ, "PATH": f"{folder}:/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(["sh", str(job.exports / "serve.sh")], stdout=output, stderr=output, env=env)
    try:
        end = time.monotonic() + 400
        while not answers():
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-4000:]
            time.sleep(1)
        yield json.loads((job.report / "export.json").read_text())["serving"]["name"]
    finally:
        process.terminate()
        process.wait(60)


def answers() -> bool:
    try:
        with urllib.request.urlopen(f"{URL}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def asked(model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """What the server says greedily, by the protocol of OpenAI."""
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 48}
    request = urllib.request.Request(
        f"{URL}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@pytest.mark.parametrize("serve", ["merged", "adapter"])
def test_it_answers_as_the_trained_model(
    serve: str, session_settings: Settings, adapter: Path, make_run: Callable[..., JobFolder], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run, kind = make_run(adapter), ServedCheckpoint if serve == "merged" else ServedAdapter
    config = {"run": run.id, "to": "vllm", "serve": serve, "context": 1024}
    config |= {"dtype": "float32"} if serve == "merged" else {}
    context = JobContext(create_job(session_settings.jobs, "export", "vllm", config), session_settings)
    cases: dict[str, Any] = {}
    told = kind.notes

    def notes(self: Any) -> list[str]:
        cases.update(json.loads((self.work / "cases.json").read_text()))
        return told(self)

    monkeypatch.setattr(kind, "notes", notes)
    export(context)
    prompts = {prompt["name"]: prompt for prompt in cases["prompts"]}
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    script = context.job.exports / "serve.sh"
    # In the base model's bfloat16 half of the answers part at near-ties, which says little of the adapter.
    script.write_text(script.read_text().replace("--dtype bfloat16", "--dtype float32"))
    limit = near_tie(gate_of("f32", "float32"))
    parts = {}
    with served(context.job, tmp_path) as model:
        for answer in cases["answers"]:
            name = answer["name"]
            found = asked(model, prompts[name]["messages"])
            assert found["usage"]["prompt_tokens"] == len(answer["prompt"]), name
            (choice,) = found["choices"]
            ids = tokenizer.encode(choice["message"]["content"], add_special_tokens=False)
            ids += [cases["end"]] if choice["finish_reason"] == "stop" else []
            parts[name] = parted(answer, ids)
    assert len(parts) == 8 and all(nats is None or nats <= limit for nats in parts.values()), parts
    assert sum(nats is None for nats in parts.values()) >= 7, parts


def test_it_is_started_from_the_page_and_ended(
    session_settings: Settings, adapter: Path, make_run: Callable[[Path], JobFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same mechanism as llama.cpp's server (tests/export/trying), which is where its details are tested."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    run = make_run(adapter)
    config = {"run": run.id, "to": "vllm", "serve": "merged", "context": 1024, "dtype": "bfloat16"}
    context = JobContext(create_job(session_settings.jobs, "export", "vllm", config), session_settings)
    export(context)
    write_state(context.job.state_path, JobState(status="completed"))
    services = Services(settings=session_settings, summaries=Summaries(), data=None, chats=None)  # type: ignore[arg-type]
    trial = services.trials.start(context.job, "vllm")
    try:
        wait(trial)
        target = find_target(targets_of(services, run), served_key(context.job.id))
        assert target.label == "stand-in-merged · on vLLM"
        news: list[Any] = []
        ask = make_ask(None, session_settings, target, Sampling(0.0, 1.0, 24))  # type: ignore[arg-type]
        ask([{"role": "user", "content": "What is the capital of France?"}], threading.Event(), news.append)
        assert len([one for one in news if isinstance(one, Piece)]) > 3, trial.log.read_text()[-2000:]
        helpers = psutil.Process(trial.process.pid).children(recursive=True)
    finally:
        services.trials.close_all()
    assert trial.state == "stopped" and len(helpers) >= 2 and all(map(ended, helpers))

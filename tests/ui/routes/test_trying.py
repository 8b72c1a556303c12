"""The routes by which an export is tried on a server: a request names the job and a server of the table, no more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from studio.jobs import Summaries
from studio.settings import Settings
from studio.ui.routes.api import make_router
from studio.ui.server.services import Services
from tests.ui.made_jobs import made_export, made_merged, made_run


@pytest.fixture
def page(settings: Settings, tmp_path: Path) -> Iterator[TestClient]:
    """Routes of a studio where llama-server is a program that ends at once, and vLLM is not there."""
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\necho '<b>no such model</b>'; exit 3\n")
    program.chmod(0o755)
    told = replace(settings, llama_server=program, vllm_python=Path("/nowhere/python"))
    services = Services(settings=told, summaries=Summaries(), data=None, chats=None)  # type: ignore[arg-type]
    app = FastAPI()
    app.include_router(make_router(services))
    yield TestClient(app)
    services.trials.close_all()


def test_a_server_is_started_looked_at_and_stopped(page: TestClient, settings: Settings) -> None:
    job = made_export(settings.jobs, made_run(settings.jobs), ("q8_0",))
    where = f"/api/jobs/{job.id}/trying"
    first = page.get(where).json()
    assert first["trial"] is None
    (server,) = first["servers"]
    assert (server["server"], server["reason"]) == ("llama-server", "")
    assert page.post(f"{where}/start", json={"server": "llama-server"}).json()["trial"]["name"] == "demo-q8_0.gguf"
    end = time.monotonic() + 30
    while (told := page.get(where).json()["trial"])["state"] == "starting":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert told["state"] == "failed" and told["why"] == "ended with exit status 3: <b>no such model</b>"
    assert told["lines"] == ["<b>no such model</b>"] and "key" not in told
    assert page.get(f"/api/jobs/{job.id}/files/{told['log']}").text == "<b>no such model</b>\n"
    assert page.post(f"{where}/stop", json={}).json()["trial"]["state"] == "failed"


def test_nothing_else_is_started(page: TestClient, settings: Settings) -> None:
    run = made_run(settings.jobs)
    job, merged = made_export(settings.jobs, run, ("q8_0",)), made_merged(settings.jobs, run)
    for body in ({"server": "sh"}, {"server": "sglang"}, {}):
        assert page.post(f"/api/jobs/{job.id}/trying/start", json=body).status_code == 422
    assert page.post("/api/jobs/none/trying/start", json={"server": "vllm"}).status_code == 404
    wrong = page.post(f"/api/jobs/{job.id}/trying/start", json={"server": "vllm"})
    assert wrong.status_code == 409 and "vLLM cannot load what this export made" in wrong.json()["detail"]
    (server,) = page.get(f"/api/jobs/{merged.id}/trying").json()["servers"]
    assert server["reason"] == "STUDIO_VLLM_PYTHON names no program: /nowhere/python" and server["install"] == ""
    assert page.post(f"/api/jobs/{merged.id}/trying/start", json={"server": "vllm"}).status_code == 409
    assert page.get(f"/api/jobs/{run.id}/trying").json() == {"servers": [], "trial": None}

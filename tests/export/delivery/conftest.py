"""A tiny run that can be exported in seconds, and a local Hub that takes what is uploaded."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.settings import Settings
from tests.export.tinyrun import make_tiny_run
from tests.support.servers.hubserver import Hub, serve_hub
from tests.support.servers.hubuploads import Uploads

TOKEN = "hf_of_ada"
BASE_ID = "lab/base"


@pytest.fixture(scope="session")
def tiny_run(session_settings: Settings, model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    """A completed run of a two-layer model with an adapter, in the shared home."""
    return make_tiny_run(session_settings.jobs, model_path, tmp_path_factory.mktemp("tiny") / "tiny-base")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_run: JobFolder) -> Iterator[Hub]:
    """A Hub that knows the token of ada, and a base model with a license."""
    base = tmp_path / "base-on-the-hub"
    shutil.copytree(tiny_run.environment()["base_model"]["path"], base)
    server = Hub({BASE_ID: base}, uploads=Uploads(tmp_path / "on-the-hub"))
    server.told[BASE_ID] = {"cardData": {"license": "apache-2.0"}}
    with serve_hub(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


def context_of(settings: Settings, run: JobFolder, **config: Any) -> JobContext:
    """The job of an export, as its process sees it."""
    context = JobContext(create_job(settings.jobs, "export", "delivered", {"run": run.id} | config), settings)
    context.set_state(status="running", started=time.time())
    return context


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

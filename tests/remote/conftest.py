"""A home without a model, a key, and the local service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.config.remote import OpenAIConfig
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.remote.job import POLL_VARIABLE
from studio.remote.prepare import Prepared, prepare
from studio.settings import Settings, read_settings
from tests.support.servers.openaiserver import OpenAI, serve_openai

KEY = "sk-of-ada-0123456789abcdefghij"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a home with nothing in it; the service is asked twenty times a second."""
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv(POLL_VARIABLE, "0.05")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "no-tokens"))
    monkeypatch.setattr("studio.remote.client.FIRST_WAIT", 0.05)
    monkeypatch.setattr("studio.remote.sending.GRACE", 0.3)
    monkeypatch.setattr("studio.remote.sending._LOOK", 0.05)
    found = read_settings()
    found.jobs.mkdir(parents=True)
    return found


@pytest.fixture
def service(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAI]:
    """The service, at OPENAI_BASE_URL."""
    found = OpenAI(pace=0.005, validating=0.05, queued=0.05)
    with serve_openai(found) as address:
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        yield found


# What has no answer to learn.
USER_ONLY = {"messages": [{"role": "user", "content": "Hi"}]}
Rows = Callable[..., Path]


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """Writes a file of rows and returns its path."""

    def write(found: list[Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(one) + "\n" for one in found))
        return path

    return write


def chat(question: str, answer: str = "Yes.", system: str = "Be short.", **more: Any) -> dict[str, Any]:
    """A row in the service's format."""
    turns = [("system", system), ("user", question), ("assistant", answer)]
    return {"messages": [{"role": role, "content": text} for role, text in turns if text], **more}


def questions(count: int = 12) -> list[dict[str, Any]]:
    """So many different rows."""
    return [chat(f"Is {number} a number?", f"{number} is one.") for number in range(count)]


def prepared_of(settings: Settings, path: Path | str, **options: Any) -> Prepared:
    """What a configuration becomes."""
    return prepare(OpenAIConfig(data=str(path), **options), settings)


def queued(settings: Settings, prepared: Prepared, name: str = "mine") -> JobFolder:
    """The folder of a job that nobody has started yet."""
    prepared.require_sound()
    return create_job(settings.jobs, "openai", name, prepared.config.model_dump(mode="json"))


def context_of(job: JobFolder, settings: Settings) -> JobContext:
    """What the process of a job works with."""
    return JobContext(job, settings)

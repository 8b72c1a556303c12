"""What the page asks of models and of docs/: the list, a model of the Hub and its download, pages with their links."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from studio.config.describe import options_of
from studio.config.run import RunConfig
from studio.settings import DOCS
from studio.ui.form.schema import linked
from tests.models.checkpoints import write_checkpoint
from tests.support.servers.hubserver import Hub, serve_hub

TINY = {"name": "org/tiny", "revision": "main"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with one model of 26 MB, sent in pieces."""
    hub = Hub({"org/tiny": write_checkpoint(tmp_path / "tiny", shards=2, vocab=800_000)}, pause=0.1)
    with serve_hub(hub) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub


def until(page: TestClient, done: str) -> dict[str, Any]:
    """Ask how far the download is until something of it is true."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        state: dict[str, Any] = page.get("/api/models/download", params=TINY).json()
        known = state["download"] or {}
        if {"here": state["here"], "over": not known.get("running"), "some": known.get("done", 0) > 0}[done]:
            return state
        time.sleep(0.05)
    raise AssertionError(f"not {done}: {state}")


def test_a_model_is_described_downloaded_stopped_and_taken_up(page: TestClient, hub: Hub) -> None:
    card = page.get("/api/models/hub", params=TINY).json()["card"]
    assert card["bytes"] > 25_000_000 and card["locked"] is False
    assert page.get("/api/models/download", params=TINY).json() == {"here": False, "begun": False, "download": None}
    page.post("/api/models/download", json=TINY)
    until(page, "some")
    page.post("/api/models/download/stop", json=TINY)
    stopped = until(page, "over")
    assert (stopped["here"], stopped["begun"], stopped["download"]["problem"]) == (False, True, "")
    hub.pause = 0.0
    page.post("/api/models/download", json=TINY)
    assert until(page, "here")["here"]
    assert "org/tiny" in {one["name"] for one in page.get("/api/models").json()["models"]}


def test_what_cannot_be_is_said(page: TestClient, hub: Hub) -> None:
    answer = page.get("/api/models/hub", params={"name": "org/absent"}).json()
    assert answer["card"] is None and "spelling" in answer["problem"]
    page.post("/api/models/download", json={"name": "org/absent"})
    end = time.monotonic() + 60
    while (state := page.get("/api/models/download", params={"name": "org/absent"}).json())["download"]["running"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "spelling" in state["download"]["problem"] and not state["here"]
    for wrong in ("../../etc", "no-owner", "a/b/c", "x" * 150):
        assert page.get("/api/models/hub", params={"name": wrong}).status_code == 409
        assert page.post("/api/models/download", json={"name": wrong}).status_code == 409
    assert page.get("/api/models/hub", params={"name": "o/" + "x" * 300}).status_code == 422


def test_every_page_of_the_docs_that_a_help_text_names_opens(page: TestClient) -> None:
    named = {
        name for spec in options_of(RunConfig) for name in re.findall(r"\(/api/docs/([a-z-]+)\)", linked(spec.help))
    }
    assert "methods" in named
    for name in named | {path.stem for path in DOCS.glob("*.md")}:
        answer = page.get(f"/api/docs/{name}")
        assert answer.status_code == 200 and "<h1" in answer.text
        assert not re.search(r'href="[a-z-]+\.md', answer.text)
    for link, anchor in re.findall(r'href="/api/docs/([a-z-]+)#([^"]+)"', page.get("/api/docs/models").text):
        assert f'id="{anchor}"' in page.get(f"/api/docs/{link}").text, (link, anchor)
    assert page.get("/api/docs/absent").status_code == 404
    assert page.get("/api/docs/..%2FREADME").status_code == 404

"""Templates, lines, patterns and rows that are made to take for ever, through the real server: whoever asks beside them
is answered at once, the page's process stays small, and the work ends with a sentence that names the row."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from studio.settings import Settings
from studio.ui.server.entrance import KEY_HEADER
from tests.data.rows import chat
from tests.data.sandbox.test_sandbox import BOMBS
from tests.data.tokens.test_bounded_tokens import PATTERNS, TEXTS, hostile
from tests.support.everyday import everyday

from .conftest import PASSWORD, Handlers, browser

LINES = {name: BOMBS[name] for name in ("nested loops", "lipsum", "one call into C", "a product", "replace")}
# Of a machine that does other things at the same time.
OTHERS_SECONDS, END_SECONDS = 3.0, 20.0
# What three answers at once may leave in the process of the page, which is that of the tests here.
GROWN_BYTES = 100e6


@pytest.fixture(scope="module")
def model(model_path: Path, page_settings: Settings) -> str:
    """A model folder that the page may read; an ordinary one."""
    return str(hostile(model_path, page_settings.home / "models" / "ordinary", r"\s"))


@pytest.fixture(scope="module")
def uploads(page_settings: Settings) -> Path:
    folder = page_settings.home / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def other(app: FastAPI, signed_in: TestClient, model: str) -> Iterator[Handlers]:
    """Another person, with a session of his own."""
    client = browser(app)
    answer = client.post("/sign-in", data={"password": PASSWORD})
    assert answer.status_code == 200
    client.headers[KEY_HEADER] = answer.json()["key"]
    handlers = Handlers(client, client.get("/config").json())
    assert preview(handlers, model__path=model)["problem"] == ""
    yield handlers
    client.close()


def preview(handlers: Handlers, **changes: Any) -> dict[str, Any]:
    """What the page shows of the first row."""
    answer = handlers.form("preview", meta="", **changes)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()["data"][0]
    return shown


def attacked(handlers: Handlers, other: Handlers, model: str, **changes: Any) -> dict[str, Any]:
    """Ask for a row three times at once, as another person asks for one; returns what came of the first."""
    shown: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: shown.append(preview(handlers, **changes))) for _ in range(3)]
    began, before = time.monotonic(), psutil.Process().memory_info().rss
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    asked = time.monotonic()
    assert preview(other, model__path=model)["problem"] == ""
    waited = time.monotonic() - asked
    for thread in threads:
        thread.join(60)
    ended, grown = time.monotonic() - began, psutil.Process().memory_info().rss - before
    print(f"\nattack: somebody else waited {waited:.2f} s, it ended after {ended:.1f} s, {grown / 1e6:.0f} MB are left")
    assert waited < OTHERS_SECONDS, "somebody else waited"
    assert ended < END_SECONDS
    assert grown < GROWN_BYTES, "the page's process keeps what was sent to it"
    return shown[0]


@pytest.mark.parametrize("name", everyday(LINES, "one call into C"))
def test_a_line_over_columns(name: str, handlers: Handlers, other: Handlers, model: str, uploads: Path) -> None:
    rows = uploads / "bomb.jsonl"
    rows.write_text(json.dumps({"q": "a", "a": "b"}) + "\n")
    source = {"path": str(rows), "columns": {"instruction": "q", "output": LINES[name]}}
    shown = attacked(handlers, other, model, data__train=[source], model__path=model)
    assert "bomb.jsonl, row 1, field 'output'" in shown["problem"]


def test_a_chat_template(
    handlers: Handlers, other: Handlers, model: str, model_path: Path, page_settings: Settings
) -> None:
    folder = hostile(model_path, page_settings.home / "models" / "template", r"\s")
    (folder / "chat_template.jinja").write_text(BOMBS["one call into C"])
    shown = attacked(handlers, other, model, model__path=str(folder))
    assert "chat template" in shown["problem"]


@pytest.mark.parametrize("how", everyday(PATTERNS, "gives up on"))
def test_a_tokenizers_pattern(
    how: str, handlers: Handlers, other: Handlers, model: str, model_path: Path, page_settings: Settings, uploads: Path
) -> None:
    name = how.split()[0]
    folder = hostile(model_path, page_settings.home / "models" / name, PATTERNS[how])
    rows = uploads / f"{name}.jsonl"
    rows.write_text(json.dumps(chat("q", f"{TEXTS[how]}!")) + "\n")
    shown = attacked(handlers, other, model, model__path=str(folder), data__train=[{"path": str(rows)}])
    assert f"{name}.jsonl, row 1: the model's tokenizer" in shown["problem"]


@pytest.mark.long
def test_a_cell_of_fifty_megabytes(handlers: Handlers, other: Handlers, model: str, uploads: Path) -> None:
    rows = uploads / "large.jsonl"
    rows.write_text(json.dumps(chat("q", "b" * 50_000_000)) + "\n")
    shown = attacked(handlers, other, model, data__train=[{"path": str(rows)}], model__path=model)
    assert "large.jsonl, row 1" in shown["problem"] and len(shown["raw"]) < 100_000
    rows.unlink()

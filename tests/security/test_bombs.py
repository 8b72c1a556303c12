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
from tests.data.rows import chat
from tests.data.test_bounded_tokens import PATTERNS, TEXTS, hostile
from tests.data.test_sandbox import BOMBS

from .conftest import PASSWORD, Handlers, browser

# A line of the columns for each way to take time or memory; the second names what a machine has enough of.
LINES = {name: BOMBS[name] for name in ("nested loops", "lipsum", "one call into C", "a product", "replace")}
# Of a machine that does other things at the same time.
OTHERS_SECONDS, END_SECONDS = 3.0, 20.0
PAGE_BYTES = 400e6


@pytest.fixture(scope="module")
def other(app: FastAPI, signed_in: TestClient) -> Iterator[Handlers]:
    """Another person, with a session and a plan that was counted before."""
    client = browser(app)
    assert client.post("/sign-in", data={"password": PASSWORD}).status_code == 303
    handlers = Handlers(client, client.get("/config").json())
    preview(handlers)
    yield handlers
    client.close()


def preview(handlers: Handlers, **changes: Any) -> dict[str, Any]:
    answer = handlers.form("preview", **changes)
    assert answer.status_code == 200, answer.text
    return next(one for one in handlers.values_of("preview", answer).values() if isinstance(one, dict))


def source(path: Path, **options: Any) -> str:
    return json.dumps([{"path": str(path), **options}])


def attacked(handlers: Handlers, other: Handlers, **changes: Any) -> dict[str, Any]:
    """Ask for a row three times at once, as another person asks for one; returns what came of the first."""
    shown: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: shown.append(preview(handlers, **changes))) for _ in range(3)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    asked = time.monotonic()
    assert preview(other)["problem"] == ""
    assert time.monotonic() - asked < OTHERS_SECONDS, "somebody else waited"
    for thread in threads:
        thread.join(60)
    assert time.monotonic() - began < END_SECONDS
    assert psutil.Process().memory_info().rss < PAGE_BYTES + 400e6  # of pytest with all that it has imported
    return shown[0]


@pytest.mark.parametrize("name", LINES)
def test_a_line_over_columns(name: str, handlers: Handlers, other: Handlers, page_settings: Settings) -> None:
    rows = page_settings.home / "uploads" / "bomb.jsonl"
    rows.parent.mkdir(parents=True, exist_ok=True)
    rows.write_text(json.dumps({"q": "a", "a": "b"}) + "\n")
    columns = {"instruction": "q", "output": LINES[name]}
    shown = attacked(handlers, other, data__train=source(rows, columns=columns))
    assert "bomb.jsonl, row 1, field 'output'" in shown["problem"]


def test_a_chat_template(handlers: Handlers, other: Handlers, page_settings: Settings, model_path: Path) -> None:
    folder = hostile(model_path, page_settings.home / "models" / "template", r"\s")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = BOMBS["one call into C"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(BOMBS["one call into C"])
    shown = attacked(handlers, other, model__path=str(folder))
    assert "chat template" in shown["problem"]


@pytest.mark.parametrize("how", PATTERNS)
def test_a_tokenizers_pattern(
    how: str, handlers: Handlers, other: Handlers, page_settings: Settings, model_path: Path
) -> None:
    name = how.split()[0]
    folder = hostile(model_path, page_settings.home / "models" / name, PATTERNS[how])
    rows = page_settings.home / "uploads" / f"{name}.jsonl"
    rows.parent.mkdir(parents=True, exist_ok=True)
    rows.write_text(json.dumps(chat("q", f"{TEXTS[how]}!")) + "\n")
    shown = attacked(handlers, other, model__path=str(folder), data__train=source(rows))
    assert f"{name}.jsonl, row 1" in shown["problem"] and how in shown["problem"]


def test_a_cell_of_fifty_megabytes(handlers: Handlers, other: Handlers, page_settings: Settings) -> None:
    rows = page_settings.home / "uploads" / "large.jsonl"
    rows.parent.mkdir(parents=True, exist_ok=True)
    rows.write_text(json.dumps(chat("q", "b" * 50_000_000)) + "\n")
    shown = attacked(handlers, other, data__train=source(rows))
    assert "large.jsonl, row 1" in shown["problem"] and len(shown["raw"]) < 100_000
    rows.unlink()

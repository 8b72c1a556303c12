"""A person has rows streamed: the form offers it, says what it cannot go with, and the run reads them as it trains."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from studio.jobs import find_job
from tests.browser.made import look, serious, until_ended
from tests.browser.setup.test_other_method import choose
from tests.browser.setup.test_setup_tabs import open_tab, planned, upload

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser.conftest import Server

pytestmark = pytest.mark.long


def own_run(server: Server) -> Path:
    """Two updates over forty rows in two files of a folder."""
    folder = server.home / "data" / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(2):
        rows = [{"prompt": f"{n} + {part} =", "completion": str(n + part)} for n in range(20)]
        (folder / f"part{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = {
        "data": {"train": [{"path": str(folder)}], "validation": 0, "truncation": "error"},
        "method": {"name": "sft"}, "training": {"max_steps": 2, "batch_size": 4},
    }  # fmt: skip
    file = server.home / "data" / "mine.yaml"
    file.write_text(json.dumps(run))
    return file


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_rows_are_streamed_as_the_form_says(page: Page, server: Server, scheme: str, width: int) -> None:
    look(page, scheme, width)
    file = own_run(server)
    before = [folder.name for folder in server.settings.jobs.glob("*")]
    open_tab(page, server, "method")
    upload(page, "#yaml-upload", file)
    expect(page.locator(".yaml-said")).to_have_text("mine.yaml loaded")
    page.get_by_role("tab", name=re.compile("^Data")).click()
    page.locator("#tab-data button.fold").last.click()
    choose(page, "data.streaming", "on")
    planned(page, "plan.errors.length === 1")
    problem = page.locator("#tab-data .plan-errors li")
    page.locator("#tab-data .plan-start").click()
    expect(problem).to_contain_text("Streaming: the longest row is only known once all of them are tokens")
    assert [folder.name for folder in server.settings.jobs.glob("*")] == before

    choose(page, "data.truncation", "cut")
    planned(page, "plan.errors.length === 0 && plan.memory")
    page.locator("#tab-data .plan-name").fill(f"streamed-{width}")
    findings = page.locator("#tab-data").get_by_text("the rows are streamed: 40 of 40 rows were looked at")
    expect(findings).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert serious(page) == []
    page.locator("#tab-data .plan-start").click()
    until_ended(page, f"streamed-{width}")
    job = find_job(server.settings.jobs, f"streamed-{width}", "train")
    assert job.state().status == "completed", job.log_path.read_text()[-2000:]
    assert job.request.config["data"]["streaming"] == "on"
    assert any("the rows are streamed: 40 of 40 rows" in one["text"] for one in job.environment()["data"]["findings"])
    assert list((server.home / "cache" / "streams").glob("*/about.json")), "nothing was kept for the next run"

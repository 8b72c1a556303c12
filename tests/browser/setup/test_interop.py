"""A config of another tool comes into the form with a report of its keys, the form goes out as one, and the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from tests.browser.setup.test_setup_tabs import open_tab, planned, value

if TYPE_CHECKING:
    from tests.browser.conftest import Server

PASTED = """\
model_name_or_path: smollm2-135m-instruct
stage: sft
dataset: mine
lora_rank: 24
lora_rnak: <img src=x onerror=alert(1)>
use_galore: true
"""


@pytest.mark.long
def test_a_config_is_imported_exported_and_shown_as_a_command(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    expect(page.locator("#train-command .command-text")).to_have_text("studio train demo/sft")
    page.locator(".exported-make").click()
    expect(page.locator(".exported-body pre").first).to_contain_text("lora_rank: 16")
    expect(page.locator(".exported-body pre").nth(1)).to_contain_text('"validation.jsonl"')
    pasted = page.locator("#import-text textarea")
    pasted.fill("model_name_or_path: a\nstage: sft\ndataset: x\nlearning_rate: fast\n")
    page.locator("#import-go").click()
    expect(page.locator(".imported-problem")).to_contain_text(
        "line 4: learning_rate: a number is needed (it is 'fast')"
    )
    pasted.fill(PASTED)
    page.locator("#import-go").click()
    rows = page.locator(".imported-table tbody tr")
    expect(rows.filter(has_text="lora_rank (line 4)")).to_contain_text("tuning.rank")
    expect(rows.filter(has_text="lora_rnak (line 5)")).to_contain_text("Did you mean 'lora_rank'?")
    expect(rows.filter(has_text="use_galore (line 6)")).to_contain_text("refused")
    expect(page.locator(".imported-problem li")).to_have_count(0)
    planned(page, "plan.command.includes('tuning.rank=24')")
    assert value(page, "tuning.rank") == "24"

"""A person takes a preset or a file and chooses another method: what was set for the old one does not stay behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from tests.browser.made import look, serious
from tests.browser.setup.test_setup_tabs import fill, open_tab, upload, value

if TYPE_CHECKING:
    from tests.browser.conftest import Server

RATE = "training.learning_rate"
FIELD = "#f-training-learning_rate"


def choose(page: Page, option: str, title: str) -> None:
    page.locator(f"#f-{option.replace('.', '-')} label").filter(has=page.get_by_text(title, exact=True)).click()


def noted(page: Page, text: str, kept: bool = False) -> None:
    """Wait until the note at the rate matches; a plan over other rows takes its time on a busy machine."""
    condition = f"/{text}/.test(plan.notes['f-training-learning_rate'] || '')"
    condition += f" && plan.kept.includes('f-training-learning_rate') === {str(kept).lower()}"
    page.wait_for_function(
        f"() => {{ const plan = window.studioForm?.latest.plan; return plan && ({condition}) }}", timeout=120_000
    )
    expect(page.locator(f"{FIELD}.kept")).to_have_count(int(kept))


def own_run(server: Server) -> Path:
    """A YAML file over pairs of one's own, with a rate that is right for SFT."""
    folder = server.home / "data"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": f"{n} + 1 =", "chosen": str(n + 1), "rejected": "no idea"} for n in range(40)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = {
        "data": {"train": [{"path": str(folder / "pairs.jsonl")}], "validation": 0},
        "method": {"name": "sft"}, "training": {"learning_rate": 0.001, "epochs": 1},
    }  # fmt: skip
    (folder / "mine.yaml").write_text(json.dumps(run))
    return folder / "mine.yaml"


@pytest.mark.long
def test_the_demo_preset_and_then_dpo(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    page.get_by_role("combobox", name="Load a preset").click()
    page.get_by_role("option", name="demo/sft", exact=True).click()
    expect(page.locator(".yaml-said")).to_have_text("demo/sft loaded")
    assert value(page, RATE) == "0.001"
    choose(page, "method.name", "DPO")
    expect(page.locator(f"{FIELD} input, {FIELD} textarea").first).to_have_value("auto")
    noted(page, r"^now 0\.0001: ")
    choose(page, "method.name", "SFT")
    expect(page.locator(f"{FIELD} input, {FIELD} textarea").first).to_have_value("0.001")
    choose(page, "tuning.name", "Full")
    expect(page.locator(f"{FIELD} input, {FIELD} textarea").first).to_have_value("auto")
    noted(page, r"^now 5e-05: .*0\.001 was for SFT")


@pytest.mark.long
def test_own_rows_and_a_typed_rate(page: Page, server: Server) -> None:
    file = own_run(server)
    open_tab(page, server, "method")
    upload(page, "#yaml-upload", file)
    expect(page.locator(".yaml-said")).to_have_text("mine.yaml loaded")
    choose(page, "method.name", "DPO")
    field = page.locator(f"{FIELD} input, {FIELD} textarea").first
    expect(field).to_have_value("auto")
    noted(page, r"0\.0001.*0\.001 was for SFT.*mine\.yaml")
    expect(page.locator("#f-training-epochs input")).to_have_value("2")
    fill(page, RATE, "0.003")
    noted(page, r"^usual here: 0\.0001")
    choose(page, "method.name", "ORPO")
    noted(page, r"kept.*usual here: 0\.001", kept=True)
    expect(field).to_have_value("0.003")
    page.wait_for_timeout(1500)
    page.goto("about:blank")
    page.goto(f"{server.url}#tab=method")
    noted(page, "kept as you typed it", kept=True)
    assert value(page, RATE) == "0.003"
    fill(page, RATE, "auto")
    noted(page, r"^now 0\.001")


@pytest.mark.long
@pytest.mark.parametrize(("scheme", "width"), [pytest.param("light", 1440, marks=pytest.mark.long), ("dark", 390)])
def test_the_marks_can_be_read(page: Page, server: Server, tmp_path: Path, scheme: str, width: int) -> None:
    look(page, scheme, width)
    upload_file = own_run(server)
    open_tab(page, server, "method")
    upload(page, "#yaml-upload", upload_file)
    expect(page.locator(".yaml-said")).to_have_text("mine.yaml loaded")
    fill(page, RATE, "0.003")
    choose(page, "method.name", "DPO")
    noted(page, "kept as you typed it", kept=True)
    page.locator(FIELD).scroll_into_view_if_needed()
    page.screenshot(path=str(tmp_path / f"kept-{scheme}-{width}.png"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious(page) == []

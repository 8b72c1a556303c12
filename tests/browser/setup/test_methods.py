"""A third of the matrix from the browser: method and tuning are chosen by clicks, on the real model, and trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from studio.jobs import find_job, list_jobs, read_events, wait
from tests.browser.setup.test_setup_tabs import fill, open_tab, planned

if TYPE_CHECKING:
    from tests.browser.conftest import Server

# Every method and every tuning, by `make test-all`; most of them by `make test-matrix`.
LONG = [("DPO", "QLoRA"), ("PPO", "LoRA")]
MATRIX = [
    ("KTO", "LoRA"), ("GRPO", "DoRA"), ("Pretraining", "DoRA"), ("DPO", "LoRA"), ("ORPO", "LoRA"), ("KTO", "QLoRA"),
    ("Reward model", "LoRA"), ("SFT", "Full"), ("SFT", "QLoRA"),
]  # fmt: skip
CELLS = [
    *(pytest.param(*cell, marks=pytest.mark.long) for cell in LONG),
    *(pytest.param(*cell, marks=pytest.mark.matrix) for cell in MATRIX),
]


def choose(page: Page, group: str, title: str) -> None:
    """Choose a card; a method brings its demo's settings, which must have arrived before one of them is changed."""
    page.locator(f"#f-{group}-name label").filter(has=page.get_by_text(title, exact=True)).click()
    page.wait_for_timeout(1500)
    planned(page, "!plan.errors.length")


@pytest.mark.parametrize(("method", "tuning"), CELLS)
def test_a_cell_of_the_matrix_from_the_page(page: Page, server: Server, method: str, tuning: str) -> None:
    open_tab(page, server, "method")
    choose(page, "method", method)
    choose(page, "tuning", tuning)
    page.locator("#tab-method button.fold").last.click()
    fill(page, "training.max_steps", "2")
    fill(page, "training.batch_size", "4")
    if method in ("PPO", "GRPO"):
        fill(page, "method.max_completion_length", "6")
    page.get_by_role("tab", name="Data", exact=True).click()
    fill(page, "data.validation", "0")
    page.get_by_role("tab", name="Method", exact=True).click()
    planned(page, "plan.line.includes('2 steps') && !plan.errors.length")
    name = f"{method}-{tuning}".lower().replace(" ", "-")
    page.locator("#tab-method .plan-name").fill(name)
    page.locator("#tab-method .plan-start").click()
    page.wait_for_function("name => window.studio.state.job.endsWith(name)", arg=name)
    job = find_job(server.settings.jobs, name, "train")
    state = wait(job, seconds=300)
    assert state.status == "completed", state.reason
    events, _ = read_events(job.events_path)
    losses = [event for event in events if event["kind"] == "metric" and "loss" in event["values"]]
    assert len(losses) == 2
    expect(page.locator("[data-part=pill]")).to_have_text("Done", timeout=60_000)
    expect(page.locator(".charts .chart").first).to_be_visible()


@pytest.mark.long
def test_the_demo_data_follow_the_method(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    choose(page, "method", "DPO")
    planned(page, "plan.method === 'dpo' && plan.line.includes('steps') && !plan.errors.length")
    page.get_by_role("tab", name="Data", exact=True).click()
    expect(page.locator("#f-data-train")).to_contain_text("demo/pairs_train.jsonl")
    expect(page.locator(".data-state")).to_have_text("ready for DPO")
    expect(page.locator(".row-body .pair")).to_contain_text("Rejected: made less likely")


@pytest.mark.long
def test_a_cell_that_cannot_work_says_why(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    choose(page, "method", "GRPO")
    planned(page, "plan.method === 'grpo' && !plan.errors.length")
    fill(page, "training.batch_size", "6")
    planned(page, "plan.errors[0]?.sentence.includes('the group size 4')")
    before = len(list_jobs(server.settings.jobs))
    page.locator("#tab-method .plan-start").click()
    expect(page.locator("#tab-method .plan-text.wrong")).to_contain_text("the group size 4")
    expect(page.locator("#tab-method .plan-errors")).to_be_hidden()  # there is one, and it is said already
    assert len(list_jobs(server.settings.jobs)) == before, "nothing is started"
    fill(page, "training.batch_size", "8")
    fill(page, "method.rewards", "regex")
    planned(page, "plan.errors[0]?.sentence.includes('needs a pattern')")


@pytest.mark.long
def test_unsloth_is_greyed_with_its_install_line(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    card = page.locator("#f-training-engine label").filter(has=page.get_by_text("Unsloth", exact=True))
    expect(card).to_contain_text("It needs an NVIDIA GPU")
    expect(card).to_contain_text("pip install --no-deps unsloth")
    expect(card.locator("input")).to_be_disabled()
    expect(page.locator("#f-training-engine label.on")).to_contain_text("Studio")
    choose(page, "tuning", "Full")
    expect(page.locator("#f-training-engine")).to_be_hidden()  # it does not train all weights


@pytest.mark.long
def test_the_code_of_a_python_reward_is_shown_before_it_may_run(page: Page, server: Server) -> None:
    file = server.settings.uploads / "rewards.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("def short(completions, **columns):\n    return [-len(one) for one in completions]  # <b>&\n")
    open_tab(page, server, "method")
    choose(page, "method", "GRPO")
    expect(page.locator("#reward-code .code-shown")).to_be_hidden()
    fill(page, "method.rewards", "python")
    expect(page.locator("#f-method-reward_python")).to_be_visible()  # the fold opens, since it is missing
    fill(page, "method.reward_python", f"{file}:short")
    planned(page, "plan.code && plan.errors[0]?.sentence.includes('run with your permissions')")
    expect(page.locator("#reward-code .code-title")).to_have_text("rewards.py")
    expect(page.locator("#reward-code .code-text")).to_have_text(file.read_text())
    page.locator("#f-method-trust_reward_code input").check()
    planned(page, "plan.code && !plan.errors.length")
    fill(page, "method.reward_python", "/etc/rewards.py:short")
    planned(page, "!plan.code && plan.errors[0]?.sentence.includes('may not read')")

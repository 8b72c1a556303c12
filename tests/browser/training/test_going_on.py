"""A training that ended early, and goes on by a click: the real model, a real kill, one curve."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from studio.config.presets import load_named
from studio.jobs import JobFolder, Summaries, list_jobs, submit, wait
from studio.jobs.store.request import Branch
from tests.browser.training.test_training_tab import POINTS, open_page, points

if TYPE_CHECKING:
    from tests.browser.conftest import Server

STEPS, SAVE = 8, 2


def short_run(server: Server) -> JobFolder:
    sets = [
        f"training.max_steps={STEPS}", f"training.save_steps={SAVE}", "training.batch_size=4", "data.validation=0",
    ]  # fmt: skip
    return submit(server.settings, "train", "goes-on", load_named("demo/sft", sets).model_dump(mode="json"))


def until_step(job: JobFolder, step: int) -> None:
    end = time.monotonic() + 240
    while Summaries().of(job).step < step:
        assert not job.state().final and time.monotonic() < end, job.state()
        time.sleep(0.05)


@pytest.mark.long
def test_a_killed_training_goes_on_by_a_click(page: Page, server: Server) -> None:
    job = short_run(server)
    until_step(job, SAVE + 1)
    pid = job.state().pid
    assert pid is not None
    open_page(page, server, f"#job={job.id}&tab=training")
    page.wait_for_function(f"() => ({POINTS})('loss') >= {SAVE + 1}")
    expect(page.locator("[data-part=resume]")).to_be_hidden()
    os.kill(pid, signal.SIGKILL)
    assert wait(job, seconds=60).status == "failed"
    expect(page.locator("[data-part=pill]")).to_have_text("Failed")
    expect(page.locator("[data-part=notices]")).to_contain_text("killed the process (SIGKILL)")
    go_on = page.get_by_role("button", name=re.compile(r"Resume from step \d+"))
    expect(go_on).to_be_visible()
    go_on.click()
    expect(go_on).to_be_hidden()
    expect(page.locator("[data-part=pill]")).to_have_text("Done", timeout=240_000)
    points(page, "loss", STEPS)
    steps = page.evaluate("document.querySelector('[data-chart=loss]').data[1].x")
    assert steps == list(range(1, STEPS + 1))
    assert job.state().attempt == 2
    page.reload()
    points(page, "loss", STEPS)
    assert page.evaluate("document.querySelector('[data-chart=loss]').data[1].x") == steps
    expect(page.locator("[data-part=resume]")).to_be_hidden()
    expect(page.locator("[data-part=phases]")).to_contain_text("resuming")


@pytest.mark.long
def test_a_finished_run_is_branched_by_the_form(page: Page, server: Server, console: list[str]) -> None:
    jobs = list_jobs(server.settings.jobs)
    job = next((one for one in jobs if one.request.name == "goes-on"), None) or short_run(server)
    assert wait(job, seconds=240).status == "completed"
    open_page(page, server, f"#job={job.id}&tab=training")
    page.get_by_role("button", name="Extend …").click()
    extend = page.get_by_role("dialog", name="Extend goes-on")
    extend.get_by_role("button", name="Start", exact=True).click()
    expect(extend.get_by_role("alert")).to_contain_text(f"ends after {STEPS} steps, regardless of the epochs")
    extend.get_by_role("button", name="Cancel").click()
    console.clear()  # the refusal is an answer of status 409

    page.get_by_role("button", name="Branch …").click()
    dialog = page.get_by_role("dialog", name="Branch from goes-on")
    expect(dialog.locator("select")).to_have_value(str(STEPS))
    dialog.locator("select").select_option(str(STEPS - SAVE))
    dialog.get_by_role("button", name="Fill the form").click()
    expect(page.locator(".plan-from:visible")).to_contain_text(f"A branch of goes-on: it starts at step {STEPS - SAVE}")
    page.locator("#tab-method button.fold").last.click()
    page.get_by_label("Maximum steps").fill(str(STEPS + 1))
    page.get_by_label("Batch size").first.fill("2")
    wrong = page.locator(".plan-text.wrong:visible")
    expect(wrong).to_contain_text("cannot change at a checkpoint")
    page.get_by_label("Batch size").first.fill("4")
    expect(wrong).to_have_count(0)
    page.locator(".plan-start:visible").click()
    expect(page.locator("[data-part=name]")).to_have_text(f"goes-on-from-{STEPS - SAVE}")
    expect(page.locator("[data-part=pill]")).to_have_text("Done", timeout=240_000)
    points(page, "loss", STEPS + 1)
    child = next(one for one in list_jobs(server.settings.jobs) if one.request.branch is not None)
    assert child.request.branch == Branch(job.id, STEPS - SAVE)

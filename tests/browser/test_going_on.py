"""A training that ended early, and goes on by a click: the real model, a real kill, one curve."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING

from playwright.sync_api import Page, expect

from studio.config.presets import load_named
from studio.jobs import JobFolder, Summaries, submit, wait
from tests.browser.test_training_tab import POINTS, open_page, points

if TYPE_CHECKING:
    from tests.browser.conftest import Server

STEPS, SAVE = 16, 2


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
    expect(page.locator("[data-part=notices]")).to_contain_text("was killed (SIGKILL)")
    go_on = page.get_by_role("button", name=re.compile(r"Go on from step \d+"))
    expect(go_on).to_be_visible()
    go_on.click()
    expect(go_on).to_be_hidden()
    expect(page.locator("[data-part=pill]")).to_have_text("Done", timeout=120_000)
    points(page, "loss", STEPS)
    steps = page.evaluate("document.querySelector('[data-chart=loss]').data[1].x")
    assert steps == list(range(1, STEPS + 1))
    assert job.state().attempt == 2
    page.reload()
    points(page, "loss", STEPS)
    assert page.evaluate("document.querySelector('[data-chart=loss]').data[1].x") == steps
    expect(page.locator("[data-part=resume]")).to_be_hidden()
    expect(page.locator("[data-part=phases]")).to_contain_text("going on")

"""What a run says of itself in the page: notices with buttons, the log at the line, notifications."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from studio.jobs import find_job, list_jobs, request_stop, wait
from studio.jobs.store.state import write_state
from tests.browser.made import as_text, open_tab, serious

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server

    MakeRun = Callable[..., FakeRun]

HOSTILE = "<img src=x onerror='window.pwned=1'>"
FIX = "The plan counted 2.20 GB (weights 0.54, activations 1.2). Set training.micro_batch_size to 1: it needs 1.10 GB"
# Neither a permission box nor a desktop is there in a headless browser: what the page asks of both is noted.
NOTIFICATIONS = """
window.notes = [];
window.asked = 0;
window.Notification = class {
  static permission = "default";
  static async requestPermission() { window.asked += 1; this.permission = "granted"; return "granted"; }
  constructor(title, options) { window.notes.push({ title, ...options }); window.last = this; }
  close() {}
};
"""
HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
PLACE = """() => {
  const box = document.querySelector('[data-part="lines"]').getBoundingClientRect();
  const mark = document.querySelector(".at").getBoundingClientRect();
  return mark.top >= box.top && mark.bottom <= box.bottom && box.top < innerHeight && box.bottom > 0;
}"""


@pytest.fixture
def context(own_context: BrowserContext) -> BrowserContext:
    """Not shared: the clock is set in one."""
    return own_context


def failed(run: FakeRun, line: int) -> None:
    run.finish("failed", f"the computer's memory was full {HOSTILE}", FIX)
    state = run.job.state().with_(change={"training.micro_batch_size": 1}, line=line)
    write_state(run.job.state_path, state)


@pytest.mark.long
def test_an_error_opens_the_log_at_its_line_and_starts_again_with_the_change(
    page: Page, server: Server, fake_run: MakeRun
) -> None:
    blocker, run = fake_run("blocker"), fake_run("broken")
    run.train(3)
    change = {"training.learning_rate": 0.0002}
    run.events.write("notice", level="warning", text="the loss has not fallen", fix="Lower it", change=change)
    # Longer than what the page loads of a log (256 kB): the line lies before that.
    with run.job.log_path.open("w") as file:
        file.writelines(f"{number} {HOSTILE} {'x' * 60}\n" for number in range(1, 20_001))
    failed(run, 4321)
    open_tab(page, server.url, "training", run.job.id)
    notice = page.locator(".notice.error")
    expect(notice).to_contain_text("The computer's memory was full")
    expect(notice).to_contain_text("The plan counted 2.20 GB (weights 0.54")
    expect(page.locator(".notice.warning").filter(has_text="has not fallen").get_by_role("button")).to_have_text(
        "Restart with learning rate 0.0002"
    )
    notice.get_by_role("button", name="Show in the log").press("Enter")
    mark = page.locator(".at")
    expect(mark).to_have_count(1)
    expect(mark).to_contain_text(f"4321 {HOSTILE}")
    page.wait_for_function(PLACE)
    expect(page.get_by_role("log")).to_be_focused()
    assert page.get_by_role("log").inner_text().startswith("lines 4,121 to 4,521\n")
    as_text(page)
    assert serious(page) == []
    page.get_by_role("button", name="Follow").click()
    expect(mark).to_have_count(0)
    expect(page.get_by_role("log")).to_contain_text("20000 <img")

    notice.get_by_role("button", name="Restart with micro-batch 1").click()
    expect(page.locator('[data-part="name"]')).to_have_text("broken-2", timeout=90_000)
    expect(page.locator(".pill").first).to_have_text("Waiting")
    made = find_job(server.settings.jobs, "broken-2")
    assert made.request.config["training"]["micro_batch_size"] == 1
    request_stop(made)  # while the blocker runs, it waits
    wait(made, seconds=30)
    assert made.state().status == "stopped" and blocker.job.state().status == "running"


@pytest.mark.long
def test_a_change_that_cannot_be_says_why(page: Page, server: Server, fake_run: MakeRun, console: list[str]) -> None:
    blocker, run = fake_run("blocker"), fake_run("broken")
    run.finish("failed", "the loss became nan at step 3", "Lower it")
    write_state(run.job.state_path, run.job.state().with_(change={"training.learning_rate": 7}))
    open_tab(page, server.url, "training", run.job.id)
    button = page.locator(".notice.error").get_by_role("button")
    expect(button).to_have_text("Restart with learning rate 7")
    before = len(list_jobs(server.settings.jobs))
    with page.expect_response(lambda answer: answer.url.endswith("/again")) as refused:
        button.click()
    assert refused.value.status == 409
    expect(page.locator(".notice.error")).to_contain_text("Could not start: ")
    expect(page.locator(".notice.error")).to_contain_text("above 0 and at most 1")
    assert len(list_jobs(server.settings.jobs)) == before and blocker.job.state().status == "running"
    assert len(console) == 1 and "409" in console.pop()


@pytest.mark.long
def test_a_notification_when_a_run_is_over_also_of_a_hidden_tab(
    page: Page, server: Server, fake_run: MakeRun, console: list[str]
) -> None:
    page.add_init_script(NOTIFICATIONS)
    page.clock.install()
    first, second, third = (fake_run(name) for name in ("first", "second", "third"))
    open_tab(page, server.url, "training", first.job.id)
    switch = page.get_by_role("switch", name="Notify me")
    expect(switch).to_have_attribute("aria-checked", "false")
    third.finish()
    expect(page.locator(".runs .run", has_text="third")).to_contain_text("done")
    assert page.evaluate("() => [window.asked, window.notes.length]") == [0, 0], "nothing is asked or shown unasked"
    switch.click()
    expect(switch).to_have_attribute("aria-checked", "true")
    first.train(5)
    first.finish()
    page.wait_for_function("() => window.notes.length === 1")
    note = page.evaluate("() => window.notes[0]")
    assert note["title"] == "first is done" and note["tag"] == f"studio-{first.job.id}"
    assert "best validation loss 0.44" in note["body"]

    page.evaluate(HIDE, True)
    second.finish("failed", "the disk was full", "Free some space")
    page.clock.fast_forward(16_000)
    page.wait_for_function("() => window.notes.length === 2")
    assert page.evaluate("() => window.notes[1].title") == "second failed"
    assert page.evaluate("() => window.notes[1].body").startswith("the disk was full")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.fast_forward(60_000)
    page.wait_for_timeout(500)
    assert asked == [], "with nothing left to wait for, a hidden tab asks for nothing"
    page.evaluate("() => window.last.onclick()")
    page.evaluate(HIDE, False)
    expect(page.locator('[data-part="name"]')).to_have_text("second")
    page.wait_for_timeout(1500)
    assert page.evaluate("() => window.notes.length") == 2, "told once"

    page.reload()
    expect(switch).to_have_attribute("aria-checked", "false")  # of this made browser, which forgot its leave
    assert page.evaluate("() => localStorage.getItem('studio.notify')") == "on"
    console.clear()

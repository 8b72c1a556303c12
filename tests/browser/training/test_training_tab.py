"""The frame and the Training tab in a real browser, over runs written by hand."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Locator, Page, expect

from studio.config.jobs import EvaluateConfig
from tests.browser.made import serious

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server

    MakeRun = Callable[..., FakeRun]
    Settle = Callable[[], None]

HOSTILE = "<img src=x onerror='window.pwned=1'> ${window.pwned=1} <script>window.pwned=1</script>"
POINTS = "name => document.querySelector(`[data-chart=${name}]`)?.data?.[name === 'loss' ? 1 : 0].x.length || 0"
RANGES = "() => { const a = document.querySelector('[data-chart=loss]').layout; return [a.xaxis.range, a.yaxis.range] }"


def open_page(page: Page, server: Server, address: str = "") -> None:
    page.goto(server.url + address)
    expect(page.get_by_role("tab", name="Training", exact=True)).to_be_visible()


def reopen(page: Page) -> Page:
    """Close the tab and open its address in another one."""
    address, tab = page.url, page.context.new_page()
    page.close()
    tab.goto(address)
    return tab


def points(page: Page, chart: str, count: int) -> None:
    page.wait_for_function(f"count => ({POINTS})('{chart}') === count", arg=count)


def drag(page: Page, plot: Locator) -> None:
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 80, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 220, box["y"] + 150, steps=6)
    page.mouse.up()


@pytest.mark.long
def test_empty_page_offers_the_demo(page: Page, server: Server) -> None:
    open_page(page, server)
    expect(page.get_by_role("heading", name="Nothing has been trained yet")).to_be_visible()
    expect(page.get_by_role("button", name="Start the demo", exact=True)).to_have_count(1)
    expect(page.locator("#monitor")).to_be_hidden()
    assert serious(page) == []
    page.get_by_role("button", name="Choose a model", exact=True).click()
    expect(page.get_by_role("tab", name="Model", exact=True)).to_have_attribute("aria-selected", "true")


@pytest.mark.long
def test_phases_then_curve_then_the_same_after_reopening(page: Page, server: Server, fake_run: MakeRun) -> None:
    run = fake_run("live")
    run.phase("preparing model", 3e8, 1e9, "bytes")
    open_page(page, server)
    expect(page.get_by_role("heading", name="live", exact=True)).to_be_visible()
    expect(page.locator("[data-part=count]")).to_have_text("preparing model: 300 MB of 1.00 GB")
    run.phase("tokenizing", 20, 500, "examples")
    expect(page.locator("[data-part=count]")).to_have_text("tokenizing: 20 of 500 examples")
    run.train(12)
    points(page, "loss", 12)
    expect(page.locator("[data-part=count]")).to_have_text("step 12 of 40")
    expect(page.locator("[data-tile=eval_loss] b")).to_have_text("0.2200")
    expect(page.locator("[data-tile=eval_loss] em")).to_have_text("best, step 10")
    expect(page.locator("[data-tile=memory]")).to_contain_text("planned 2.20 GB")
    expect(page.locator("[data-part=left]")).to_contain_text("left")
    run.train(3)
    points(page, "grad_norm", 15)
    assert f"job={run.job.id}" in page.url
    expect(page.locator(".run.on")).to_contain_text("step 15 of 40")
    page = reopen(page)
    points(page, "loss", 15)
    run.train(25)
    run.finish()
    points(page, "loss", 40)
    expect(page.locator("[data-part=pill]")).to_have_text("Done")
    expect(page.locator("#tab-training-summary")).to_contain_text("done")


@pytest.mark.long
def test_zoom_and_hover_survive_updates(page: Page, server: Server, fake_run: MakeRun) -> None:
    run = fake_run("zoom")
    run.train(20)
    open_page(page, server)
    points(page, "loss", 20)
    drag(page, page.locator("[data-chart=loss]"))
    page.wait_for_function(f"() => ({RANGES})()[0][1] < 30")
    zoomed = page.evaluate(RANGES)
    box = page.locator("[data-chart=grad_norm]").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 120, box["y"] + 100)
    label = page.locator("[data-chart=grad_norm] .hoverlayer")
    expect(label).to_contain_text("1.")
    told = label.text_content()
    for _ in range(2):
        run.train(2)
        points(page, "loss", run.step)
    assert page.evaluate(RANGES) == zoomed
    assert label.text_content() == told


@pytest.mark.long
def test_other_axes_and_comparison(page: Page, server: Server, fake_run: MakeRun) -> None:
    other = fake_run("older")
    other.train(30)
    other.finish()
    run = fake_run("newer")
    run.train(10)
    open_page(page, server)
    points(page, "loss", 10)
    page.get_by_role("button", name="Tokens", exact=True).click()
    page.wait_for_function("() => document.querySelector('[data-chart=loss]').data[1].x[0] === 600")
    page.get_by_role("button", name="Log", exact=True).click()
    page.wait_for_function("() => document.querySelector('[data-chart=loss]').layout.yaxis.type === 'log'")
    page.get_by_label("Compare with").select_option("older")
    page.wait_for_function("() => document.querySelector('[data-chart=loss]').data[3].x.length === 30")
    page.get_by_label("Smoothing").fill("0")
    page.wait_for_function(
        "() => { const [raw, smooth] = document.querySelector('[data-chart=loss]').data;"
        " return smooth.y.every((y, i) => Math.abs(y - raw.y[i]) < 1e-9) }"
    )


@pytest.mark.long
def test_hostile_text_is_text(page: Page, server: Server, fake_run: MakeRun) -> None:
    run = fake_run("x")
    raw = run.job.path / "job.yaml"
    raw.write_text(raw.read_text().replace("name: x\n", f"name: {json.dumps(HOSTILE)}\n"))
    run.train(2)
    run.log(f"error: {HOSTILE}")
    run.events.write("notice", level="warning", text=HOSTILE, fix=HOSTILE)
    run.events.write("sample", step=1, prompt=HOSTILE, text=HOSTILE)
    run.phase(HOSTILE, 1, 2, HOSTILE)
    open_page(page, server)
    expect(page.locator(".log")).to_contain_text(HOSTILE)
    expect(page.locator("[data-part=notices]")).to_contain_text(HOSTILE)
    expect(page.locator("[data-part=sample-rows]")).to_contain_text(HOSTILE)
    expect(page.locator("[data-part=count]")).to_contain_text(HOSTILE)
    expect(page.locator(".run b").first).to_have_text(HOSTILE)
    expect(page.locator("[data-part=name]")).to_have_text(HOSTILE)
    assert page.evaluate("window.pwned") is None


@pytest.mark.long
def test_where_trackers_show_the_run(page: Page, server: Server, fake_run: MakeRun) -> None:
    run = fake_run("tracked")
    command, address = "tensorboard --logdir /home/ada/my-runs", "https://wandb.ai/ada/orders/runs/1a2b"
    told = {
        "tensorboard": {"title": "TensorBoard", "command": command}, "wandb": {"title": "W&B", "url": address},
        "mlflow": {"title": HOSTILE, "url": "javascript:window.pwned=1"}, "trackio": "no place",
        "other": {"title": HOSTILE, "url": "javascript:window.pwned=1", "command": HOSTILE},
    }  # fmt: skip
    run.write("result", name="trackers", values=told)
    run.train(2)
    open_page(page, server)
    trackers = page.locator("[data-part=trackers]")
    link = trackers.get_by_role("link")
    expect(link).to_have_text(address)
    assert [link.get_attribute(name) for name in ("href", "target", "rel")] == [
        address,
        "_blank",
        "noopener noreferrer",
    ]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    trackers.get_by_role("button", name="Copy the command for TensorBoard", exact=True).click()
    expect(trackers.get_by_role("button", name="TensorBoard")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == command
    expect(trackers.locator("dt")).to_have_text(["TensorBoard", "W&B", HOSTILE])
    assert page.evaluate("window.pwned") is None and serious(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    other = fake_run("other")
    other.train(2)
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(f"{server.url}?job={other.job.id}")
    expect(page.get_by_role("heading", name="other", exact=True)).to_be_visible()
    expect(trackers).to_be_hidden()


@pytest.mark.long
def test_log_follows_filters_and_searches(page: Page, server: Server, fake_run: MakeRun) -> None:
    run = fake_run("log")
    for number in range(200):
        run.log(f"line {number}")
    run.log("warning: the disk is almost full")
    open_page(page, server)
    log = page.locator(".log")
    expect(log).to_contain_text("almost full")
    assert log.evaluate("log => log.scrollTop + log.clientHeight >= log.scrollHeight - 2")
    run.log("line last")
    expect(log).to_contain_text("line last")
    page.get_by_role("button", name="Warnings 1", exact=True).click()
    expect(log).to_have_text("warning: the disk is almost full\n", use_inner_text=False)
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_label("Search the log").fill("LINE 19")
    expect(log).to_contain_text("line 199")
    expect(log).not_to_contain_text("line 18")


@pytest.mark.long
def test_stop_asks_first_and_then_offers_to_stop_now(page: Page, server: Server, fake_run: MakeRun) -> None:
    run = fake_run("stop-me")
    run.train(3)
    open_page(page, server)
    page.get_by_role("button", name="Stop and save", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Stop stop-me?")
    dialog.get_by_role("button", name="Keep running", exact=True).click()
    expect(dialog).to_be_hidden()
    assert not run.job.stop_path.exists()
    page.get_by_role("button", name="Stop and save", exact=True).click()
    dialog.get_by_role("button", name="Stop and save", exact=True).click()
    expect(page.locator("[data-part=pill]")).to_have_text("Stopping")
    assert json.loads(run.job.stop_path.read_text())["now"] is False
    page.get_by_role("button", name="Stop now", exact=True).click()
    dialog.get_by_role("button", name="Stop now", exact=True).click()
    expect(page.locator("[data-part=pill]")).to_have_text("Stopped")
    assert run.process.wait(20) == -signal.SIGTERM
    expect(page.get_by_role("button", name="Stop now", exact=True)).to_be_hidden()


@pytest.mark.long
def test_a_failure_says_why_and_what_to_change(page: Page, server: Server, fake_run: MakeRun) -> None:
    run = fake_run("bad")
    run.train(3)
    run.finish("failed", "the loss became nan at step 3", "Lower training.learning_rate (it is 0.1)")
    open_page(page, server)
    expect(page.locator(".notice.error")).to_contain_text("The loss became nan at step 3.")
    expect(page.locator(".notice.error")).to_contain_text("Lower training.learning_rate (it is 0.1).")
    expect(page.locator("[data-part=pill]")).to_have_text("Failed")


@pytest.mark.long
@pytest.mark.parametrize("typed", ["", "half a word"])
def test_a_killed_web_process_ends_nothing(
    page: Page, server: Server, fake_run: MakeRun, console: list[str], settle: Settle, typed: str
) -> None:
    run = fake_run("survivor")
    run.train(4)
    open_page(page, server)
    points(page, "loss", 4)
    settle()  # gradio reloads a page whose event it lost; an idle one it leaves alone
    page.get_by_label("Search the log").fill(typed)
    server.end(signal.SIGKILL)
    expect(page.locator("[data-part=problem]")).to_contain_text("does not respond")
    assert run.process.poll() is None
    run.train(4)
    server.start()
    points(page, "loss", 8)
    expect(page.locator("[data-part=problem]")).to_be_hidden()
    expect(page.get_by_label("Search the log")).to_have_value(typed)
    os.kill(run.process.pid, 0)
    console.clear()  # the browser logs each request that found nobody


@pytest.mark.long
def test_evaluation_shows_phases_without_charts(page: Page, server: Server, fake_run: MakeRun) -> None:
    run = fake_run("evaluation", "evaluate", EvaluateConfig(run="demo").model_dump(mode="json"))
    run.phase("answering before", 34, 120, "rows")
    open_page(page, server)
    expect(page.locator("[data-part=count]")).to_have_text("answering before: 34 of 120 rows")
    expect(page.locator("#monitor .charts")).to_be_hidden()


@pytest.mark.long
def test_dark_is_kept_and_reaches_the_charts(page: Page, server: Server, fake_run: MakeRun) -> None:
    run = fake_run("dark")
    run.train(5)
    open_page(page, server)
    points(page, "loss", 5)
    colour = "() => document.querySelector('[data-chart=loss]').data[1].line.color"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Toggle dark mode", exact=True).click()
    page.wait_for_function(f"light => ({colour})() !== light", arg=light)
    page = reopen(page)
    points(page, "loss", 5)
    assert page.evaluate("document.body.classList.contains('dark')") is True
    assert page.evaluate(colour) != light


@pytest.mark.long
@pytest.mark.parametrize("theme", ["dark", pytest.param("light", marks=pytest.mark.long)])
def test_axe_finds_nothing_serious(page: Page, server: Server, fake_run: MakeRun, theme: str) -> None:
    run = fake_run("axe")
    run.train(12)
    run.log("a line")
    run.log("error: a red line")
    run.events.write("sample", step=1, prompt="a question", text="an answer")
    run.events.write("notice", level="warning", text="a warning", fix="a fix")
    fake_run("other").finish("failed", "a reason", "a fix")
    page.emulate_media(color_scheme=theme)
    open_page(page, server, f"#job={run.job.id}")
    points(page, "loss", 12)
    assert serious(page) == []


@pytest.mark.long
def test_narrow_screens_have_a_drawer_and_no_sideways_scroll(page: Page, server: Server, fake_run: MakeRun) -> None:
    first, second = fake_run("first"), fake_run("second")
    first.train(3)
    second.train(6)
    page.set_viewport_size({"width": 390, "height": 844})
    open_page(page, server)
    points(page, "loss", 6)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    toggle = page.get_by_role("button", name="Runs (2)", exact=True)
    expect(page.locator(".new-run")).to_be_hidden()
    toggle.click()
    page.locator(".run", has_text="first").click()
    expect(page.get_by_role("heading", name="first", exact=True)).to_be_visible()
    expect(page.locator(".new-run")).to_be_hidden()


@pytest.mark.long
def test_keyboard_reaches_tabs_and_runs(page: Page, server: Server, fake_run: MakeRun) -> None:
    fake_run("one").train(1)
    fake_run("two").train(1)
    open_page(page, server)
    expect(page.get_by_role("heading", name="two", exact=True)).to_be_visible()
    page.locator(".run", has_text="one").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="one", exact=True)).to_be_visible()
    page.get_by_role("tab", name="Training", exact=True).focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Chat", exact=True)).to_have_attribute("aria-selected", "true")


@pytest.mark.long
def test_a_hidden_page_asks_for_nothing(page: Page, server: Server, fake_run: MakeRun) -> None:
    fake_run("quiet").train(2)
    open_page(page, server)
    points(page, "loss", 2)
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.wait_for_timeout(1500)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(3000)
    assert asked == []

"""Signing in and out in a real browser, and script in every text that reaches the page."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from studio.config.jobs import EvaluateConfig
from studio.jobs import JobFolder
from studio.jobs.store.files import write_json
from studio.settings import Settings
from tests.browser.made import as_text, open_tab, serious
from tests.browser.results.test_chat import DRAWN
from tests.browser.setup.test_setup_tabs import upload
from tests.support.ports import free_port
from tests.support.prepared import link_model
from tests.ui.made_jobs import SCRIPT, finish, made_evaluation, made_export, made_run
from tests.ui.server.test_app import start, wait_until_up

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server

PASSWORD = "correct horse battery"
# What a name of a file can hold: no slash.
NAME = "<img src=x onerror=window.pwned=4>"
SEEN = "() => document.body.innerText.includes('pwned')"


@pytest.fixture
def context(own_context: BrowserContext) -> BrowserContext:
    """Not shared: its cookies are looked at."""
    return own_context


@pytest.fixture
def closed(tmp_path: Path, model_path: Path) -> Iterator[str]:
    """The address of a page with a password."""
    link_model(model_path, tmp_path / "home")
    port = free_port()
    process = start(tmp_path / "home", port, STUDIO_PASSWORD=PASSWORD)
    try:
        wait_until_up(process, port)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.long
def test_sign_in_work_and_sign_out(page: Page, closed: str, console: list[str]) -> None:
    page.goto(closed)
    assert serious(page) == []
    field = page.get_by_label("Password")
    field.fill("wrong password")
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("Wrong password.")
    assert all("401" in line for line in console) and console
    console.clear()
    field.fill(PASSWORD)
    field.press("Enter")
    expect(page.get_by_role("tab", name="Training", exact=True)).to_be_visible()
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and PASSWORD not in cookie["value"]
    key = page.evaluate("localStorage.getItem('studio.session')")
    assert page.evaluate("document.cookie") == "" and key and key not in cookie["value"]
    # gradio's own requests carry it too.
    page.get_by_role("tab", name="Data", exact=True).click()
    page.locator("#data-path input, #data-path textarea").fill("/etc/passwd")
    page.locator("#data-add").click()
    expect(page.locator("#data-problem")).to_contain_text("may not read")
    out = page.get_by_role("button", name="Sign out", exact=True)
    page.set_viewport_size({"width": 390, "height": 844})
    expect(out).to_be_hidden()
    page.get_by_role("button", name="Runs", exact=True).click()
    expect(out).to_be_in_viewport()
    expect(page.get_by_role("button", name="Sign out everywhere", exact=True)).to_be_in_viewport()
    out.click(trial=True)  # nothing lies over it
    page.set_viewport_size({"width": 1440, "height": 900})
    out.scroll_into_view_if_needed()
    out.click()
    expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    page.goto(closed)
    expect(page.get_by_label("Password")).to_be_visible()
    page.context.add_cookies([cookie])
    page.evaluate("key => localStorage.setItem('studio.session', key)", key)
    page.goto(closed)  # a copy of it all is of no use
    expect(page.get_by_label("Password")).to_be_visible()
    console.clear()


def hostile_run(run: FakeRun) -> JobFolder:
    """A failed run that says the script in everything a run can say."""
    raw = run.job.path / "job.yaml"
    raw.write_text(re.sub(r"^name: .*$", f"name: {json.dumps(SCRIPT)}", raw.read_text(), flags=re.MULTILINE))
    run.train(3)
    run.events.write("metric", step=4, total_steps=40, values={SCRIPT: 1.0, "loss": 0.5, "eval_loss": 0.4}, tokens=9)
    run.events.write("notice", level="warning", text=SCRIPT, fix=SCRIPT)
    run.events.write("sample", step=1, prompt=SCRIPT, text=SCRIPT)
    run.events.write("result", name=SCRIPT, values={SCRIPT: SCRIPT})
    run.phase(SCRIPT, 1, 2, SCRIPT)
    run.log(f"error: {SCRIPT}\nTraceback: {SCRIPT}")
    write_json(run.job.environment_path, {
        "plan": {"total_bytes": 1, "choices": {SCRIPT: {"value": SCRIPT, "reason": SCRIPT}}},
        "base_model": {"name": SCRIPT, "path": SCRIPT}, "versions": {SCRIPT: SCRIPT}, "device": SCRIPT,
    })  # fmt: skip
    run.finish("failed", SCRIPT, SCRIPT)
    return run.job


def hostile_files(settings: Settings) -> Path:
    """A model and data under a name that is markup, with rows that hold the script everywhere."""
    models = [path for path in settings.models.iterdir() if path.is_dir() and not path.name.startswith(".")]
    shutil.copytree(models[0], settings.models / NAME, copy_function=os.link)
    settings.uploads.mkdir(exist_ok=True)
    rows = settings.uploads / f"{NAME}.jsonl"
    said = {"role": "user", "content": SCRIPT}, {"role": "assistant", "content": SCRIPT}
    rows.write_text("".join(json.dumps({"messages": said, SCRIPT: SCRIPT, "id": number}) + "\n" for number in range(8)))
    return rows


@pytest.mark.long
def test_script_in_every_text_runs_nowhere(
    page: Page, server: Server, fake_run: Callable[..., FakeRun], leftovers: list[Path], tmp_path: Path,
    console: list[str],
) -> None:  # fmt: skip
    """Data, log, notices, metrics, samples, names of runs, models and files, errors, YAML, answers: on every tab."""
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    settings = server.settings
    rows = hostile_files(settings)
    leftovers += [settings.models / NAME, settings.jobs]
    failed = hostile_run(fake_run("hostile"))
    run = made_run(settings.jobs, "whole")
    write_json(run.environment_path, {"base_model": {"name": SCRIPT, "path": SCRIPT}})
    judged, exported = made_evaluation(settings.jobs, run), made_export(settings.jobs, run)
    wrong = fake_run("wrong", kind="evaluate", config=EvaluateConfig(run=run.id).model_dump(mode="json"))
    wrong.finish("failed", SCRIPT, SCRIPT)

    def unharmed(what: str) -> None:
        page.wait_for_timeout(300)  # an image's error comes after it was drawn
        as_text(page)
        assert dialogs == [], what

    for job in (failed, run, wrong.job):
        open_tab(page, server.url, "training", job.id)
        page.wait_for_function(SEEN)
        unharmed(f"training of {job.id}")
    open_tab(page, server.url, "model", run.id)
    page.locator("#model-cards").get_by_text(NAME).first.click()
    expect(page.locator("#model-facts")).to_contain_text(NAME)
    unharmed("model")
    page.get_by_role("tab", name="Data", exact=True).click()
    for text in (str(rows), SCRIPT, f"/nowhere/{NAME}.jsonl"):
        page.locator("#data-path input, #data-path textarea").fill(text)
        page.locator("#data-add").click()
        expect(page.locator("#f-data-train" if text == str(rows) else "#data-problem")).to_contain_text("pwned")
    expect(page.locator("#row-view")).to_contain_text("pwned")
    unharmed("data")
    page.get_by_role("tab", name="Method", exact=True).click()
    for number, text in enumerate(
        (f"{json.dumps(SCRIPT)}: 1\n", f"model: {{path: {json.dumps(SCRIPT)}}}\n", f"[{SCRIPT}")
    ):
        file = tmp_path / f"{number}{NAME}.yaml"
        file.write_text(text)
        upload(page, "#yaml-upload", file)
        expect(page.locator("#yaml")).to_contain_text("pwned")
        unharmed(f"YAML {number}")
    for tab, job in (("chat", run), ("export", exported), ("training", judged)):
        open_tab(page, server.url, tab, job.id)
        page.wait_for_function(SEEN)
        unharmed(tab)
    open_tab(page, server.url, "chat", run.id)
    page.wait_for_function("() => window.studioChat !== undefined")
    assert page.evaluate(DRAWN, SCRIPT) == {"texts": [SCRIPT, SCRIPT], "nodes": 0}
    unharmed("answers")
    finish(run)
    console[:] = [line for line in console if "400" not in line]

"""The line of waiting runs in a real browser: order, removal, edit, duplicate and a sweep, behind a run that runs."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Page, expect

from studio.config.presets import load_named
from studio.jobs import JobFolder, list_jobs, wait
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import write_state
from tests.browser.made import serious
from tests.browser.setup.test_setup_tabs import fill, open_tab, planned, said, value

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser.conftest import FakeRun, Server

    Queue = Callable[..., JobFolder]


@pytest.fixture
def queue(server: Server, fake_run: Callable[..., FakeRun], leftovers: list[Path]) -> Iterator[Queue]:
    """Put runs into the line behind one that runs; whatever waits at the end is taken out before that one ends."""
    fake_run("busy").train(3)

    def make(name: str, *sets: str) -> JobFolder:
        config = load_named("demo/sft", list(sets)).model_dump(mode="json")
        return create_job(server.settings.jobs, "train", name, config)

    yield make
    for job in list_jobs(server.settings.jobs):
        leftovers.append(job.path)
        if job.state().status == "queued":
            write_state(job.state_path, job.state().with_(status="stopped", finished=time.time()))


def rows(server: Server) -> dict[str, dict[str, Any]]:
    """What the page is told of each job, by its name."""
    with urllib.request.urlopen(f"{server.url}api/jobs", timeout=10) as answer:
        return {row["name"]: row for row in json.load(answer)}


def line(server: Server) -> list[str]:
    """Names of those that wait, in their order."""
    waiting = sorted((row["place"], name) for name, row in rows(server).items() if row["status"] == "queued")
    return [name for _, name in waiting]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def asked(job: JobFolder) -> dict[str, Any]:
    """What job.yaml says now."""
    return JobFolder(job.path).request.config


@pytest.mark.long
def test_the_line_is_reordered_and_a_run_is_removed(page: Page, server: Server, queue: Queue) -> None:
    first, second, third = (queue(name) for name in ("first", "second", "third"))
    page.goto(f"{server.url}#tab=training&job={third.id}")
    shown = page.locator(".runs .run b")
    expect(shown).to_have_text(["busy", "first", "second", "third"])
    up = page.get_by_role("button", name="Move third up")
    up.focus()
    page.keyboard.press("Enter")
    expect(shown).to_have_text(["busy", "first", "third", "second"])
    expect(up).to_be_focused()
    assert line(server) == ["first", "third", "second"]
    acts = page.locator(".queue-acts")
    acts.get_by_role("button", name="Move up").click()
    expect(shown).to_have_text(["busy", "third", "first", "second"])
    expect(page.locator("[data-part=count]")).to_have_text("waiting, next in line")
    expect(acts.get_by_role("button", name="Move up")).to_be_disabled()
    acts.get_by_role("button", name="Move down").click()
    until(lambda: line(server) == ["first", "third", "second"])
    assert serious(page) == []
    page.get_by_role("button", name="Remove from the queue").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("It stays in the list as stopped, with its settings.")
    dialog.get_by_role("button", name="Keep it queued").click()
    assert third.state().status == "queued" and not third.stop_path.exists()
    page.get_by_role("button", name="Remove from the queue").click()
    dialog.get_by_role("button", name="Remove", exact=True).click()
    assert wait(third, seconds=30).status == "stopped"
    expect(page.locator("[data-part=pill]")).to_have_text("Stopped")
    assert line(server) == ["first", "second"]
    assert {first.state().status, second.state().status} == {"queued"}


@pytest.mark.long
def test_a_waiting_run_is_edited_and_the_form_gets_back_what_it_had(
    page: Page, server: Server, queue: Queue, console: list[str]
) -> None:
    job = queue("waits", "training.epochs=4", "tuning.rank=8")
    before = asked(job)
    open_tab(page, server, "method")
    fill(page, "training.epochs", "7")
    planned(page, "plan.line.includes('7 epochs')")

    def edit() -> None:
        page.locator(".runs .run", has_text="waits").click()
        page.locator(".queue-acts").get_by_role("button", name="Edit").click()
        planned(page, "plan.what.startsWith('LoRA r8')")
        expect(page.locator("#tab-method .plan-from")).to_contain_text("Changing waits, which waits in the queue.")

    edit()
    assert value(page, "training.epochs") == "4"
    expect(page.locator("#tab-method .plan-name")).to_be_hidden()
    expect(page.locator("#sweep-card")).to_be_hidden()
    fill(page, "training.epochs", "5")
    planned(page, "plan.line.includes('5 epochs')")
    page.get_by_role("button", name="Discard changes").click()
    planned(page, "plan.line.includes('7 epochs')")
    expect(page.locator("#tab-method .plan-start")).to_have_text("Add to queue")
    assert asked(job) == before

    edit()
    page.reload()  # the way out and the way in survive it
    open_tab(page, server, "method")
    fill(page, "training.epochs", "5")
    planned(page, "plan.line.includes('5 epochs')")
    page.locator("#tab-method .plan-start").get_by_text("Save changes to waits").click()
    expect(page.get_by_role("tab", name="Training", exact=True)).to_have_attribute("aria-selected", "true")
    assert asked(job)["training"]["epochs"] == 5
    assert {**asked(job), "training": {}, "data": {}} == {**before, "training": {}, "data": {}}
    assert job.state().status == "queued" and len(rows(server)) == 2
    page.get_by_role("tab", name="Method", exact=True).click()
    planned(page, "plan.line.includes('7 epochs')")

    edit()
    kept = asked(job)
    fill(page, "training.epochs", "6")
    planned(page, "plan.line.includes('6 epochs')")
    write_state(job.state_path, job.state().with_(status="stopped", finished=time.time()))
    page.locator("#tab-method .plan-start").click()
    refused = page.locator(".refused")
    expect(refused).to_contain_text(
        "'waits' has already started (stopped), so its settings cannot change. Duplicate it"
    )
    assert serious(page) == []
    refused.get_by_role("button", name="Close").click()
    expect(refused).to_have_count(0)
    console.clear()  # the refusal is an answer of status 500
    expect(page.locator("#tab-method .plan-from")).to_contain_text("has already started with its old settings")
    assert asked(job) == kept


@pytest.mark.long
def test_a_run_is_duplicated_and_values_are_swept(page: Page, server: Server, queue: Queue) -> None:
    old = queue("old", "training.epochs=4", "tuning.rank=8", "training.seed=11")
    write_state(old.state_path, old.state().with_(status="failed", reason="x", finished=time.time()))
    page.goto(f"{server.url}#tab=training&job={old.id}")
    page.locator(".queue-acts").get_by_role("button", name="Use as draft").click()
    planned(page, "plan.what.startsWith('LoRA r8') && plan.line.includes('4 epochs')")
    expect(page.locator("#tab-method .plan-from")).to_contain_text("The settings of old, for a new run.")
    expect(page.locator("#tab-method .plan-name")).to_have_value("old-2")
    page.locator("#tab-method .plan-start").click()
    until(lambda: line(server) == ["old-2"])
    copy = next(job for job in list_jobs(server.settings.jobs) if job.request.name == "old-2")
    assert {**copy.request.config, "data": {}} == {**old.request.config, "data": {}}
    page.get_by_role("tab", name="Method", exact=True).click()
    expect(page.locator("#tab-method .plan-from")).to_be_hidden()

    page.get_by_role("button", name="Try values of an option").click()
    page.get_by_role("combobox", name="Option").fill("training.learning_rate")
    page.get_by_role("textbox", name="Values").fill("1e-4, nothing")
    page.get_by_role("textbox", name="Values").blur()
    planned(page, "plan.errors.length")
    assert "Learning rate" in said(page, "method") and "nothing" in said(page, "method")
    page.get_by_role("textbox", name="Values").fill("1e-4, 2e-4")
    page.get_by_role("button", name="Try values of an option").click()
    page.get_by_role("combobox", name="Option").last.fill("tuning.rank")
    page.get_by_role("textbox", name="Values").last.fill("4, 8, 16")
    page.get_by_role("textbox", name="Values").last.blur()
    planned(page, "plan.sweep?.count === 6")
    expect(page.locator(".sweep-said")).to_contain_text("makes 6 runs")
    assert serious(page) == []
    page.locator("#tab-method .plan-name").fill("grid")
    page.locator("#tab-method .plan-name").blur()
    page.locator("#tab-method .plan-start").get_by_text("Add 6 runs to queue").click()
    until(lambda: len(line(server)) == 7)
    found = {name: row for name, row in rows(server).items() if row["group"]}
    assert sorted(found) == sorted(
        f"grid-learning_rate-{rate}-rank-{rank}" for rate in ("0.0001", "0.0002") for rank in (4, 8, 16)
    )
    assert len({row["group"] for row in found.values()}) == 1
    made = {job.request.name: job.request.config for job in list_jobs(server.settings.jobs)}
    config = made["grid-learning_rate-0.0002-rank-16"]
    assert (config["training"]["learning_rate"], config["tuning"]["rank"], config["training"]["seed"]) == (2e-4, 16, 11)
    page.get_by_role("tab", name="Method", exact=True).click()
    expect(page.locator(".sweep-row")).to_have_count(0)

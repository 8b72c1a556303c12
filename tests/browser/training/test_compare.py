"""Choosing, comparing and keeping runs in a real browser, over runs written by hand; kept is what the disk says."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Page, Route, expect

from studio.jobs import JobFolder, read_events
from studio.jobs.store.labels import Labels, change_labels
from studio.jobs.store.request import write_request
from tests.browser.made import as_text, serious
from tests.jobs.made import trained

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server

    MakeRun = Callable[..., FakeRun]
    MakeDone = Callable[..., JobFolder]

HOSTILE = "<img src=x onerror='window.pwned=1'> ${window.pwned=1}"
TRACES = """chart => (document.querySelector(`#comparison [data-chart="${chart}"]`)?.data || [])
  .map(({name, x, y, line}) => ({name, x: [...x], y: [...y], dash: line.dash, colour: line.color}))"""


@pytest.fixture
def done(server: Server, tmp_path: Path, leftovers: list[Path]) -> MakeDone:
    """Make trainings that are over in the server's home."""

    def make(name: str, losses: list[float] | None = None, **more: Any) -> JobFolder:
        # Made elsewhere and moved: no supervisor may see it before it is over.
        made = trained(tmp_path / "made", name, losses, **more)
        server.settings.jobs.mkdir(exist_ok=True)
        job = JobFolder(made.path.rename(server.settings.jobs / made.id))
        leftovers.append(job.path)
        return job

    return make


def open_page(page: Page, server: Server, job: JobFolder) -> None:
    page.goto(f"{server.url}#tab=training&job={job.id}")
    expect(page.locator("#monitor [data-part=pill]")).to_have_text("Done")


def choose(page: Page, *names: str) -> None:
    page.get_by_role("button", name="Select", exact=True).click()
    for name in names:
        page.get_by_label(f"Select {name}", exact=True).check()


def wait_for_points(page: Page, chart: str, counts: list[int]) -> list[dict[str, Any]]:
    page.wait_for_function(
        f"([chart, counts]) => JSON.stringify(({TRACES})(chart).map((one) => one.x.length)) === JSON.stringify(counts)",
        arg=[chart, counts],
    )
    return list(page.evaluate(TRACES, chart))


def metric(job: JobFolder, name: str, x: str = "step") -> tuple[list[Any], list[Any]]:
    events = [event for event in read_events(job.events_path)[0] if name in event.get("values", {})]
    return [event[x] for event in events], [event["values"][name] for event in events]


@pytest.mark.long
def test_runs_over_each_other_with_what_differs(page: Page, server: Server, done: MakeDone, fake_run: MakeRun) -> None:
    first = done("first", [0.9, 0.5, 0.7], tuning={"rank": 8})
    second = done("second", [0.8, 0.6], tuning={"rank": 32}, training={"epochs": 3})
    live = fake_run("live")
    live.train(5)
    open_page(page, server, first)
    choose(page, "first", "second", "live")
    page.get_by_role("button", name="Compare 3", exact=True).click()
    expect(page.get_by_role("heading", name="Comparison of 3 runs")).to_be_visible()
    expect(page.locator("#monitor")).to_be_hidden()
    # As the list shows them: newest first.
    jobs = sorted([first, second, live.job], key=lambda job: job.id, reverse=True)
    counts = {first.id: (30, 3), second.id: (20, 2), live.job.id: (5, 1)}
    drawn = wait_for_points(page, "eval_loss", [counts[job.id][1] for job in jobs])
    assert [(one["x"], one["y"]) for one in drawn] == [metric(job, "eval_loss") for job in jobs]
    assert [one["name"] for one in drawn] == [job.name for job in jobs]
    assert len({one["dash"] for one in drawn}) == len({one["colour"] for one in drawn}) == 3
    page.locator("#comparison").get_by_label("Smoothing").fill("0")
    page.locator("#comparison").get_by_role("button", name="Tokens", exact=True).click()
    page.wait_for_function(f"() => ({TRACES})('loss').some((one) => one.x[0] === 100)")
    drawn = wait_for_points(page, "loss", [counts[job.id][0] for job in jobs])
    for one, job in zip(drawn, jobs, strict=True):
        tokens, losses = metric(job, "loss", "tokens")
        assert one["x"] == tokens and one["y"] == pytest.approx(losses)
    live.train(5)
    wait_for_points(page, "loss", [10 if job is live.job else counts[job.id][0] for job in jobs])

    table = page.locator("#comparison table")
    expect(table.locator("tr[data-key]").first).to_be_visible()
    keys = table.locator("tr[data-key]").evaluate_all("rows => rows.map((row) => row.dataset.key)")
    assert [key for key in keys if "." in key] == ["tuning.rank", "training.epochs"]
    ranks = {first.id: "8", second.id: "32", live.job.id: "16"}
    assert table.locator("tr[data-key='tuning.rank'] td").all_text_contents() == [ranks[job.id] for job in jobs]
    best = table.locator("tr[data-key=best_eval_loss] td")
    expect(best.nth(jobs.index(live.job))).to_have_text("0.22 best", timeout=20_000)  # the table follows
    assert best.locator(".mark").count() == 1 and best.locator("b").count() == 1
    assert first.id in page.url and "compare=" in page.url

    page.reload()
    expect(page.get_by_role("heading", name="Comparison of 3 runs")).to_be_visible()
    wait_for_points(page, "loss", [10 if job is live.job else counts[job.id][0] for job in jobs])
    with page.expect_download() as file:
        page.get_by_role("link", name="Download CSV").click()
    assert "option,tuning.rank,Rank," in Path(file.value.path()).read_text()
    page.get_by_role("button", name="Remove live").click()
    expect(page.get_by_role("heading", name="Comparison of 2 runs")).to_be_visible()
    page.locator("#comparison").get_by_role("button", name="Close", exact=True).click()
    expect(page.locator("#monitor")).to_be_visible()
    assert "compare=" not in page.url


@pytest.mark.long
def test_a_table_that_is_refused_is_asked_for_again_after_a_while(
    page: Page, server: Server, done: MakeDone, console: list[str]
) -> None:
    jobs = [done("first", [0.5]), done("second", [0.6])]
    asked: list[float] = []

    def refuse(route: Route) -> None:
        asked.append(time.monotonic())
        route.fulfill(status=409, json={"detail": "'second' cannot be read"})

    page.route("**/api/compare?*", refuse)
    page.goto(f"{server.url}#tab=training&compare={','.join(job.id for job in jobs)}")
    expect(page.locator("#comparison [data-compare=problem]")).to_have_text("'second' cannot be read")
    page.wait_for_timeout(6_000)
    page.unroute("**/api/compare?*")
    expect(page.locator("#comparison tbody tr").first).to_be_visible()
    expect(page.locator("#comparison [data-compare=problem]")).to_be_hidden()
    assert 1 <= len(asked) <= 3, asked
    console.clear()


@pytest.mark.long
def test_names_tags_and_notes_are_kept_and_found(
    page: Page, server: Server, done: MakeDone, console: list[str]
) -> None:
    job, other = done("plain", [0.5]), done("other", [0.6])
    open_page(page, server, job)
    card = page.locator("#keep")
    card.get_by_label("Name", exact=True).fill(HOSTILE)
    card.get_by_label("Tags", exact=True).fill("good, #base")
    card.get_by_label("Note", exact=True).fill("beats the teacher")
    card.get_by_role("button", name="Save", exact=True).click()
    expect(card.locator("[data-keep=said]")).to_have_text("saved")
    assert job.labels() == Labels(HOSTILE, ("good", "base"), "beats the teacher")
    assert job.request.name == "plain" and job.path.exists()
    expect(page.locator("#monitor [data-part=name]")).to_have_text(HOSTILE)
    expect(page.locator(".run.on small")).to_contain_text("#good · #base")
    as_text(page)
    search, rows = page.get_by_label("Search jobs"), page.locator(".runs .run")
    for words, found in (("TEACHER", 1), ("#base lora", 1), ("plain", 1), ("sft", 2), (other.id, 1), ("nothing", 0)):
        search.fill(words)
        expect(rows).to_have_count(found)
    page.get_by_role("button", name="Show all", exact=True).click()
    expect(rows).to_have_count(2)
    page.get_by_text("Filter and sort").click()
    page.get_by_role("combobox", name="Tag", exact=True).select_option("good")
    expect(rows).to_have_count(1)
    page.get_by_role("combobox", name="Tag", exact=True).select_option("")
    page.get_by_role("combobox", name="Status", exact=True).select_option("failed")
    expect(rows).to_have_count(0)
    page.get_by_role("combobox", name="Status", exact=True).select_option("")
    page.get_by_role("combobox", name="Sort by", exact=True).select_option("size")
    expect(rows.first.locator(".num")).to_contain_text("kB")

    card.get_by_label("Tags", exact=True).fill("x" * 30)
    with page.expect_response("**/labels"):
        card.get_by_role("button", name="Save", exact=True).click()
    expect(card.locator("[data-keep=said]")).to_contain_text("is too long. Use at most 24 characters.")
    assert job.labels().tags == ("good", "base")
    console.clear()  # the browser logs the refusal


@pytest.mark.long
def test_archive_and_delete_ask_and_do_what_they_say(
    page: Page, server: Server, done: MakeDone, fake_run: MakeRun
) -> None:
    jobs = {name: done(name, [0.5]) for name in ("one", "two", "three", "four")}
    live = fake_run("live")
    live.train(2)
    open_page(page, server, jobs["one"])
    rows, dialog = page.locator(".runs .run"), page.get_by_role("dialog")
    choose(page, "three", "four", "live")  # the last one stays in the list, since it runs
    page.get_by_role("button", name="Archive", exact=True).first.click()
    expect(rows).to_have_count(3)
    assert jobs["three"].labels().archived and jobs["four"].labels().archived and not jobs["one"].labels().archived
    page.get_by_role("button", name="2 archived: show").click()
    expect(rows).to_have_count(5)

    choose(page, "live", "two")
    page.locator(".runs-acts").get_by_role("button", name="Delete", exact=True).click()
    expect(dialog).to_contain_text("'live' has not finished (running). Stop it first.")
    dialog.get_by_role("button", name="Close", exact=True).click()
    page.get_by_label("Select live", exact=True).uncheck()
    page.get_by_label("Select one", exact=True).check()
    page.locator(".runs-acts").get_by_role("button", name="Delete", exact=True).click()
    expect(dialog).to_contain_text("Delete 2 jobs permanently (")
    dialog.get_by_role("button", name="Cancel", exact=True).click()
    expect(dialog).to_be_hidden()
    assert jobs["one"].path.exists() and jobs["two"].path.exists()
    page.locator(".runs-acts").get_by_role("button", name="Delete", exact=True).click()
    dialog.get_by_role("button", name="Delete permanently", exact=True).click()
    expect(rows).to_have_count(3)
    assert not jobs["one"].path.exists() and not jobs["two"].path.exists()
    expect(page.locator("#monitor [data-part=name]")).to_have_text("live")

    page.locator(".run", has_text="three").click()
    card = page.locator("#keep")
    expect(card.locator("[data-keep=parts]")).to_contain_text("checkpoints 3.")
    card.get_by_text("Delete …", exact=True).click()
    card.get_by_role("button", name="Delete checkpoints", exact=True).click()
    dialog.get_by_role("button", name="Delete the checkpoints", exact=True).click()
    expect(card.locator("[data-keep=parts]")).not_to_contain_text("checkpoints")
    three = jobs["three"]
    assert not three.checkpoints.exists() and (three.model / "adapter_model.safetensors").exists()
    assert not list(server.settings.jobs.glob(".trash-*"))


@pytest.mark.long
def test_many_runs_are_drawn_by_the_hundred_and_a_sweep_opens_at_once(
    page: Page, server: Server, done: MakeDone, leftovers: list[Path]
) -> None:
    job = done("many", [0.5])
    for number in range(149):
        copy = job.path.with_name(f"20200101-000000-copy-{number:03d}")
        shutil.copytree(job.path, copy)
        leftovers.append(copy)

        if number < 12:
            write_request(copy, replace(JobFolder(copy).request, group="rates-sweep-20200101-000000"))

    open_page(page, server, job)
    rows = page.locator(".runs .run")
    expect(rows).to_have_count(100)
    page.get_by_role("button", name="Show 50 more of 50", exact=True).click()
    expect(rows).to_have_count(150)
    expect(page.locator(".runs-group span")).to_have_text("rates: sweep")
    page.locator(".runs-group").get_by_role("button", name="Compare the first 10 of 12", exact=True).click()
    expect(page.get_by_role("heading", name="Comparison of 10 runs")).to_be_visible()
    expect(page.locator("#comparison tbody")).to_contain_text("All options are the same.")


@pytest.mark.long
@pytest.mark.parametrize("theme", [pytest.param("light", marks=pytest.mark.long), "dark"])
def test_it_is_usable_on_a_narrow_screen_and_axe_finds_nothing_serious(
    page: Page, server: Server, done: MakeDone, theme: Any
) -> None:
    first, second = done("first", [0.9, 0.5], tuning={"rank": 8}), done("second", [0.8, 0.6])
    change_labels(first.path, tags=["good"], note="a note")
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": 390, "height": 844} if theme == "dark" else {"width": 1440, "height": 900})
    open_page(page, server, first)
    if theme == "dark":
        page.get_by_role("button", name="Runs", exact=True).click()
    page.get_by_text("Filter and sort").click()
    choose(page, "first", "second")
    assert serious(page) == []
    page.get_by_role("button", name="Compare 2", exact=True).click()
    wait_for_points(page, "loss", [20, 20])
    expect(page.locator("#comparison tr[data-key=bytes]")).to_be_visible()
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= (390 if theme == "dark" else 1440)
    page.locator("#comparison").get_by_role("button", name="Close", exact=True).click()
    card = page.locator("#keep")
    card.get_by_text("Delete …", exact=True).click()
    card.get_by_role("button", name="Delete job", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("Delete 'first' permanently (")
    assert serious(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert first.path.exists() and second.path.exists()

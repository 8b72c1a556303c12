"""The evaluation card in a real browser: a finished report, a running evaluation, and a real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from studio.config.jobs import EvaluateConfig
from studio.config.load import load_run
from studio.jobs import JobFolder, submit, wait
from studio.jobs.store.files import read_json
from studio.jobs.store.finding import jobs_of_kind
from studio.settings import PRESETS
from tests.browser.made import as_text, open_tab
from tests.ui.made_jobs import SCRIPT, made_evaluation, made_preference

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Server

    MakeRun = Callable[..., FakeRun]

ROWS = "#evaluation-view tbody tr"


@pytest.mark.long
def test_report_shows_both_scores_and_answers_as_text(page: Page, server: Server, run: JobFolder) -> None:
    made_evaluation(server.settings.jobs, run)
    open_tab(page, server.url, "training", run.id)
    expect(page.locator(".score b")).to_have_text(["0.0 %", "96.0 %"])
    expect(page.locator(".score em").last).to_contain_text("24 of 25 right")
    expect(page.locator(ROWS)).to_have_count(10)
    expect(page.locator(f"{ROWS} >> nth=0")).to_contain_text("✗ wrong")
    expect(page.locator(f"{ROWS} >> nth=0")).to_contain_text("✓ correct")
    assert SCRIPT in page.locator(f"{ROWS} >> nth=0").inner_text().replace("\n", "")
    as_text(page)


@pytest.mark.long
def test_filter_pages_and_reload(page: Page, server: Server, run: JobFolder) -> None:
    made_evaluation(server.settings.jobs, run)
    open_tab(page, server.url, "training", run.id)
    page.get_by_role("button", name="Next", exact=True).click()
    expect(page.locator(".answers-pager")).to_contain_text("11–20 of 25")
    page.get_by_role("button", name="Next", exact=True).click()
    expect(page.locator(ROWS)).to_have_count(5)
    page.get_by_label("only wrong (1)").check()
    expect(page.locator(ROWS)).to_have_count(1)
    expect(page.locator(f"{ROWS} td >> nth=0")).to_have_text("2")
    page.reload()
    expect(page.locator(".score b")).to_have_text(["0.0 %", "96.0 %"])


@pytest.mark.long
def test_progress_is_live_and_a_failure_says_why(page: Page, server: Server, run: JobFolder, fake_run: MakeRun) -> None:
    fake = fake_run("demo", "evaluate", EvaluateConfig(run=run.id).model_dump(mode="json"))
    open_tab(page, server.url, "training", run.id)
    fake.phase("answers of the base model", 12, 120, "rows", "begin")
    expect(page.locator("#evaluation-view .phase-count")).to_have_text("12 of 120 rows")
    fake.phase("answers of the base model", 60, 120, "rows")
    expect(page.locator("#evaluation-view .phase-count")).to_have_text("60 of 120 rows")
    expect(page.locator("#evaluation-view").get_by_role("button", name="Stop", exact=True)).to_be_visible()
    fake.finish("failed", "row 3 of x.jsonl has no answer", "Add the key 'completion'")
    expect(page.locator("#evaluation-view .notice.error")).to_contain_text("row 3 of x.jsonl has no answer")


@pytest.mark.long
def test_stop_and_the_choice_of_evaluations_stay_while_one_goes_on(
    page: Page, server: Server, run: JobFolder, fake_run: MakeRun
) -> None:
    older = made_evaluation(server.settings.jobs, run)
    fake = fake_run("zdemo", "evaluate", EvaluateConfig(run=run.id).model_dump(mode="json"))
    open_tab(page, server.url, "training", run.id)
    fake.phase("answers of the base model", 12, 120, "rows", "begin")
    view = page.locator("#evaluation-view")
    choice, stop = view.get_by_label("Which evaluation"), view.get_by_role("button", name="Stop", exact=True)
    for control in (stop, choice):
        control.focus()
        page.wait_for_timeout(2_500)  # two polls
        expect(control).to_be_focused()
    choice.select_option(older.id)
    expect(page.locator(".score b")).to_have_text(["0.0 %", "96.0 %"])
    expect(choice).to_be_focused()
    expect(stop).to_be_hidden()
    choice.select_option(fake.job.id)
    expect(view.locator(".phase-count")).to_have_text("12 of 120 rows")
    expect(stop).to_be_visible()


@pytest.mark.long
def test_rows_that_were_chosen_stay_when_an_evaluation_of_the_run_is_selected(
    page: Page, server: Server, run: JobFolder, settle: Callable[[], None]
) -> None:
    server.settings.uploads.mkdir(parents=True, exist_ok=True)
    (server.settings.uploads / "mine.jsonl").write_text("{}\n")
    job = made_evaluation(server.settings.jobs, run)
    open_tab(page, server.url, "training", run.id)
    settle()
    rows = page.locator("#evaluate-data input")
    rows.click()
    page.get_by_role("option", name="mine.jsonl", exact=True).click()
    page.evaluate("id => window.studio.select(id)", job.id)
    page.wait_for_timeout(1_000)  # until it is asked for
    settle()
    expect(rows).to_have_value("mine.jsonl")


@pytest.mark.long
def test_unfinished_run_cannot_be_evaluated_until_it_is_done(page: Page, server: Server, fake_run: MakeRun) -> None:
    fake = fake_run("young")
    fake.job.model.mkdir()
    (fake.job.model / "adapter_config.json").write_text("{}")
    open_tab(page, server.url, "training", fake.job.id)
    expect(page.locator("#evaluate-start")).to_be_disabled()
    expect(page.locator("#evaluation-view")).to_contain_text("when the run is done")
    fake.finish()
    expect(page.locator("#evaluate-start")).to_be_enabled()


@pytest.mark.long
def test_pairs_are_shown_with_their_margins(page: Page, server: Server, run: JobFolder) -> None:
    made_preference(server.settings.jobs, run)
    open_tab(page, server.url, "training", run.id)
    expect(page.locator(".score b")).to_have_text(["0.0 %", "91.7 %"])
    expect(page.locator(".score-note")).to_have_text(
        "Preference accuracy on 12 pairs: +91.7 points · reward accuracy 100.0 %"
    )
    expect(page.locator("#evaluation-view th")).to_have_text(
        ["Row", "Prompt", "Chosen", "Rejected", "Margin before", "Margin after"]
    )
    expect(page.locator(f"{ROWS} >> nth=0")).to_contain_text("✓ +1.50")
    assert SCRIPT in page.locator(f"{ROWS} >> nth=0").inner_text().replace("\n", "")
    page.get_by_label("only wrong (1)").check()
    expect(page.locator(f"{ROWS} td >> nth=5")).to_have_text("✗ −0.50")
    as_text(page)


@pytest.mark.long
def test_a_preference_run_is_measured_by_what_it_learned(page: Page, server: Server) -> None:
    """The real model, ten steps on the demo's pairs, then Evaluate as it stands: no file is chosen."""
    config = load_run(PRESETS / "demo" / "dpo.yaml", ["training.max_steps=10"])
    run = submit(server.settings, "train", "prefers", config.model_dump(mode="json"))
    assert wait(run, seconds=400).status == "completed", run.log_path.read_text()
    open_tab(page, server.url, "training", run.id)
    expect(page.locator("#evaluation-view")).to_contain_text("find the better one more likely")
    page.locator("#evaluate-start").click()
    expect(page.locator(".score-note")).to_contain_text("Preference accuracy on 60 pairs", timeout=240_000)
    report = read_json(jobs_of_kind(server.settings.jobs, "evaluate")[0].report / "evaluation.json")
    assert report["data"] == "demo/pairs_test.jsonl" and report["reward_accuracy"] > 0.6
    assert report["after"]["preference_accuracy"] >= report["before"]["preference_accuracy"]
    as_text(page)

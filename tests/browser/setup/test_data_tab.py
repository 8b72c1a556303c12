"""The Data tab with data as people have it: uploaded, mapped, seen as tokens, trained on."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from studio.jobs import find_job, wait
from tests.browser.setup.test_methods import choose
from tests.browser.setup.test_setup_tabs import fill, open_tab, planned, upload, value

if TYPE_CHECKING:
    from tests.browser.conftest import Server

SUMS = [(f"What is {n} plus {n + 1}?", f"It is {2 * n + 1}.", f"It is {2 * n + 2}.") for n in range(12)]
BROKEN = ("Broken?", "na\ufffdve", "no")  # its answer has a character that could not be read
# method -> (columns of the file, the mapping that makes rows of them)
SETS = {
    "SFT": (("wunsch", "bescheid"), "instruction=wunsch, output=bescheid"),
    "DPO": (("frage", "gut", "schlecht"), "instruction=frage, chosen=gut, rejected=schlecht"),
    "KTO": (("frage", "gut", "schlecht"), "instruction=frage, chosen=gut, rejected=schlecht"),
}


def write_csv(path: Path, columns: tuple[str, ...]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(columns)
        lines.writerows(row[: len(columns)] for row in SUMS)
        lines.writerow(BROKEN[: len(columns)])
    return path


def map_columns(page: Page, mapping: str) -> None:
    """Open the options of the first source and fill in its columns."""
    more = page.locator("#f-data-train").get_by_role("button", name="More options of").first
    if more.get_attribute("aria-expanded") != "true":  # they open by themselves where no method can read the columns
        more.click()
    field = page.locator("#f-data-train .source-options label").filter(has_text="Column mapping").locator("input")
    field.fill(mapping)
    field.press("Enter")


def mend_a_table(page: Page, server: Server, tmp_path: Path, method: str, name: str) -> None:
    """Upload a table, map its columns, see its rows as tokens, profile it, and take it without what is broken."""
    columns, mapping = SETS[method]
    open_tab(page, server, "method")
    if method != "SFT":
        choose(page, "method", method)
    page.get_by_role("tab", name="Data", exact=True).click()
    upload(page, "#data-upload", write_csv(tmp_path / f"{method}.csv", columns))
    planned(page, f"plan.errors.length && plan.errors[0].sentence.includes('{columns[0]}')")
    expect(page.locator("#findings")).to_contain_text(columns[0])
    map_columns(page, mapping)
    planned(page, "!plan.errors.length && plan.line.includes('steps')")
    expect(page.locator(".data-state")).to_have_text(f"ready for {method}")
    body = page.locator(".row-body")
    expect(body).to_contain_text("What is 0 plus 1?")
    if method == "DPO":
        differs = body.locator(".differs").all_inner_texts()
        assert [text.strip() for text in differs] == ["1", "2"], "the two answers differ in their number only"
    page.locator(".row-number").fill("3")
    page.locator(".row-number").press("Enter")
    expect(body).to_contain_text("What is 2 plus 3?")
    fill(page, "data.validation", "0")

    page.locator("#profile .task-begin").click()
    finding = page.locator("#profile [data-check=broken_characters]")
    expect(finding.locator(".pill")).to_have_text("1 row", timeout=90_000)
    finding.locator(".row-link").click()
    expect(page.locator(".row-number")).to_have_value("13")
    expect(body).to_contain_text("Broken?")
    expect(page.locator("#profile .task-begin")).to_be_enabled(timeout=90_000)
    keep = page.locator("#keep-data")
    keep.get_by_label("broken characters").check()
    keep.get_by_label("Name").fill(name)
    keep.locator(".task-begin").click()
    expect(keep.locator(".keep-figures")).to_contain_text("12 of 13 rows", timeout=60_000)
    keep.locator(".keep-train").click()
    # The first one: below it the first rows of the file before may still stand.
    expect(page.locator("#f-data-train tbody").first).to_contain_text(f"{name}/train.jsonl")
    expect(page.locator(".data-counts")).to_contain_text("12 rows" if method != "KTO" else "24 rows")


def test_a_table_is_uploaded_mapped_seen_profiled_and_mended(page: Page, server: Server, tmp_path: Path) -> None:
    mend_a_table(page, server, tmp_path, "SFT", "mended")


@pytest.mark.long
@pytest.mark.parametrize("method", SETS)
def test_a_mended_table_is_trained_on(page: Page, server: Server, tmp_path: Path, method: str) -> None:
    mend_a_table(page, server, tmp_path, method, f"mended-{method.lower()}")
    page.get_by_role("tab", name="Method", exact=True).click()
    page.locator("#tab-method button.fold").last.click()
    fill(page, "training.max_steps", "1")
    fill(page, "training.batch_size", "4")
    planned(page, "plan.line.includes('1 step ') && !plan.errors.length")
    name = f"table-{method.lower()}"
    page.locator("#tab-method .plan-name").fill(name)
    page.locator("#tab-method .plan-start").click()
    page.wait_for_function("name => window.studio.state.job.endsWith(name)", arg=name)
    job = find_job(server.settings.jobs, name, "train")
    state = wait(job, seconds=300)
    assert state.status == "completed", state.reason
    assert job.request.config["data"]["train"][0]["path"].endswith(f"data/mended-{method.lower()}/train.jsonl")


def shown_ids(page: Page) -> list[int]:
    """Ids of the tokens in the row view."""
    titles = page.locator(".row-body .tokens span").evaluate_all("all => all.map((one) => one.title)")
    return [int(title.removeprefix("id ").split(",")[0]) for title in titles]


@pytest.mark.long
def test_questions_and_answers_are_conversations_and_a_button_reads_them_raw(
    page: Page, server: Server, tmp_path: Path, model_path: Path
) -> None:
    from transformers import AutoTokenizer

    question, answer, _ = SUMS[0]
    table = "".join(f"{asked};{said}\n" for asked, said, _ in SUMS)
    path = tmp_path / "fragen.csv"
    path.write_text("\ufeffFrage;Antwort\n" + table, encoding="utf-8")
    open_tab(page, server, "data")
    upload(page, "#data-upload", path)
    findings, body = page.locator("#findings"), page.locator(".row-body")
    expect(findings).to_contain_text("rendered with the model's chat template")
    expect(findings).to_contain_text("prompt=Frage, completion=Antwort")
    expect(page.locator(".data-state")).to_have_text("ready for SFT")
    expect(body).to_contain_text(question)
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True)
    assert shown_ids(page) == tokenizer.apply_chat_template(turns, return_dict=False)

    findings.get_by_role("button", name="Read them as plain texts").click()
    expect(findings).to_contain_text("without the model's chat template")
    expect(body).not_to_contain_text("assistant")
    assert shown_ids(page) == tokenizer(question + answer)["input_ids"] + [tokenizer.eos_token_id]
    more = page.locator("#f-data-train").get_by_role("button", name="More options of").first
    if more.get_attribute("aria-expanded") != "true":  # they open by themselves where no method can read the columns
        more.click()
    chosen = page.locator("#f-data-train .source-options label").filter(has_text="Read plain text as").locator("select")
    expect(chosen).to_have_value("raw")

    findings.get_by_role("button", name="Read them as conversations").click()
    expect(findings).to_contain_text("rendered with the model's chat template")
    expect(chosen).to_have_value("conversation")
    expect(body).to_contain_text("assistant")
    page.get_by_role("tab", name="Method", exact=True).click()
    page.locator("#tab-method button.fold").last.click()
    fill(page, "training.max_steps", "1")
    fill(page, "training.batch_size", "4")
    planned(page, "plan.line.includes('1 step ') && !plan.errors.length")
    page.locator("#tab-method .plan-name").fill("fragen")
    page.locator("#tab-method .plan-start").click()
    page.wait_for_function("window.studio.state.job.endsWith('fragen')")
    job = find_job(server.settings.jobs, "fragen", "train")
    state = wait(job, seconds=300)
    assert state.status == "completed", state.reason
    assert job.request.config["data"]["train"][0]["reading"] == "conversation"


@pytest.mark.long
def test_rows_of_the_second_source_are_shown(page: Page, server: Server, settle: Callable[[], None]) -> None:
    folder = server.settings.uploads
    folder.mkdir(parents=True, exist_ok=True)
    for name, answer in (("one.jsonl", "first"), ("two.jsonl", "second")):
        row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]}
        (folder / name).write_text(f"{json.dumps(row)}\n" * 3)
    open_tab(page, server, "data")
    for name in ("one.jsonl", "two.jsonl"):
        page.locator("#data-path input, #data-path textarea").first.fill(str(folder / name))
        page.locator("#data-add").click()
        expect(page.locator("#f-data-train tbody")).to_contain_text(name)
    expect(page.locator(".row-source")).to_be_visible()
    page.locator(".row-source").select_option(index=1)
    expect(page.locator(".row-body")).to_contain_text("second")
    page.locator(".row-next").click()
    expect(page.locator(".row-number")).to_have_value("2")
    fill(page, "data.max_length", "300")
    planned(page, "!plan.errors.length")
    settle()
    expect(page.locator(".row-body")).to_contain_text("second")
    expect(page.locator(".row-number")).to_have_value("2")
    page.get_by_role("button", name=f"Remove {folder / 'two.jsonl'}").click()
    expect(page.locator(".row-body")).to_contain_text("first")
    expect(page.locator("#f-data-train tbody")).not_to_contain_text("demo/train.jsonl")
    assert value(page, "data.validation") == "0.1"  # the demo's rows for validation say nothing about own data


@pytest.mark.long
def test_a_second_upload_may_replace_the_first_and_pairs_offer_dpo(
    page: Page, server: Server, tmp_path: Path, settle: Callable[[], None]
) -> None:
    pair = {"prompt": "Hi", "chosen": "Hello.", "rejected": "What?"}
    for name, rows in (("old.jsonl", [{"prompt": "Hi", "completion": "Hello."}]), ("pairs.jsonl", [pair])):
        (tmp_path / name).write_text(f"{json.dumps(rows[0])}\n" * 12)
    open_tab(page, server, "data")
    files = page.locator("#f-data-train tbody")
    upload(page, "#data-upload", tmp_path / "old.jsonl")
    expect(files).to_contain_text("old.jsonl")
    expect(page.locator("#data-only")).to_be_hidden()
    settle()
    upload(page, "#data-upload", tmp_path / "old.jsonl")  # the same again: one file, no copy of it
    page.wait_for_timeout(1_000)  # until it is sent; the button takes one file at a time
    settle()
    planned(page, "!plan.errors.length")
    upload(page, "#data-upload", tmp_path / "pairs.jsonl")
    page.get_by_role("button", name="Use only pairs.jsonl", exact=True).click()
    expect(files).not_to_contain_text("old.jsonl")
    expect(page.locator("#data-only")).to_be_hidden()
    assert not (server.settings.uploads / "old-2.jsonl").exists()
    planned(page, "plan.errors.length")
    page.get_by_role("tab", name="Method", exact=True).click()
    cards = page.locator("#f-method-name label")
    expect(cards.filter(has_text=re.compile("^SFTNot for this data: it needs messages"))).to_have_class(
        re.compile("unfit")
    )
    expect(cards.filter(has_text=re.compile("^DPO"))).not_to_have_class(re.compile("unfit"))
    page.get_by_role("tab", name="Data", exact=True).click()
    page.locator("#findings").get_by_role("button", name="Switch to DPO", exact=True).click()
    planned(page, "plan.method === 'dpo' && !plan.errors.length")
    expect(page.locator(".data-state")).to_have_text("ready for DPO")


@pytest.mark.long
def test_what_is_no_data_is_a_sentence(page: Page, server: Server, tmp_path: Path) -> None:
    open_tab(page, server, "data")
    path = page.locator("#data-path input, #data-path textarea").first
    path.fill("/etc/passwd")
    page.locator("#data-add").click()
    expect(page.locator("#data-problem")).to_contain_text("may not read")
    path.fill("nobody/nothing")
    page.locator("#data-add").click()
    expect(page.locator(".data-state")).to_have_text("waiting for the data")
    expect(page.locator("#findings")).to_contain_text("nobody/nothing is downloaded when the run starts")
    expect(page.locator("#findings button")).to_have_text("Fetch it now")
    page.get_by_role("button", name="Remove nobody/nothing").click()
    page.locator("#data-demo").click()
    planned(page, "!plan.errors.length && plan.line.includes('steps')")


@pytest.mark.long
def test_a_file_that_is_too_large_is_not_sent(page: Page, server: Server, tmp_path: Path) -> None:
    large = tmp_path / "large.jsonl"
    with large.open("wb") as file:
        file.truncate(501_000_000)  # a hole, which takes no room
    open_tab(page, server, "data")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/upload" in request.url else None)
    upload(page, "#data-upload", large)
    said = page.locator(".refused")
    expect(said).to_contain_text("'large.jsonl' is 501 MB")
    expect(said).to_contain_text("500 MB")
    page.wait_for_timeout(500)
    assert sent == []
    # A smaller one is taken afterwards, by the same button.
    upload(page, "#data-upload", write_csv(tmp_path / "small.csv", ["prompt", "completion"]))
    expect(page.locator("#f-data-train")).to_contain_text("small.csv")


@pytest.mark.long
def test_a_long_count_says_how_far_it_is_and_can_be_stopped(page: Page, server: Server, tmp_path: Path) -> None:
    rows = tmp_path / "many.jsonl"
    with rows.open("w", encoding="utf-8") as file:
        for n in range(400_000):
            said = [{"role": "user", "content": f"What is {n}? " * 6}, {"role": "assistant", "content": f"It is {n}."}]
            file.write(json.dumps({"messages": said}) + "\n")
    open_tab(page, server, "data")
    upload(page, "#data-upload", rows)
    stop = page.locator("#tab-data .plan-said .stop-counting")
    expect(stop).to_be_visible(timeout=60_000)
    expect(page.locator("#tab-data .plan-busy")).to_contain_text("row ")
    page.screenshot(path=tmp_path / "counting.png")
    stop.click()
    planned(page, "plan.errors.length && plan.errors[0].sentence.includes('counting the rows was stopped')")
    expect(page.locator("#tab-data .stop-counting")).to_have_count(0, timeout=60_000)
    page.wait_for_timeout(2_000)  # the figures are asked for after the plan
    expect(page.locator("#tab-data .stop-counting")).to_have_count(0)
    expect(page.locator(".data-state")).to_have_text("needs fixing")
    # The page works on with other data.
    page.locator("#data-demo").click()
    planned(page, "!plan.errors.length && plan.line.includes('steps')")

"""Profile and cleaned copy in a real browser: findings, rows, pairs, cancel, keep, and the run set to the copy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from playwright.sync_api import Page, expect

from tests.browser.made import PWNED, look, serious
from tests.browser.setup.test_setup_tabs import open_tab, planned, upload

if TYPE_CHECKING:
    from tests.browser.conftest import Server

HOSTILE = "<img src=x onerror='window.pwned=1'> ${window.pwned=1}"
SECRET = "sk-abcdefghijklmnopqrstuvwxyz012345"
THINGS = ["apples", "pears", "plums", "nuts", "figs", "dates", "limes", "kiwis", "grapes", "melons"]


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def mixed() -> list[dict[str, Any]]:
    """Row 3 is a double of row 2, 5 has no answer, 7 a secret, 9 is too long; the rest is sound."""
    rows = [chat(f"How many {name} are there?", f"There are {n} {name}.") for n, name in enumerate(THINGS)]
    rows.insert(2, rows[1])
    rows.insert(4, chat(HOSTILE, ""))
    rows.insert(6, chat(f"My key? {HOSTILE}", f"It is {SECRET}."))
    rows.insert(8, chat("Say much.", "many words " * 200))
    return rows


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def with_data(page: Page, server: Server, tmp_path: Path) -> Callable[..., None]:
    """Open the Data tab with a run over these rows: loaded as a file in the Method tab."""

    def load(rows: list[dict[str, Any]], check: list[dict[str, Any]] | None = None) -> None:
        train = written(server.settings.uploads / "mixed.jsonl", rows)
        held = str(written(server.settings.uploads / "check.jsonl", check)) if check else 0.1
        run = {"data": {"train": [{"path": str(train)}], "validation": held, "max_length": 128}}
        file = tmp_path / "run.yaml"
        file.write_text(json.dumps(run))  # JSON is YAML
        open_tab(page, server, "method")
        upload(page, "#yaml-upload", file)
        expect(page.locator(".yaml-said")).to_have_text("run.yaml loaded")
        page.get_by_role("tab", name="Data", exact=True).click()
        expect(page.locator("#f-data-train tbody tr")).to_have_count(1)

    return load


def ended(page: Page, card: str) -> None:
    expect(page.locator(f"{card} .task-begin")).to_be_enabled(timeout=90_000)


def memory(server: Server) -> int:
    """Resident bytes of the web process, whose size without any data depends on the machine."""
    assert server.process is not None
    resident: int = psutil.Process(server.process.pid).memory_info().rss
    return resident


@pytest.mark.long
def test_profile_fix_and_train(page: Page, server: Server, with_data: Callable[..., None]) -> None:
    rows = mixed()
    with_data(rows, [rows[0], chat("Anything new?", "Nothing.")])
    planned(page, "plan.errors.length === 1 && plan.errors[0].sentence.includes('row 5')")
    before = memory(server)
    profile, keep = page.locator("#profile"), page.locator("#keep-data")
    expect(keep).to_contain_text("Profile the data first")
    profile.get_by_role("button", name="Profile the data", exact=True).click()
    expect(profile.locator(".pair-item").first).to_be_visible(timeout=90_000)  # the whole: a sample has no pairs
    ended(page, "#profile")
    assert profile.locator(".task-from").is_hidden()
    figures = profile.locator(".profile-figures")
    expect(figures).to_contain_text("16, 1 unusable")
    expect(figures).to_contain_text("1 refused")
    levels = [text.lower() for text in profile.locator(".finding .pill").all_inner_texts()]
    assert set(levels) == {"1 row", "2 rows"}
    found = profile.locator(".finding").evaluate_all("all => all.map(one => one.dataset.check)")
    assert found[:2] == ["empty_answer", "too_long"] and set(found[2:]) >= {"secret", "leak", "duplicate"}
    assert SECRET not in profile.inner_text() and "API key: 1 (sk-a…" in profile.inner_text()

    profile.locator("[data-check=secret] .row-link").click()
    assert page.evaluate("[studioForm.latest['show-row'], studioForm.state.source]") == [{"source": 0, "at": 7}, 0]
    expect(page.locator("#row-view")).to_be_in_viewport()
    pair = profile.locator(".pair-item").filter(has_text="row 2 and row 3")
    pair.locator(".row-link").first.click()
    expect(pair.locator(".pair-side")).to_have_count(2)
    expect(pair.locator(".pair-side").last).to_contain_text("How many pears are there?")

    keep.get_by_role("button", name="Save a cleaned copy", exact=True).click()
    expect(keep.locator(".task-note")).to_contain_text("row 5, field 'messages[1].content': the assistant's answer is")
    expect(keep.locator(".task-note")).to_contain_text("with the tick “an empty answer”")
    keep.get_by_label("an empty answer").check()
    keep.get_by_label("more tokens than the limit").check()
    keep.locator(".keep-hide").check()
    keep.get_by_label("Name").fill("mended")
    keep.get_by_role("button", name="Save a cleaned copy", exact=True).click()
    expect(keep.locator(".keep-figures")).to_contain_text("14 of 16 rows", timeout=60_000)
    expect(keep.locator(".keep-figures")).to_contain_text("an empty answer (1)")
    folder = server.settings.home / "data" / "mended"
    text = (folder / "train.jsonl").read_text()
    assert SECRET not in text and "[API key]" in text and text.count("\n") == 12
    push = page.locator("#push-data")
    expect(push.locator(".push-name")).to_have_text("mended")
    push.get_by_label("Dataset ID").fill("me/mended")
    push.get_by_role("button", name="Upload", exact=True).click()
    expect(push.locator(".task-note")).to_contain_text("there is no Hub token", timeout=60_000)
    keep.get_by_role("button", name="Train on it").click()
    expect(page.locator("#f-data-validation input, #f-data-validation textarea")).to_have_value(
        str(folder / "validation.jsonl")
    )
    assert page.locator("#f-data-train tbody tr").count() == 1
    expect(page.locator("#f-data-train")).to_contain_text("mended/train.jsonl")
    planned(page, "plan.memory && !plan.errors.length")
    expect(profile.locator(".task-note")).to_contain_text("The settings have changed")
    assert json.loads((server.settings.uploads / "mixed.jsonl").read_text().splitlines()[6]) == rows[6]
    assert memory(server) - before < 60e6, "data is the workers' to hold"
    assert page.evaluate(PWNED)


@pytest.mark.long
def test_the_first_batch(page: Page, with_data: Callable[..., None]) -> None:
    with_data([chat(HOSTILE if n == 3 else f"Say {n}", f"{n} " * (n + 1)) for n in range(8)])
    planned(page, "!plan.errors.length")
    card = page.locator("#first-batch")
    card.get_by_role("button", name="Show the first batch").click()
    ended(page, "#first-batch")
    expect(card.locator(".batch-line")).to_have_count(7)  # the eighth is kept for validation
    expect(card.locator(".batch-said")).to_contain_text(
        re.compile(r"7 sequences of \d+ tokens; \d+ of \d+ positions are padding")
    )
    assert card.locator(".padding").count() == 6
    first = card.locator(".batch-line").first
    title = first.locator("small").inner_text()
    row = int(title.removeprefix("mixed.jsonl, row "))
    answer = "".join(first.locator(".t").all_inner_texts())
    assert answer.replace(" ", "").startswith(str(row - 1) * row)
    page.get_by_role("tab", name="Method", exact=True).click()
    page.locator("#tab-method .fold").last.click()
    page.locator("#f-training-padding_free input[type=checkbox]").check()
    planned(page, "plan.changed.includes('f-training-padding_free')")
    page.get_by_role("tab", name="Data", exact=True).click()
    expect(card.locator(".task-note")).to_contain_text("The settings have changed")
    card.get_by_role("button", name="Show it again").click()
    expect(card.locator(".batch-said")).to_contain_text("7 rows joined to one sequence", timeout=60_000)
    expect(card.locator(".padding")).to_have_count(0)
    assert page.evaluate(PWNED)


@pytest.mark.long
def test_a_finding_sets_the_option_that_mends_it(page: Page, with_data: Callable[..., None]) -> None:
    with_data([row for row in mixed() if row["messages"][1]["content"]])
    page.locator("#profile .task-begin").click()
    ended(page, "#profile")
    page.locator("#profile [data-check=too_long]").get_by_role("button", name="Drop them").click()
    page.locator("#profile [data-check=duplicate]").get_by_role("button", name="Drop exact duplicates").click()
    expect(page.locator("#profile .task-note")).to_contain_text("The settings have changed")
    planned(page, "plan.changed.includes('f-data-deduplicate') && plan.changed.includes('f-data-truncation')")
    page.locator("#profile .task-begin").click()
    ended(page, "#profile")
    expect(page.locator("#profile .task-note")).to_have_text("")
    expect(page.locator("#profile .profile-figures")).to_contain_text("1 dropped")
    expect(page.locator("#profile [data-check=duplicate]")).to_contain_text("Dropped; the first one stays")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        pytest.param(width, scheme, marks=pytest.mark.long) for width in (1440, 390) for scheme in ("light", "dark")
    ],
)  # fmt: skip
def test_axe_and_no_sideways_scrolling(page: Page, server: Server, scheme: str, width: int) -> None:
    look(page, scheme, width)
    open_tab(page, server, "data")
    page.locator("#profile .task-begin").click()
    ended(page, "#profile")
    page.locator("#first-batch .task-begin").click()
    expect(page.locator(".batch-line").first).to_be_visible(timeout=60_000)
    page.locator("#keep-data summary").click()
    for link in page.locator(".pair-item > .row-link").all()[:1]:
        link.click()
        expect(page.locator(".pair-side").first).to_be_visible()
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.long
def test_cancel_ends_the_profile(page: Page, with_data: Callable[..., None]) -> None:
    with_data([chat(f"What is {n}?", f"It is {n * 7} and more.") for n in range(120_000)])
    page.locator("#profile .task-begin").click()
    expect(page.locator("#profile .task-from")).to_contain_text("of 120,000 rows", timeout=240_000)
    expect(page.locator("#profile .task-text")).to_contain_text("reading row")
    page.locator("#profile .task-cancel").click()
    ended(page, "#profile")
    expect(page.locator("#profile .task-note")).to_have_text("Canceled before everything was read.")
    expect(page.locator("#profile .task-from")).to_be_visible()
    expect(page.locator("#profile .profile-pairs")).to_contain_text("counted once everything has been read")

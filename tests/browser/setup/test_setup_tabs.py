"""Model, Data and Method in a real browser, as a person sets up a run, over the real model and the demo data."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as Late

from studio.jobs import find_job
from studio.settings import ASSETS
from tests.browser.made import look, serious, until_ended
from tests.models.tiny import save_tiny

if TYPE_CHECKING:
    from tests.browser.conftest import Server

HOSTILE = "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'> ${window.pwned=1} {{x}}"
PLANNED = "() => { const plan = window.studioForm?.latest.plan; return plan && (plan.memory || plan.errors.length) }"


def open_tab(page: Page, server: Server, tab: str) -> None:
    page.goto(f"{server.url}#tab={tab}")
    try:
        page.wait_for_function(PLANNED, timeout=120_000)
    except Late as error:
        state = page.evaluate("JSON.stringify([window.studioForm?.state, window.studioForm?.latest])")
        raise AssertionError(f"no plan: {state}") from error
    assert page.evaluate("studioForm.latest.plan.errors") == []


def said(page: Page, tab: str) -> str:
    return page.locator(f"#tab-{tab} .plan-said").inner_text()


def fill(page: Page, option: str, text: str) -> None:
    page.locator(f"#f-{option.replace('.', '-')}").locator("input, textarea").first.fill(text)


def value(page: Page, option: str) -> str:
    return page.locator(f"#f-{option.replace('.', '-')}").locator("input, textarea").first.input_value()


def planned(page: Page, condition: str) -> None:
    page.wait_for_function(f"() => {{ const plan = window.studioForm?.latest.plan; return plan && ({condition}) }}")


def upload(page: Page, button: str, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator(button).click()
    chooser.value.set_files(file)


@pytest.mark.long
def test_rank_changes_the_plan(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    assert "LoRA r16" in said(page, "method") and "135 M trainable" in said(page, "method")
    fill(page, "tuning.rank", "32")
    planned(page, "plan.what.startsWith('LoRA r32')")
    assert "9.77 M of 135 M" in said(page, "method")
    expect(page.locator("#f-tuning-rank.changed")).to_have_count(1)
    expect(page.locator("#memory-plan .legend")).to_contain_text("weights")
    expect(page.locator("#tab-method-button")).to_contain_text("LoRA r32")


@pytest.mark.long
def test_full_tuning_has_no_adapter_fields(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    expect(page.locator("#f-tuning-rank")).to_be_visible()
    page.locator("#f-tuning-name label", has_text="Full").click()
    expect(page.locator("#f-tuning-rank")).to_be_hidden()
    planned(page, "plan.tuning === 'full' && plan.memory")
    assert "135 M of 135 M trainable" in said(page, "method")
    page.locator("#f-tuning-name label").filter(has=page.get_by_text("LoRA", exact=True)).click()
    expect(page.locator("#f-tuning-rank")).to_be_visible()
    assert value(page, "tuning.rank") == "16"


@pytest.mark.long
def test_wrong_values_are_said_and_nothing_starts(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    fill(page, "tuning.rank", "5000")
    fill(page, "training.learning_rate", "abc")
    planned(page, "plan.errors.length === 2")
    page.locator("#tab-method .plan-start").click()
    problems = page.locator("#tab-method .plan-errors li")
    expect(problems).to_have_count(2)
    expect(problems).to_contain_text(["'abc' is not a number or auto", "less than or equal to 1024"])
    expect(page.locator("#f-tuning-rank.wrong")).to_have_count(1)
    assert not server.settings.jobs.exists() or not list(server.settings.jobs.iterdir())


@pytest.mark.long
def test_advanced_says_how_many_changed(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    fold = page.locator("#tab-method button.fold").last
    expect(fold).to_have_text("Advanced")
    expect(page.locator("#f-training-seed")).to_be_hidden()
    fold.click()
    fill(page, "training.seed", "7")
    expect(fold).to_have_text("Advanced (1 changed)")
    note = re.compile(r"now \d+: about 8 validations in \d+ steps")
    expect(page.locator("#f-training-eval_steps")).to_have_attribute("data-note", note)


@pytest.mark.long
def test_a_reload_keeps_the_draft(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    fill(page, "training.epochs", "5")
    fill(page, "training.learning_rate", "not yet")
    page.locator("#f-tuning-name label", has_text="Full").click()
    page.locator("#tab-method .plan-name").fill("my run")
    page.locator("#tab-method .plan-name").blur()
    planned(page, "plan.tuning === 'full' && plan.errors.length === 1")
    page.wait_for_timeout(1500)
    page.goto("about:blank")
    page.goto(f"{server.url}#tab=method")
    planned(page, "plan.tuning === 'full' && plan.errors.length === 1")
    expect(page.locator("#f-training-epochs input")).to_have_value("5")
    assert value(page, "training.learning_rate") == "not yet"
    expect(page.locator("#tab-method .plan-name")).to_have_value("my run")
    expect(page.locator("#f-tuning-rank")).to_be_hidden()


@pytest.mark.long
def test_yaml_round_trip(page: Page, server: Server, tmp_path: Path) -> None:
    open_tab(page, server, "method")
    fill(page, "training.epochs", "3")
    page.locator(".yaml-show").click()
    text = page.locator(".yaml-text")
    expect(text).to_contain_text("epochs: 3")
    with page.expect_download() as download:
        page.locator(".yaml-save").click()
    assert download.value.suggested_filename == "demo-lora-16.yaml"
    file = tmp_path / "run.yaml"
    file.write_text(text.inner_text().replace("epochs: 3", "epochs: 4").replace("rank: 16", "rank: 8"))
    upload(page, "#yaml-upload", file)
    expect(page.locator(".yaml-said")).to_have_text("run.yaml loaded")
    planned(page, "plan.what.startsWith('LoRA r8') && plan.line.includes('4 epochs')")
    file.write_text("training:\n  epoch: 3\n")
    upload(page, "#yaml-upload", file)
    expect(page.locator(".yaml-problem")).to_contain_text("Did you mean 'training.epochs'?")
    assert value(page, "training.epochs") == "4"
    page.get_by_role("combobox", name="Load a preset").click()
    page.get_by_role("option", name="demo/sft").click()
    planned(page, "plan.what.startsWith('LoRA r16') && plan.changed.length === 0")


@pytest.mark.long
def test_row_as_tokens(page: Page, server: Server) -> None:
    open_tab(page, server, "data")
    tokens = page.locator(".row-body .tokens span")
    expect(tokens.first).to_have_text("<|im_start|>")
    expect(tokens.first).to_have_attribute("title", "id 1, context")
    answer = "".join(page.locator(".row-body .tokens .t").all_inner_texts())
    row = json.loads((ASSETS / "demo" / "train.jsonl").read_text().splitlines()[0])
    assert answer == row["messages"][-1]["content"] + "<|im_end|>"
    page.locator(".row-next").click()
    expect(page.locator(".row-number")).to_have_value("2")
    page.get_by_role("button", name="Raw", exact=True).click()
    expect(page.locator(".row-body pre")).to_contain_text('"role": "system"')
    expect(page.locator(".data-state")).to_have_text("ready for SFT")
    expect(page.locator("#split .legend")).to_contain_text("validation 40")
    expect(page.locator("#lengths svg rect").first).to_be_visible()
    expect(page.locator("#tab-data-button")).to_contain_text("rows")


@pytest.mark.long
def test_a_bad_file_is_a_sentence_and_nothing_is_lost(page: Page, server: Server, tmp_path: Path) -> None:
    lines = (ASSETS / "demo" / "train.jsonl").read_text().splitlines()[:40]
    lines[16] = '{"messages": oops}'
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(lines))
    open_tab(page, server, "data")
    fill(page, "data.max_length", "200")
    upload(page, "#data-upload", file)
    expect(page.locator("#findings .findings")).to_contain_text("mine.jsonl, row 17: bad JSON")
    planned(page, "plan.errors[0]?.sentence.includes('row 17')")
    assert "row 17" in said(page, "data")
    assert value(page, "data.max_length") == "200"
    file.write_text("\n".join(lines[:20]))
    upload(page, "#data-upload", file)
    expect(page.locator("#f-data-train tbody tr")).to_have_count(2)
    assert (server.settings.uploads / "mine-2.jsonl").exists()


@pytest.mark.long
def test_markup_in_a_row_stays_text(page: Page, server: Server) -> None:
    row = {"messages": [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": "<b>no</b>"}]}
    server.settings.uploads.mkdir(parents=True, exist_ok=True)
    file = server.settings.uploads / "<img src=x onerror=alert(1)>.jsonl"
    file.write_text("\n".join([json.dumps(row)] * 12))
    open_tab(page, server, "data")
    page.locator("#data-path").locator("input, textarea").first.fill(str(file))
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".row-body")).to_contain_text("<script>window.pwned=1</script>")
    for view in ("Raw", "Conversation", "Tokens"):
        page.get_by_role("button", name=view, exact=True).click()
        expect(page.locator(".row-body")).to_contain_text("window.pwned=1")
    expect(page.locator("#f-data-train")).to_contain_text("<img src=x onerror=alert(1)>.jsonl")
    assert page.evaluate("window.pwned") is None
    assert page.locator("#tab-data :is(script, img)").count() == 0


@pytest.mark.long
def test_long_rows_have_buttons_that_mend_them(page: Page, server: Server) -> None:
    open_tab(page, server, "data")
    fill(page, "data.max_length", "68")
    expect(page.locator("#findings .findings")).to_contain_text("longer than 68 tokens")
    expect(page.locator("#lengths svg")).to_contain_text("rows are longer")
    page.get_by_role("button", name="Drop them").click()
    expect(page.locator(".data-state")).to_have_text("ready for SFT")
    expect(page.locator("#findings .findings")).to_contain_text("dropped")
    planned(page, "!plan.errors.length")


@pytest.mark.long
def test_paths_outside_are_refused(page: Page, server: Server) -> None:
    open_tab(page, server, "data")
    page.locator("#data-path").locator("input, textarea").first.fill("/etc/passwd")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#data-problem")).to_contain_text("the page may not read files there")
    expect(page.locator("#f-data-train tbody tr")).to_have_count(1)


def test_model_facts_and_a_hub_id(page: Page, server: Server) -> None:
    open_tab(page, server, "model")
    expect(page.locator("#model-facts")).to_contain_text("134,515,008")
    expect(page.locator("#model-facts")).to_contain_text("Apache-2.0")
    fill(page, "model.path", "someone/some-model")
    expect(page.locator("#model-facts")).to_contain_text("HF_HUB_OFFLINE forbids downloading it")
    planned(page, "plan.line.includes('downloaded when the run starts') && !plan.errors.length")
    page.locator("#model-cards label", has_text="SmolLM2").click()
    planned(page, "plan.memory && !plan.errors.length")
    expect(page.locator("#model-facts")).to_contain_text("134,515,008")


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark"), (1440, "dark"), (390, "light")])
def test_axe_and_no_sideways_scrolling(page: Page, server: Server, scheme: str, width: int) -> None:
    look(page, scheme, width)
    for tab in ("model", "data", "method"):
        page.goto("about:blank")
        open_tab(page, server, tab)
        page.wait_for_timeout(800)
        if tab == "method":
            page.locator("#tab-method button.fold").last.click()
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.long
def test_start_selects_the_new_run(page: Page, server: Server) -> None:
    open_tab(page, server, "method")
    page.locator("#tab-method button.fold").last.click()
    fill(page, "training.max_steps", "1")
    planned(page, "plan.line.includes('1 step')")
    page.locator("#tab-method .plan-name").fill("one step")
    page.locator("#tab-method .plan-start").click()
    expect(page.get_by_role("tab", name="Training", exact=True)).to_have_attribute("aria-selected", "true")
    page.wait_for_function("() => window.studio.state.job.endsWith('one-step')")
    job = find_job(server.settings.jobs, "one step", "train")
    assert job.request.config["training"]["max_steps"] == 1
    page.get_by_role("tab", name="Method", exact=True).click()
    expect(page.locator("#tab-method .plan-start")).to_have_text("Add to queue")
    expect(page.locator("#tab-method .plan-name")).to_have_value("")
    until_ended(page, "one step")
    assert job.state().status == "completed", job.log_path.read_text()[-2000:]


@pytest.mark.long
def test_a_page_that_nobody_touches_asks_nothing(page: Page, server: Server) -> None:
    open_tab(page, server, "data")
    for limit in ("200", "300", "400", "500"):  # quicker than the answers come
        fill(page, "data.max_length", limit)
        page.wait_for_timeout(120)
    planned(page, "!plan.errors.length")
    page.wait_for_timeout(6000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "gradio_api" in request.url else None)
    page.wait_for_timeout(4000)
    assert asked == []
    expect(page.locator("#lengths")).to_contain_text("limit 500 tokens")


INSIDE = """selector => {
  const box = document.querySelector(selector)?.getBoundingClientRect();
  return box && box.width > 0 && box.left >= 0 && box.right <= innerWidth;
}"""


@pytest.mark.long
def test_a_model_that_cannot_be_taken_away_says_so_before_the_start(page: Page, server: Server) -> None:
    folder = server.home / "models" / "tiny-opt"
    save_tiny(folder, "opt", vocab_size=49152)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(server.home / "models" / "smollm2-135m-instruct" / name, folder / name)
    page.set_default_timeout(120_000)  # the first look at a model rehearses its conversion
    open_tab(page, server, "model")
    expect(page.locator("#tab-model .plan-limits")).to_be_hidden()
    fill(page, "model.path", str(folder))
    planned(page, "plan.limits.length === 1")
    limit = page.locator("#tab-model .plan-limits .notice")
    expect(limit).to_contain_text("OPTForCausalLM")
    expect(page.locator("#tab-model .plan-start")).not_to_have_class(re.compile("blocked"))
    for width, height in ((1440, 900), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function(INSIDE, arg="#tab-model .plan-limits .notice")
    fill(page, "model.path", "smollm2-135m-instruct")
    planned(page, "!plan.limits.length && plan.memory")
    expect(page.locator("#tab-model .plan-limits")).to_be_hidden()

"""The Merge section in a real browser: a recipe is written from the fields, checked, merged, and its report shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from playwright.sync_api import Page, expect
from transformers import LlamaConfig, LlamaForCausalLM

from studio.jobs import find_job
from studio.models.inspect.tokenizerfiles import copy_tokenizer
from tests.browser.made import as_text, open_tab, serious
from tests.browser.setup.test_setup_tabs import planned
from tests.merge.made import SIZES, put_child, put_point, put_run

if TYPE_CHECKING:
    from tests.browser.conftest import Server


DRAWN = "document.querySelector('.merge-curve').data.map((one) => [one.name, [...one.x], [...one.y]])"


DROP = """(text) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([text], "dropped.yaml"));
  const drop = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
  document.querySelector("#merge-recipe textarea").dispatchEvent(drop);
}"""


@pytest.fixture
def runs(server: Server, leftovers: list[Path], model_path: Path, tmp_path: Path) -> None:
    """Two tiny runs that can be merged."""
    leftovers.append(server.settings.jobs)
    for seed, name in enumerate(("first", "second")):
        folder = tmp_path / name
        torch.manual_seed(seed)
        LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(folder)
        copy_tokenizer(model_path, folder)
        put_run(server.settings, name, folder, folder)


def pick(page: Page, name: str) -> None:
    page.locator("#merge-models input").click()
    page.get_by_role("option", name=f"{name} · run").click()


@pytest.mark.long
def test_two_runs_are_merged(page: Page, server: Server, runs: None, settle: Callable[[], None]) -> None:
    open_tab(page, server.url, "export", "")
    settle()
    pick(page, "first")
    pick(page, "second")
    page.locator("#merge-models input").press("Escape")
    recipe = page.locator("#merge-recipe textarea")
    expect(recipe).to_have_value("merge_method: linear\nmodels:\n- model: first\n  parameters:\n    weight: 1.0\n"
                                 "- model: second\n  parameters:\n    weight: 1.0\n")  # fmt: skip
    page.locator("#merge-weights textarea, #merge-weights input").press_sequentially("0.25,", delay=100)
    expect(page.locator("#merge-said")).to_contain_text("1 weight is given for 2 models")
    expect(page.locator(".refused")).to_have_count(0)
    page.locator("#merge-weights textarea, #merge-weights input").press_sequentially(" 0.75", delay=100)
    expect(page.locator("#merge-said p")).to_have_text("")
    expect(recipe).to_have_value(
        "merge_method: linear\nmodels:\n- model: first\n  parameters:\n    weight: 0.25\n"
        "- model: second\n  parameters:\n    weight: 0.75\n"
    )
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.locator("#merge-said")).to_contain_text("Linear: this can be merged.")
    page.locator("#merge-name textarea, #merge-name input").fill("both")
    assert not serious(page)
    page.get_by_role("button", name="Merge", exact=True).click()
    expect(page.get_by_role("heading", name="Merge both", exact=True)).to_be_visible()
    report = page.locator(".merge-report")
    expect(report.locator("tbody tr")).to_have_count(2, timeout=120_000)
    expect(report).to_contain_text("Linear")
    expect(report.locator("tbody")).to_contain_text("first")
    as_text(page)
    assert not serious(page)


@pytest.mark.long
def test_an_edited_recipe_counts_and_a_wrong_one_is_a_sentence(
    page: Page, server: Server, runs: None, settle: Callable[[], None]
) -> None:
    open_tab(page, server.url, "export", "")
    settle()
    page.locator("#merge-recipe textarea").fill("merge_method: tis\nmodels: [{model: first}, {model: second}]")
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.locator("#merge-said")).to_contain_text("there is no merge method 'tis'. Did you mean ties?")


@pytest.mark.long
def test_a_child_is_a_base_model_and_stands_beside_runs(page: Page, server: Server, runs: None, tmp_path: Path) -> None:
    child = put_child(server.settings, "mixed", tmp_path / "first")
    run = find_job(server.settings.jobs, "second", "train")
    open_tab(page, server.url, "model", "")
    page.locator("#model-cards label", has_text="mixed").click()
    facts = page.locator("#model-facts")
    expect(facts.locator(".facts-title")).to_have_text("mixed")
    expect(facts).to_contain_text("merge · Linear")
    planned(page, "plan.memory && !plan.errors.length")
    page.evaluate("ids => { location.hash = `compare=${ids}` }", f"{run.id},{child.id}")
    expect(page.get_by_role("heading", name="Comparison of 2 runs")).to_be_visible()
    table = page.locator("#comparison tbody")
    expect(table.locator("tr[data-key=merge_method] td")).to_have_text(["–", "linear"])
    expect(table.locator("tr[data-key=merged_models] td").last).to_have_text("a (weight 1), b (weight 1)")
    page.locator("#comparison").get_by_role("button", name="Close", exact=True).click()
    page.locator(".run", has_text="mixed").click()
    acts = page.locator("[data-part=queue-acts]")
    for word in ("branch", "extend", "duplicate", "edit"):
        expect(acts.locator(f"[data-act={word}]")).to_be_hidden()


@pytest.mark.long
def test_a_sweep_is_a_curve_that_leads_to_its_children(page: Page, server: Server, leftovers: list[Path]) -> None:
    jobs = [put_point(server.settings, value, correct, not at) for at, (value, correct) in enumerate(
        ((0.0, 1), (0.5, 3), (1.0, 2)))]  # fmt: skip
    leftovers += [job.path for job in jobs]
    open_tab(page, server.url, "export", jobs[0].id)
    report = page.locator(".merge-report")
    expect(report).to_contain_text("Exact match on 4 rows of rows.jsonl")
    page.wait_for_function("document.querySelector('.merge-curve')?.data?.length === 2")
    drawn = page.evaluate(DRAWN)
    assert drawn == [["a", [0, 1], [50, 50]], ["child", [0, 0.5, 1], [25, 75, 50]]]
    expect(report.locator(".legend")).to_contain_text("a: 50.0 %")
    expect(page.locator(".runs-group")).to_contain_text("mix: sweep")
    report.get_by_role("button", name="mix-0.5", exact=True).click()
    expect(report.get_by_role("heading", name="Merge mix-0.5", exact=True)).to_be_visible()
    report.get_by_role("button", name="Delete the other 2 children").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Delete 2 jobs permanently")
    assert all(job.path.exists() for job in jobs), "nothing goes before it was confirmed"
    dialog.get_by_role("button", name="Cancel", exact=True).click()


@pytest.mark.long
def test_a_recipe_comes_from_a_file_and_goes_into_one(
    page: Page, server: Server, tmp_path: Path, settle: Callable[[], None]
) -> None:
    file, large = tmp_path / "mix.yaml", tmp_path / "large.yaml"
    file.write_text("merge_method: passthrough\nslices: [{sources: [{model: nobody, layer_range: [0, 1]}]}]\n")
    large.write_text("# " + 10_000_000 * "x")
    open_tab(page, server.url, "export", "")
    settle()  # the tab's scripts come after the page
    chosen, said = page.locator("[data-recipe=file]"), page.locator("[data-recipe=said]")
    chosen.set_input_files(large)
    expect(said).to_have_text(
        "large.yaml has 10.0 MB, and a recipe has at most 262 kB. Open a recipe in mergekit's YAML."
    )
    chosen.set_input_files(file)
    expect(page.locator("#merge-recipe textarea")).to_have_value(file.read_text())
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.locator("#merge-said")).to_contain_text("there is no run or model 'nobody'")
    page.evaluate(DROP, file.read_text().replace("nobody", "somebody"))
    expect(page.locator("#merge-recipe textarea")).to_have_value(file.read_text().replace("nobody", "somebody"))
    chosen.set_input_files(file)
    expect(page.locator("#merge-recipe textarea")).to_have_value(file.read_text())
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the recipe", exact=True).click()
    assert download.value.suggested_filename == "recipe.yaml"
    assert Path(download.value.path()).read_text() == file.read_text()
    fonts = page.evaluate("""['textarea', '[data-testid=block-info]', '.info-text'].map((part) =>
        getComputedStyle(document.querySelector(`#merge-recipe ${part}`) || document.body).fontFamily.split(',')[0])""")
    assert "Mono" in fonts[0] and not any("Mono" in font for font in fonts[1:])

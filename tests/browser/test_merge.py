"""The Merge section in a real browser: a recipe is written from the fields, checked, merged, and its report shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from playwright.sync_api import Page, expect
from transformers import LlamaConfig, LlamaForCausalLM

from studio.models.inspect.tokenizerfiles import copy_tokenizer
from tests.browser.made import as_text, open_tab, serious
from tests.merge.made import SIZES, put_run

if TYPE_CHECKING:
    from tests.browser.conftest import Server


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
    page.locator("#merge-weights textarea, #merge-weights input").fill("0.25, 0.75")
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

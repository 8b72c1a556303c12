"""Two runs of the real model are merged by clicks, and the child is evaluated, chatted with and exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from peft import LoraConfig, get_peft_model
from playwright.sync_api import Page, expect
from transformers import AutoModelForCausalLM

from studio.config.model import EMBEDDED_MODEL
from studio.jobs import find_job
from studio.models.inspect.tokenizerfiles import copy_tokenizer
from tests.browser.made import as_text, longest_answer, open_tab
from tests.browser.results.test_chain import asked, evaluated, exported
from tests.browser.results.test_merge import pick
from tests.merge.made import put_run

if TYPE_CHECKING:
    from tests.browser.conftest import Server

pytestmark = pytest.mark.long


@pytest.fixture
def tuned(server: Server, leftovers: list[Path], tmp_path: Path) -> list[str]:
    """Names of two runs with small adapters of the real model."""
    leftovers.append(server.settings.jobs)
    names, model_path = ["orders", "style"], server.home / "models" / EMBEDDED_MODEL
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        loaded = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
        peft_model = get_peft_model(loaded, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        for key, parameter in peft_model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.01)
        peft_model.save_pretrained(tmp_path / name)
        copy_tokenizer(model_path, tmp_path / name)
        put_run(server.settings, name, tmp_path / name, model_path)
    return names


def test_a_child_goes_the_whole_way(page: Page, server: Server, tuned: list[str], settle: Callable[[], None]) -> None:
    open_tab(page, server.url, "export", "")
    settle()
    for name in tuned:
        pick(page, name)
    page.locator("#merge-models input").press("Escape")
    expect(page.locator("#merge-recipe textarea")).to_have_value("merge_method: linear\nmodels:\n- model: orders\n"
        "  parameters:\n    weight: 1.0\n- model: style\n  parameters:\n    weight: 1.0\n")  # fmt: skip
    page.locator("#merge-name textarea, #merge-name input").fill("both")
    page.get_by_role("button", name="Merge", exact=True).click()
    expect(page.get_by_role("heading", name="Merge both", exact=True)).to_be_visible()
    expect(page.locator(".merge-report tbody tr")).to_have_count(2, timeout=400_000)

    page.get_by_role("tab", name="Training", exact=True).click()
    page.locator("#evaluate-limit input").fill("4")
    page.locator("#evaluate-limit input").press("Enter")
    assert len(evaluated(page, "of 4 right")) == 2
    expect(page.locator(".score small")).to_have_text(["Base model", "Child"])
    page.get_by_role("tab", name="Chat", exact=True).click()
    longest_answer(page, 16)
    asked(page, "both · tuned")
    exported(page, server)

    child = find_job(server.settings.jobs, "both", "merge")
    assert child.state().status == "completed"
    as_text(page)

"""Choosing a model in a real browser: from the Hub (a local server speaks for it), from the list, without a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from tests.browser.made import look, serious
from tests.browser.setup.test_setup_tabs import fill, open_tab, planned, value
from tests.models.checkpoints import write_checkpoint
from tests.support.prepared import link_model
from tests.support.servers.hubserver import Hub, serve_hub

if TYPE_CHECKING:
    from tests.browser.conftest import Server
    from tests.conftest import Measured

pytestmark = pytest.mark.long


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """One open model of 26 MB, sent slowly, and a gated one."""
    folder = write_checkpoint(tmp_path / "tiny", shards=2, vocab=800_000)
    hub = Hub({"org/tiny": folder, "org/closed": folder}, gated=("org/closed",), pause=0.15)
    hub.told["org/tiny"] = {"cardData": {"license": "apache-2.0"}}
    hub.told["org/closed"] = {"cardData": {"license": "other"}, "gated": "manual"}
    return hub


@pytest.fixture
def online(
    serve: Callable[..., Server], hub: Hub, model_path: Path, tmp_path: Path, measured: Measured,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Server]:  # fmt: skip
    """A web process whose Hub is ours."""
    home = tmp_path / "home"
    link_model(model_path, home)
    measured.tell(home)
    with serve_hub(hub) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        server = serve(home)
        yield server
        server.end()


def test_a_model_of_the_hub_is_described_downloaded_and_planned(online: Server, page: Page, hub: Hub) -> None:
    open_tab(page, online, "model")
    facts = page.locator("#model-facts")
    expect(facts).to_contain_text("134,515,008")
    fill(page, "model.path", "org/tiny")
    expect(facts).not_to_contain_text("134,515,008")
    expect(facts).to_contain_text("apache-2.0")
    expect(facts).to_contain_text("open to all")
    expect(facts.locator(".facts-state")).to_have_text("not downloaded")
    facts.get_by_role("button", name=re.compile(r"^Download \(\d+ MB\)$")).click()
    bar = facts.get_by_role("progressbar")
    expect(bar).to_be_visible()
    page.wait_for_function("+document.querySelector('.facts-hub [role=progressbar]').getAttribute('aria-valuenow') > 0")
    facts.get_by_role("button", name="Stop", exact=True).click()
    again = facts.get_by_role("button", name=re.compile("^Continue the download"))
    expect(again).to_be_visible()
    page.reload()  # what is on the disk stays, and the page knows of it
    planned(page, "plan.waits")
    hub.pause, hub.sent_bytes = 0.0, 0
    again.click()
    expect(facts.locator(".facts-state")).to_have_text("ready", timeout=60_000)
    expect(facts).to_contain_text("hub--org--tiny")
    whole = sum(file.stat().st_size for file in hub.repositories["org/tiny"].glob("*.safetensors"))
    assert 0 < hub.sent_bytes < whole, "what was there was sent again"
    planned(page, "!plan.waits")


def test_gated_absent_and_misspelt(online: Server, page: Page) -> None:
    open_tab(page, online, "model")
    facts, field = page.locator("#model-facts"), page.locator("#f-model-path")
    fill(page, "model.path", "org/closed")
    expect(facts.locator(".facts-hub")).to_contain_text("gated")
    expect(facts.locator(".facts-hub")).to_contain_text("HF_TOKEN")
    link = facts.get_by_role("link", name="https://huggingface.co/org/closed", exact=True)
    expect(link).to_have_attribute("href", "https://huggingface.co/org/closed")
    expect(link).to_have_attribute("rel", re.compile("noopener"))
    expect(facts.get_by_role("button", name="Check again")).to_be_visible()
    expect(facts.get_by_role("button", name=re.compile("^Download"))).to_have_count(0)
    fill(page, "model.path", "org/absent")
    expect(facts.locator(".facts-hub")).to_contain_text("Check the spelling")
    expect(field).to_have_attribute("data-note", re.compile("the Hub has no model org/absent"))
    fill(page, "model.path", "smollm2-135m-instruct")
    expect(facts).to_contain_text("134,515,008")
    expect(facts.locator(".facts-hub")).to_be_hidden()
    expect(field).not_to_have_attribute("data-note", re.compile("absent"))


def test_the_list_says_what_fits_and_searches_the_hub(online: Server, page: Page) -> None:
    open_tab(page, online, "model")
    models = page.locator("#model-browser")
    models.get_by_text("Browse models", exact=True).click()
    rows = models.locator(".model-row")
    expect(rows.filter(has_text="deepseek-ai/DeepSeek-V3")).to_contain_text("does not fit here")
    expect(rows.filter(has_text="smollm2-135m-instruct")).to_contain_text("fits")
    models.get_by_label("Find a model").fill("qwen3")
    expect(rows).to_have_count(3)
    models.get_by_label("Find a model").fill("tiny")
    expect(rows).to_have_count(0)
    models.get_by_role("button", name="Search the Hub").click()
    expect(rows.filter(has_text="org/tiny")).to_contain_text("7 downloads")
    models.get_by_role("button", name="Use org/tiny", exact=True).click()
    expect(page.locator("#model-facts .facts-title")).to_have_text("tiny")
    assert value(page, "model.path") == "org/tiny"
    fill(page, "model.path", "smollm2-135m-instruct")
    planned(page, "plan.memory")
    models.get_by_role("button", name="Use org/tiny", exact=True).click()
    expect(page.locator("#model-facts .facts-title")).to_have_text("tiny")
    for scheme, width in (("light", 1440), ("dark", 390)):
        look(page, scheme, width)
        assert serious(page) == []


def test_without_a_network_that_is_said_at_the_field(
    page: Page, serve: Callable[..., Server], model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link_model(model_path, tmp_path / "home")
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    server = serve(tmp_path / "home")
    open_tab(page, server, "model")
    fill(page, "model.path", "org/tiny")
    said = re.compile("no network|not answered within")
    expect(page.locator("#f-model-path")).to_have_attribute("data-note", said, timeout=6_000)
    expect(page.locator("#model-facts .facts-hub")).to_contain_text(said)
    expect(page.locator("#model-facts")).not_to_contain_text("gaierror")

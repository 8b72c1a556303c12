"""The Export tab puts an export where it is wanted: a repository of the Hub, a folder, a zip file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from studio.jobs import JobFolder
from tests.browser.conftest import Serve, Server
from tests.browser.made import as_text, look, open_tab, serious
from tests.export.tinyrun import make_tiny_run
from tests.support.prepared import link_model
from tests.support.servers.hubserver import Hub, serve_hub
from tests.support.servers.hubuploads import Uploads
from tests.ui.made_jobs import made_upload

REPO = "#export-repo textarea, #export-repo input"
PATH = "#export-path textarea, #export-path input"
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (1440, 390)]


@pytest.mark.long
def test_a_place_asks_for_a_repository_or_a_folder(
    page: Page, server: Server, run: JobFolder, settle: Callable[[], None]
) -> None:
    open_tab(page, server.url, "export", run.id)
    settle()
    expect(page.locator("#export-delivery")).to_have_count(0)
    page.get_by_role("radio", name="Hugging Face Hub", exact=True).click()
    expect(page.get_by_role("button", name="Upload to the Hub", exact=True)).to_be_visible()
    expect(page.locator(REPO)).to_be_visible()
    expect(page.locator("#export-private input")).to_be_checked()
    expect(page.locator("#export-dtype")).to_be_visible()
    page.locator("#export-what").get_by_role("radio", name="GGUF", exact=True).click()
    expect(page.locator("#export-types")).to_be_visible()
    expect(page.locator("#export-dtype")).to_have_count(0)
    page.get_by_role("radio", name="Folder or zip", exact=True).click()
    expect(page.locator(PATH)).to_be_visible()
    expect(page.locator(REPO)).to_have_count(0)
    assert not serious(page)


@pytest.mark.long
def test_the_report_says_where_it_is(page: Page, server: Server, run: JobFolder) -> None:
    made_upload(server.settings.jobs, run)
    open_tab(page, server.url, "export", run.id)
    told = page.locator("#export-report .export-delivered")
    expect(told).to_contain_text(
        "On the Hub: ada/tuned (private): 3 files, 269 MB, of which 260 MB were there already."
    )
    expect(told).to_contain_text("Replaced: README.md <script>")
    expect(told).to_contain_text("Removed, since they would be loaded first: model.safetensors.")
    link = told.get_by_role("link", name="ada/tuned", exact=True)
    expect(link).to_have_attribute("href", "https://huggingface.co/ada/tuned")
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    expect(page.locator("#summary-export textarea, #summary-export input")).to_have_value(
        "Merged checkpoint in ada/tuned"
    )
    as_text(page)
    assert not serious(page)


@pytest.mark.long
def test_an_address_that_is_none_of_the_web_is_no_link(page: Page, server: Server, run: JobFolder) -> None:
    made_upload(server.settings.jobs, run, "javascript:alert(1)")
    open_tab(page, server.url, "export", run.id)
    told = page.locator("#export-report .export-delivered")
    expect(told).to_contain_text("On the Hub: ada/tuned")
    expect(told.get_by_role("link")).to_have_count(0)


@pytest.mark.long
def test_a_click_uploads_a_run(
    page: Page, serve: Serve, tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch,
    settle: Callable[[], None],
) -> None:  # fmt: skip
    """A tiny run to the local Hub, by the page and the processes that it starts; then the same at all sizes."""
    hub = Hub({}, uploads=Uploads(tmp_path / "on-the-hub", pause=0.01))
    home = tmp_path / "home"
    link_model(model_path, home)
    run = make_tiny_run(home / "jobs", model_path, home / "models" / "tiny-base")  # where the page may read
    with serve_hub(hub) as address:
        for name, value in {"HF_ENDPOINT": address, "HF_TOKEN": "hf_of_ada", "HF_HUB_OFFLINE": "0"}.items():
            monkeypatch.setenv(name, value)
        server = serve(home)
        open_tab(page, server.url, "export", run.id)
        settle()
        page.get_by_role("radio", name="Hugging Face Hub", exact=True).click()
        page.locator(REPO).fill("ada/tiny")
        page.get_by_role("button", name="Upload to the Hub", exact=True).click()
        told = page.locator("#export-report .export-delivered")
        expect(told).to_contain_text("On the Hub: ada/tiny (private)", timeout=240_000)
        assert {"README.md", "config.json", "curves.png"} <= {
            one.name for one in hub.repositories["ada/tiny"].iterdir()
        }
        page.get_by_role("button", name="Upload to the Hub", exact=True).click()
        expect(page.locator("#export-report .notice.error")).to_contain_text("ada/tiny holds", timeout=120_000)
        for scheme, width in LOOKS:
            page.goto("about:blank")  # the same address with another fragment would open nothing anew
            look(page, scheme, width)
            open_tab(page, server.url, "export", run.id)
            settle()
            page.get_by_role("radio", name="Hugging Face Hub", exact=True).click()
            expect(page.locator(REPO)).to_be_visible()
            page.locator("#export-report details.older > summary").click()
            expect(told).to_be_visible()
            assert not serious(page), (scheme, width)
            over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert over <= 0, (scheme, width, over)
            page.screenshot(path=tmp_path / f"uploaded-{scheme}-{width}.png", full_page=True)

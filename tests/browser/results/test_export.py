"""The Export tab in a real browser: reports, downloads, live phases, and one real export."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from playwright.sync_api import Page, expect

from studio.config.jobs import ExportConfig
from studio.jobs import JobFolder
from studio.jobs.store.checkpoints import seal
from studio.jobs.store.files import write_json
from studio.models.catalog.embedded import find_gguf
from tests.browser.made import as_text, open_tab, serious
from tests.support.programs.llamaserver import llama_server
from tests.ui.made_jobs import made_differing, made_export, made_merged, made_run, made_served, made_weighted

if TYPE_CHECKING:
    from tests.browser.conftest import FakeRun, Serve, Server

    MakeRun = Callable[..., FakeRun]


@pytest.mark.long
def test_without_a_run_there_is_one_sentence(page: Page, server: Server) -> None:
    open_tab(page, server.url, "export", "")
    expect(page.locator("#export-empty")).to_contain_text("Pick a finished run")
    expect(page.get_by_role("button", name="Export to GGUF", exact=True)).to_have_count(0)


@pytest.mark.long
def test_a_model_is_chosen_without_a_run(page: Page, server: Server, settle: Callable[[], None]) -> None:
    open_tab(page, server.url, "export", "")
    settle()
    field = page.locator("#export-source input")
    field.click()
    page.get_by_role("option", name="SmolLM2-135M-Instruct · model").click()
    expect(page.get_by_role("button", name="Export to GGUF", exact=True)).to_be_visible()
    expect(page.locator("#export-empty")).to_have_count(0)
    field.fill("")
    field.press("Tab")
    expect(page.locator("#export-empty")).to_contain_text("or a model above")


@pytest.mark.long
def test_report_has_every_number_and_notes_are_text(page: Page, server: Server, run: JobFolder) -> None:
    export = made_export(server.settings.jobs, run)
    open_tab(page, server.url, "export", run.id)
    expect(page.get_by_role("heading", name="GGUF of demo", exact=True)).to_be_visible()
    row = page.locator("#export-report tbody tr").first
    for text in ("Q4_K_M", "105 MB", "96.2 %", "0.0123", "99 / 100", "as expected", "kept at higher precision"):
        expect(row).to_contain_text(text)
    expect(page.locator("#export-report")).to_contain_text("Prompt tokens equal in training, chat and llama.cpp for 8")
    rare = page.locator("#export-report .export-rare li")
    expect(rare).to_have_count(1)  # both files say the same
    expect(rare).to_contain_text("the tokenizer normalizes text (NFC), for example 'e\\u0301'")
    expect(rare).to_contain_text("Normalize prompts to NFC.")
    told = page.locator("#export-report .export-modelfile")
    expect(told).to_contain_text("Modelfile for Ollama: its TEMPLATE gives the same text as in training for 11 of 12")
    expect(told.get_by_role("link", name="Modelfile", exact=True)).to_be_visible()
    expect(page.locator("#export-report .export-card .notice.warning")).to_have_count(0)
    expect(page.locator("#export-report .hashes code").first).to_have_text(f"{10:064x}")
    expect(page.locator("#summary-export textarea, #summary-export input")).to_have_value("Q4_K_M, F16")
    as_text(page)
    assert export.exports.is_dir()


@pytest.mark.long
def test_download_sends_the_file_from_where_it_lies(page: Page, server: Server, run: JobFolder) -> None:
    made_export(server.settings.jobs, run)
    open_tab(page, server.url, "export", run.id)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download Q4_K_M · 105 MB", exact=True).click()
    assert download.value.suggested_filename == "demo-q4_k_m.gguf"
    assert download.value.path().read_bytes() == b"GGUFq4_k_m"
    assert not list((server.settings.temporary / "gradio").rglob("*.gguf"))


@pytest.mark.long
def test_a_merged_checkpoint_shows_its_answers_folder_and_files(page: Page, server: Server, run: JobFolder) -> None:
    job = made_merged(server.settings.jobs, run)
    open_tab(page, server.url, "export", run.id)
    report = page.locator("#export-report")
    expect(page.get_by_role("heading", name="Merged checkpoint of demo", exact=True)).to_be_visible()
    for text in ("Merged, bfloat16", "269 MB", "99.8 %", "1.6e-4", "98 / 100", "as trained", "3 files"):
        expect(report.locator("tbody tr")).to_contain_text(text)
    expect(report).to_contain_text("Prompt tokens equal in training, chat and the folder's own tokenizer for 13")
    expect(report).to_contain_text("Greedy answers equal to the trained model's: 7 of 8; 1 diverge where")
    expect(report).to_contain_text(str(job.exports / "demo-merged"))
    as_text(page)
    report.locator("summary", has_text="Files of demo-merged").click()
    with page.expect_download() as download:
        report.get_by_role("link", name="tokenizer.json", exact=True).click()
    assert download.value.suggested_filename == "tokenizer.json"
    assert download.value.path().read_text() == "the tokenizer.json"
    assert not serious(page)


@pytest.mark.long
def test_the_form_follows_the_destination(
    page: Page, server: Server, run: JobFolder, settle: Callable[[], None]
) -> None:
    open_tab(page, server.url, "export", run.id)
    settle()
    page.get_by_role("radio", name="Merged checkpoint", exact=True).click()
    expect(page.get_by_role("button", name="Export checkpoint", exact=True)).to_be_visible()
    expect(page.locator("#export-types")).to_have_count(0)
    expect(page.locator("#export-dtype input")).to_have_value("auto")
    page.get_by_role("radio", name="Adapter", exact=True).click()
    expect(page.get_by_role("button", name="Export adapter", exact=True)).to_be_visible()
    expect(page.locator("#export-base textarea, #export-base input")).to_be_visible()
    expect(page.locator("#export-dtype")).to_have_count(0)
    page.get_by_role("radio", name="vLLM", exact=True).click()
    expect(page.get_by_role("button", name="Export for vLLM", exact=True)).to_be_visible()
    expect(page.locator("#export-dtype input")).to_have_value("auto")
    expect(page.locator("#export-context textarea, #export-context input")).to_have_value("auto")
    expect(page.locator("#export-base")).to_have_count(0)
    page.locator("#export-serve").get_by_role("radio", name="Adapter", exact=True).click()
    expect(page.locator("#export-base textarea, #export-base input")).to_be_visible()
    expect(page.locator("#export-dtype")).to_have_count(0)
    page.get_by_role("radio", name="GGUF", exact=True).click()
    expect(page.get_by_role("button", name="Export to GGUF", exact=True)).to_be_visible()
    expect(page.locator("#export-types")).to_be_visible()
    expect(page.locator("#export-serve")).to_have_count(0)


@pytest.mark.long
def test_the_report_says_how_a_server_is_started(page: Page, server: Server, run: JobFolder) -> None:
    job = made_served(server.settings.jobs, run)
    open_tab(page, server.url, "export", run.id)
    card = page.locator(".export-card").first
    expect(card.get_by_role("heading")).to_contain_text("vLLM of")
    expect(card.locator(".export-serving")).to_contain_text("serve.sh and compose.yaml for vLLM")
    expect(card.locator(".export-serving code").nth(1)).to_have_text(f"sh {job.exports / 'serve.sh'}")
    expect(card.get_by_role("button", name="Copy the command: Ask it")).to_be_visible()
    with urllib.request.urlopen(f"{server.url}api/jobs/{job.id}/files/compose.yaml") as download:
        assert b"vllm/vllm-openai" in download.read()
    assert not serious(page)


@pytest.mark.long
def test_a_report_for_llama_cpps_server_is_shown_whole(page: Page, server: Server, run: JobFolder) -> None:
    job = made_served(server.settings.jobs, run)
    report = json.loads((job.report / "export.json").read_text())
    told = {"program": "llama.cpp b9999", "equal": 11, "compared": 12, "rare": 3, "rare_equal": 2}
    write_json(job.report / "export.json", report | {"rendered": told})
    open_tab(page, server.url, "export", run.id)
    expect(page.locator(".export-serving")).to_contain_text(
        "llama-server (llama.cpp b9999) makes the same prompts as the trained model for 11 of 12 conversations and 2 of"
        " 3 rare texts"
    )
    expect(page.locator("#export-report .notice.error")).to_have_count(0)


@pytest.mark.long
def test_stop_and_the_chosen_checkpoint_stay_while_an_export_goes_on(
    page: Page, server: Server, run: JobFolder, fake_run: MakeRun, settle: Callable[[], None]
) -> None:
    for step in (5, 10):
        (run.checkpoints / f"checkpoint-{step}").mkdir(parents=True)
        seal(run.checkpoints / f"checkpoint-{step}", step, {})
    config = ExportConfig.model_validate({"run": run.id, "types": ["q8_0"]})
    fake = fake_run("zdemo", "export", config.model_dump(mode="json"))
    open_tab(page, server.url, "export", run.id)
    fake.phase("merging", 1, 2, "steps")
    settle()
    page.locator("#export-checkpoint input").click()
    page.get_by_role("option", name="Step 10", exact=True).click()
    head = page.locator("#export-report .export-head").first
    stop = head.get_by_role("button", name="Stop", exact=True)
    stop.focus()
    page.wait_for_timeout(2_500)  # two polls
    expect(stop).to_be_focused()
    fake.finish("failed", "no room on the disk", "Free some space")
    expect(page.locator("#export-report .notice.error")).to_contain_text("no room on the disk")
    expect(head.locator(".pill")).to_have_text("failed")
    expect(stop).to_be_hidden()
    page.wait_for_timeout(1_000)  # until the form is asked for again
    settle()
    expect(page.locator("#export-checkpoint input")).to_have_value("Step 10")


@pytest.mark.long
def test_a_lossy_file_and_its_importance_matrix_are_told(page: Page, server: Server, run: JobFolder) -> None:
    made_weighted(server.settings.jobs, run)
    open_tab(page, server.url, "export", run.id)
    report = page.locator("#export-report")
    expect(report.locator(".export-head .pill")).to_have_text("verified, lossy")
    expect(report.locator("tbody tr").first.locator(".pill.warn")).to_have_text("lossy")
    told = report.locator(".export-matrix")
    expect(told).to_contain_text(
        "1.04 MB): the importance matrix of 151 training rows (16,384 tokens), with which IQ2_XS"
    )
    expect(report).to_contain_text("SHA-256 of demo.imatrix.gguf")
    with page.expect_download() as download:
        told.get_by_role("link", name="demo.imatrix.gguf", exact=True).click()
    assert download.value.path().read_bytes() == b"GGUFmatrix"


@pytest.mark.long
def test_differences_are_folded_a_page_is_sent_on_and_a_missing_server_is_told(
    page: Page, server: Server, run: JobFolder
) -> None:
    made_differing(server.settings.jobs, run)
    open_tab(page, server.url, "export", run.id)
    report = page.locator("#export-report")
    pair = report.locator(".export-pair")
    expect(pair).to_be_hidden()
    report.locator("summary", has_text="Largest differences from the trained model").click()
    expect(report.locator(".export-differences ~ details tbody tr")).to_contain_text("Rome 62.0 %the other one: –")
    expect(report).to_contain_text("3 only the trained model gets right, 1 only what was exported")
    for text in ("row 7", "Trained model", "Exported", "Expected", '{"city":"Oslo"}'):
        expect(pair).to_contain_text(text)
    as_text(page)
    with page.expect_download() as download:
        report.get_by_role("link", name="Report (HTML)", exact=True).click()
    assert download.value.suggested_filename == "report.html"
    assert download.value.path().read_text() == "the page"
    trying = report.locator(".export-trying")
    button = trying.get_by_role("button", name="Try it with llama.cpp's server", exact=True)
    if shutil.which("llama-server") is None:
        expect(button).to_be_disabled()
        expect(trying).to_contain_text("llama.cpp's server is not installed on this machine.brew install llama.cpp")
    else:
        expect(button).to_be_enabled()
    assert not serious(page)


@pytest.mark.long
def test_an_export_is_tried_on_a_server_of_another_maker(
    page: Page, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = llama_server()
    if program is None:
        pytest.skip("llama-server is fetched for Linux on x86-64 alone")
    monkeypatch.setenv("STUDIO_LLAMA_SERVER", str(program))
    server = serve(tmp_path / "home")
    run = made_run(server.settings.jobs)
    job = made_export(server.settings.jobs, run, ("q8_0",))
    file = job.exports / "demo-q8_0.gguf"
    file.unlink()
    file.symlink_to(find_gguf())
    open_tab(page, server.url, "export", run.id)
    trying = page.locator("#export-report .export-trying")
    trying.get_by_role("button", name="Try it with llama.cpp's server", exact=True).click()
    expect(trying.locator(".pill")).to_have_text("llama.cpp's server: ready", timeout=60_000)
    assert not serious(page)
    trying.get_by_role("button", name="Chat with it on llama.cpp's server", exact=True).click()
    expect(page.locator("#chat-right-target input")).to_have_value("demo-q8_0.gguf · on llama.cpp's server")
    page.locator("#chat-message textarea").fill("Repeat after me: one two three.")
    page.locator("#chat-send").click()
    expect(page.locator("#chat-right .chat-messages")).to_contain_text(
        re.compile("one two three.*one two three", re.IGNORECASE | re.DOTALL), timeout=60_000
    )
    page.get_by_role("tab", name="Export", exact=True).click()
    keepers = [
        one for one in psutil.Process(server.process.pid).children() if "trying.keeper" in " ".join(one.cmdline())
    ]
    (child,) = keepers[0].children()
    trying.get_by_role("button", name="Stop", exact=True).click()
    expect(trying.get_by_role("button", name="Try it with llama.cpp's server", exact=True)).to_be_enabled()
    with contextlib.suppress(psutil.NoSuchProcess):
        assert child.status() == psutil.STATUS_ZOMBIE  # it has ended, and its parent too


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 1440])
def test_all_types_can_be_chosen_on_any_screen(
    width: int, page: Page, server: Server, run: JobFolder, settle: Callable[[], None]
) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    open_tab(page, server.url, "export", run.id)
    settle()
    expect(page.locator("#export-small")).to_have_count(0)
    page.get_by_role("button", name="More types, importance matrix").click()
    expect(page.locator("#export-small input")).to_have_count(12)
    page.locator("#export-small").get_by_label("IQ4_XS · 4.5 bits", exact=True).check()
    page.locator("#export-imatrix").get_by_label("For all types", exact=True).check()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not serious(page)
    page.get_by_role("radio", name="Adapter", exact=True).click()
    expect(page.get_by_role("button", name="More types, importance matrix")).to_have_count(0)


@pytest.mark.long
def test_chat_with_it_opens_the_file_beside_the_tuned_model(
    page: Page, server: Server, run: JobFolder, settle: Callable[[], None]
) -> None:
    made_export(server.settings.jobs, run)
    open_tab(page, server.url, "export", run.id)
    settle()  # gradio may lose an event that comes while the tab is still being filled for the selected run
    page.get_by_role("button", name="Chat with it: demo-f16.gguf", exact=True).click()
    expect(page.get_by_role("tab", name="Chat", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.locator("#chat-right-target input")).to_have_value("demo-f16.gguf · GGUF")
    expect(page.locator("#chat-left-target input")).to_have_value("demo · tuned")


@pytest.mark.long
def test_phases_are_live_and_older_exports_are_folded(
    page: Page, server: Server, run: JobFolder, fake_run: MakeRun
) -> None:
    made_export(server.settings.jobs, run)
    config = ExportConfig.model_validate({"run": run.id, "types": ["q8_0"]})
    fake = fake_run("zdemo", "export", config.model_dump(mode="json"))
    open_tab(page, server.url, "export", run.id)
    fake.phase("merging", 1, 1, "", "end")
    fake.phase("quantizing q8_0", 100, 272, "tensors")
    expect(page.locator("#export-report .phase")).to_have_count(2)
    expect(page.locator("#export-report .phase-count")).to_have_text(["done", "100 of 272 tensors"])
    page.locator("summary", has_text="Earlier: Q4_K_M, F16").click()
    expect(page.locator("details.older tbody tr")).to_have_count(2)
    fake.finish("failed", "no room on the disk", "Free some space")
    expect(page.locator("#export-report .notice.error")).to_contain_text("no room on the disk. Free some space")

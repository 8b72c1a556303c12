"""The Export tab without a browser: what it offers, what it submits, what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import gradio as gr
import pytest

from studio.config.jobs import Destination, ExportConfig, GgufType
from studio.errors import InputError, InputErrors
from studio.jobs import Summaries, find_job
from studio.jobs.store.checkpoints import seal
from studio.jobs.store.folder import create_job
from studio.reach import reading_for
from studio.settings import Settings
from studio.ui.page import build_page
from studio.ui.server.services import Services
from studio.ui.tabs.chat import tab as chat
from studio.ui.tabs.chat.targets import targets_for
from studio.ui.tabs.export import tab as export
from studio.ui.tabs.export.report import report_value
from studio.ui.tabs.export.tab import ExportTab, chat_key
from tests.ui.made_jobs import finish, made_export, made_merged, made_run


@pytest.fixture
def tab(settings: Settings) -> ExportTab:
    chats: Any = SimpleNamespace(loaded=lambda: [])
    services = Services(settings=settings, summaries=Summaries(), data=None, chats=chats)  # type: ignore[arg-type]
    with gr.Blocks():
        page = build_page(services)
        with gr.Tabs() as page.tabs:
            with gr.Tab("Chat", id="chat"):
                chat.build(page)
            with gr.Tab("Export", id="export"):
                return ExportTab(page)


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was submitted; nothing is started."""
    jobs: list[dict[str, Any]] = []
    monkeypatch.setattr(
        export, "submit", lambda settings, kind, name, config: jobs.append({**config, "kind": kind, "name": name})
    )
    return jobs


def test_all_types_of_the_schema_are_offered_and_its_default_is_chosen(tab: ExportTab) -> None:
    offered = [value for group in (tab.types, tab.small, tab.older) for _, value in group.choices]
    assert sorted(offered) == sorted(get_args(GgufType))
    assert tab.types.value == ["q4_k_m"] and ("Q4_K_M · 4.9 bits", "q4_k_m") in tab.types.choices


def test_export_submits_the_types(tab: ExportTab, settings: Settings, submitted: list[dict[str, Any]]) -> None:
    run = made_run(settings.jobs)
    tab.submit(run.id, ["q8_0", "f16"], "demo/test.jsonl")
    tab.submit(run.id, ["q4_k_m"], "")
    assert (submitted[0]["kind"], submitted[0]["run"], submitted[0]["types"]) == ("export", run.id, ["q8_0", "f16"])
    assert submitted[0]["evaluate"] == "demo/test.jsonl" and submitted[1]["evaluate"] is None


def test_smaller_types_come_with_a_matrix(tab: ExportTab, settings: Settings, submitted: list[dict[str, Any]]) -> None:
    run = made_run(settings.jobs)
    tab.submit(run.id, ["q8_0"], "", small=["iq4_xs", "iq2_xs"], older=["q5_0"])
    tab.submit(run.id, [], "", "ollama", small=["iq4_xs"], imatrix="off")
    assert [(one["types"], one["imatrix"]) for one in submitted] == [
        (["q8_0", "iq4_xs", "iq2_xs", "q5_0"], "auto"), (["iq4_xs"], "off"),
    ]  # fmt: skip
    with pytest.raises(InputErrors, match="iq2_xs cannot be made without an importance matrix"):
        tab.submit(run.id, [], "", small=["iq2_xs"], imatrix="off")


def test_a_checkpoint_asks_for_its_precision_and_not_for_types(
    tab: ExportTab, settings: Settings, submitted: list[dict[str, Any]]
) -> None:
    assert shown(tab, "merged") == {"merged"} and tab.choose("merged", "merged")[tab.start].value == "Export checkpoint"
    assert shown(tab, "gguf") == {"types", "more"} and tab.choose("gguf", "merged")[tab.start].value == "Export to GGUF"
    run = made_run(settings.jobs)
    tab.submit(run.id, [], "", "merged", "float16", "2", None)
    assert [submitted[0][name] for name in ("to", "dtype", "shard_gb", "types")] == [
        "merged",
        "float16",
        2.0,
        ["q4_k_m"],
    ]
    with pytest.raises(InputErrors, match="shard_gb"):
        tab.submit(run.id, [], "", "merged", "float16", "0")


def test_an_adapter_asks_for_its_base(tab: ExportTab, settings: Settings, submitted: list[dict[str, Any]]) -> None:
    told = tab.choose("adapter", "merged")[tab.to].info
    assert told == "The adapter alone, for programs that load it beside its base model."
    assert shown(tab, "adapter") == {"base"}
    run = made_run(settings.jobs)
    with pytest.raises(InputError, match="neither a Hub id nor the folder of a model"):
        tab.submit(run.id, [], "", "adapter", base="no such name")
    tab.submit(run.id, [], "", "adapter", base=" owner/name ")
    assert [submitted[0][name] for name in ("to", "base")] == ["adapter", "owner/name"]


def test_a_server_asks_for_what_it_is_given(
    tab: ExportTab, settings: Settings, submitted: list[dict[str, Any]]
) -> None:
    assert shown(tab, "vllm") == {"merged", "served", "context"}
    assert shown(tab, "tgi", "adapter") == {"base", "served", "context"}
    assert shown(tab, "llama-server", "adapter") == {"types", "more", "context"}
    run = made_run(settings.jobs)
    tab.submit(run.id, ["f16"], "", "vllm", "float16", "2", None, "merged", "4096")
    tab.submit(run.id, ["f16"], "", "llama-server", "float16", "2", None, "adapter", " ")
    first, second = submitted
    assert (first["to"], first["serve"], first["context"], first["dtype"]) == ("vllm", "merged", 4096, "float16")
    assert (first["types"], second["types"]) == (["q4_k_m"], ["f16"])
    assert (second["serve"], second["context"], second["dtype"]) == ("merged", "auto", "auto")
    with pytest.raises(InputErrors, match="context"):
        tab.submit(run.id, [], "", "vllm", context="many")


def test_a_checkpoint_of_the_run_is_chosen_by_its_step(
    tab: ExportTab, settings: Settings, submitted: list[dict[str, Any]]
) -> None:
    run = made_run(settings.jobs)
    (_, _, _, checkpoint, *_) = tab.refresh(run.id)
    assert not checkpoint.visible
    for step in (5, 10):
        (run.checkpoints / f"checkpoint-{step}").mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            (run.checkpoints / f"checkpoint-{step}" / name).touch()
        seal(run.checkpoints / f"checkpoint-{step}", step, {})
    (_, _, _, checkpoint, *_) = tab.refresh(run.id)
    assert checkpoint.visible
    assert checkpoint.choices == [("Result of the run", ""), ("Step 5", "5"), ("Step 10", "10")]
    tab.submit(run.id, ["f16"], "", checkpoint="10")
    tab.submit(run.id, ["f16"], "", checkpoint="")
    assert [one["checkpoint"] for one in submitted] == [10, None]
    with pytest.raises(InputError, match="no checkpoint of step 7"):
        tab.submit(run.id, ["f16"], "", checkpoint="7")


def test_the_chosen_checkpoint_stays_while_the_run_is_the_same(
    tab: ExportTab, settings: Settings, services: Services
) -> None:
    run, other = made_run(settings.jobs), made_run(settings.jobs, "other")
    for job in (run, other):
        (job.checkpoints / "checkpoint-5").mkdir(parents=True)
        seal(job.checkpoints / "checkpoint-5", 5, {})
    export_job = made_export(settings.jobs, run)
    report = report_value(services, run)
    for told in (tab.refresh(run.id, "", report, "5"), tab.select(export_job.id, report, "5")[1:]):
        assert told[3].choices == [("Result of the run", ""), ("Step 5", "5")]
        assert "value" not in told[3].constructor_args, "a choice that was made since is not written over"
    for told in (tab.refresh(run.id, "", report, "7"), tab.refresh(other.id, "", report, "5"), tab.refresh(run.id)):
        assert told[3].constructor_args["value"] == ""
    assert tab.refresh(run.id, "smollm2-135m-instruct", report, "5")[3].constructor_args["value"] == ""


def shown(tab: ExportTab, to: Destination, serve: str = "merged", what: str | None = None) -> set[str]:
    """Names of the fields that a destination shows."""
    fields = {
        "types": tab.types,
        "more": tab.more,
        "merged": tab.merged,
        "served": tab.served,
        "context": tab.context,
        "base": tab.base,
    }
    told = tab.choose(to, serve, what)
    return {name for name, field in fields.items() if told[field].visible}


def test_a_place_asks_where_and_for_what_is_put_there(
    tab: ExportTab, settings: Settings, submitted: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column, hub, path = tab.delivery.show("hub")
    assert (column.visible, hub.visible, path.visible) == (True, True, False)
    column, hub, path = tab.delivery.show("folder")
    assert (column.visible, hub.visible, path.visible) == (True, False, True)
    assert not tab.delivery.show("gguf")[0].visible
    for what, seen in (("merged", "merged"), ("gguf", "types"), ("adapter", "base")):
        assert shown(tab, "hub", what=what) - {"more"} == {seen}
        assert tab.choose("hub", "merged", what)[tab.start].value == "Upload to the Hub"
    run = made_run(settings.jobs)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    usual = ("merged", "", "", [], [], "auto")  # of what servers are asked, no checkpoint, no other types
    tab.submit(run.id, ["q8_0"], "", "hub", "auto", "1", None, *usual, "gguf", " ada/tuned ", True, False, None)
    tab.submit(run.id, [], "", "folder", "float16", "2", "", *usual, "merged", "", True, False, f" {tmp_path}/new.zip ")
    read = ("to", "what", "types", "repo", "private", "overwrite", "path", "dtype")
    assert [submitted[0][name] for name in read] == ["hub", "gguf", ["q8_0"], "ada/tuned", True, False, None, "auto"]
    assert [submitted[1][name] for name in read] == [
        "folder", "merged", ["q4_k_m"], None, True, False, f"{tmp_path}/new.zip", "float16",
    ]  # fmt: skip
    with pytest.raises(InputError, match="no repository is named"):
        tab.submit(run.id, [], "", "hub", "auto", "1", None, *usual, "merged", "", True, False, None)
    with pytest.raises(InputError, match="is not empty"):
        tab.submit(run.id, [], "", "folder", "auto", "1", None, *usual, "merged", "", True, False, str(settings.home))
    assert len(submitted) == 2


def test_an_export_is_named_by_its_place(settings: Settings, services: Services) -> None:
    run = made_run(settings.jobs)
    for config in ({"to": "hub", "repo": "ada/tuned", "what": "adapter"}, {"to": "folder", "path": "/x/out.zip"}):
        finish(create_job(settings.jobs, "export", "demo", ExportConfig(run=run.id, **config).model_dump(mode="json")))
    named = {(one["title"], one["what"]) for one in report_value(services, run)["exports"]}
    assert named == {
        ("Hugging Face Hub of demo", "Adapter in ada/tuned"), ("Folder or zip of demo", "Merged checkpoint in out.zip")
    }  # fmt: skip


def test_a_checkpoint_is_named_by_its_precision(settings: Settings, services: Services) -> None:
    run = made_run(settings.jobs)
    made_merged(settings.jobs, run)
    (one,) = report_value(services, run)["exports"]
    assert (one["title"], one["what"]) == ("Merged checkpoint of demo", "merged, bfloat16")


def test_wrong_wishes_are_refused(tab: ExportTab, settings: Settings, submitted: list[dict[str, Any]]) -> None:
    run = made_run(settings.jobs)
    for types in ([], ["q9"]):
        with pytest.raises(InputErrors, match="types"):
            tab.submit(run.id, types, "")
    with pytest.raises(InputError, match="may not read"):
        tab.submit(run.id, ["f16"], "/etc/hosts")
    with pytest.raises(InputError, match="no run is selected"):
        tab.submit("", ["f16"], "")
    with pytest.raises(InputError, match="still running"):
        tab.submit(made_run(settings.jobs, "young", status="running").id, ["f16"], "")
    assert submitted == []


def test_refresh_shows_the_form_or_one_sentence(tab: ExportTab, settings: Settings, services: Services) -> None:
    empty, form, *_, summary = tab.refresh("")
    assert empty.visible and "Pick a finished run" in empty.value and not form.visible and summary == "nothing yet"
    run = made_run(settings.jobs)
    made_export(settings.jobs, run)
    empty, form, _, _, value, summary = tab.refresh(run.id)
    assert not empty.visible and form.visible and summary == "Q4_K_M, F16" and len(value["exports"]) == 1
    young = made_run(settings.jobs, "young", status="running")
    assert "when it is done" in tab.refresh(young.id)[0].value
    assert report_value(services, young)["waiting"] == young.id


def test_exports_of_another_run_are_not_shown(settings: Settings, services: Services) -> None:
    run, other = made_run(settings.jobs), made_run(settings.jobs, "other")
    made_export(settings.jobs, other)
    assert report_value(services, run)["exports"] == []


def test_an_export_that_names_its_run_by_name_means_the_newest(settings: Settings, services: Services) -> None:
    older = made_run(settings.jobs)
    newer = made_run(settings.jobs)
    job = made_export(settings.jobs, newer)
    (job.path / "job.yaml").write_text("kind: export\nname: demo\nconfig: {run: demo, types: [f16]}\n")
    assert [one["id"] for one in report_value(services, newer)["exports"]] == [job.id]
    assert report_value(services, older)["exports"] == []


def test_key_of_the_file_to_chat_with_comes_from_the_event() -> None:
    event: Any = SimpleNamespace(job="20261124-1-x", file="x-f16.gguf")
    assert chat_key(event) == "gguf/20261124-1-x/x-f16.gguf"
    assert chat_key(SimpleNamespace()) == "merged//"  # type: ignore[arg-type]


def test_a_model_is_exported_as_well_as_a_run(
    tab: ExportTab, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "smollm2-135m-instruct"
    monkeypatch.setattr(export, "submit", lambda settings, *asked: create_job(settings.jobs, *asked))  # and not begun
    (source, empty, form, *_) = tab.select("")
    assert ("SmolLM2-135M-Instruct · model", name) in source.choices and source.value == ""
    assert empty.visible and not form.visible
    empty, form, rows, checkpoint, *_ = tab.refresh("", name)
    assert (empty.visible, form.visible, checkpoint.visible) == (False, True, False)
    assert ("Demo test rows", "demo/test.jsonl") in rows.choices
    *_, summary, job_id = tab.queue_export(f" {name} ", "", "", ["q8_0"], "", "merged", "float16")
    assert summary == "merged, float16: being made"
    job = find_job(settings.jobs, job_id)
    assert (job.request.config["run"], job.request.config["dtype"], job.request.name) == (name, "float16", name)
    source, *_, report, _ = tab.select(job_id)
    assert source.value == name
    assert (report["exports"][0]["title"], report["silent"]) == (f"Merged checkpoint of {name}", False)
    *_, second = tab.queue_export(name, " 0.5 ", "", ["q8_0"], "")
    assert find_job(settings.jobs, second).request.config["shard_size"] == 0.5
    assert tab.refresh("", name)[4]["silent"], "the Chat tab talks to what is made of the selected job"
    (job.exports / "x").mkdir(parents=True)
    (job.exports / "x" / "config.json").touch()
    assert [one.kind for one in targets_for(tab.page.services, job_id)] == ["base", "merged"]
    with reading_for(settings), pytest.raises(InputError, match="the page may not read"):
        tab.queue_export(str(tmp_path), "", "", ["q8_0"], "")
    with pytest.raises(InputError, match="has no adapter"):
        tab.queue_export(name, None, "", [], "", "adapter")

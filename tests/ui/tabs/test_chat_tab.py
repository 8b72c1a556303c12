"""The Chat tab without a browser: what can be talked to, how two answers stream, stop, and what is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from studio.chat.ask import job_target
from studio.config.jobs import ExportConfig
from studio.errors import InputError, StudioError
from studio.jobs import Summaries
from studio.jobs.store.folder import create_job
from studio.settings import Settings
from studio.ui.components.selected import selected_run
from studio.ui.page import build_page
from studio.ui.server.services import Services
from studio.ui.tabs.chat.ask import Sampling
from studio.ui.tabs.chat.pane import (
    Ask,
    Finished,
    Loading,
    News,
    Piece,
    Turn,
    conversation,
    empty_pane,
    read_messages,
    show_turns,
)
from studio.ui.tabs.chat.tab import MAX_LIVE, ChatTab, LiveTurns
from studio.ui.tabs.chat.targets import find_target, opening_of, targets_of
from tests.ui.made_jobs import SCRIPT, finish, made_evaluation, made_export, made_merged, made_run, made_weighted

SESSION = SimpleNamespace(session_hash="tab-1")


def speaker(words: str, pause: float = 0.0, more: Callable[[], None] = lambda: None) -> Ask:
    """A model that says the words, one at a time."""

    def ask(messages: list[dict[str, str]], stop: threading.Event, tell: Callable[[News], None]) -> None:
        tell(Loading("loading the model"))
        more()
        for word in words.split(" "):
            if stop.wait(pause):
                return
            tell(Piece(word + " "))
        tell(Finished(len(words.split(" "))))

    return ask


def turn(ask: Ask, question: str = "Who?", base: dict[str, Any] | None = None) -> Turn:
    return Turn(base or empty_pane(""), question, "", ask, threading.Event())


def last(value: dict[str, Any]) -> dict[str, Any]:
    return value["messages"][-1]


@pytest.fixture
def tab(settings: Settings) -> ChatTab:
    chats: Any = SimpleNamespace(loaded=lambda: [], close_all=lambda: None)
    services = Services(settings=settings, summaries=Summaries(), data=None, chats=chats)  # type: ignore[arg-type]
    with gr.Blocks():
        page = build_page(services)
        with gr.Tabs() as page.tabs, gr.Tab("Chat", id="chat"):
            return ChatTab(page)


def test_targets_without_a_run_are_the_base_model_alone(services: Services) -> None:
    targets = targets_of(services, None)
    assert [(one.key, one.label) for one in targets] == [("base", "SmolLM2-135M-Instruct · base")]


def test_targets_of_a_run_are_base_tuned_and_its_files(settings: Settings, services: Services) -> None:
    run = made_run(settings.jobs)
    export = made_export(settings.jobs, run)
    made_export(settings.jobs, made_run(settings.jobs, "other"))
    keys = [one.key for one in targets_of(services, run)]
    assert keys == ["base", "tuned", f"gguf/{export.id}/demo-f16.gguf", f"gguf/{export.id}/demo-q4_k_m.gguf"]


def test_an_importance_matrix_is_no_model(settings: Settings, services: Services) -> None:
    run = made_run(settings.jobs)
    made_weighted(settings.jobs, run)
    assert [one.label for one in targets_of(services, run)][2:] == ["demo-iq2_xs.gguf · GGUF", "demo-q8_0.gguf · GGUF"]


def test_a_merged_checkpoint_is_a_model_of_its_own(settings: Settings, services: Services) -> None:
    run = made_run(settings.jobs)
    export = made_merged(settings.jobs, run)
    target = targets_of(services, run)[-1]
    assert (target.key, target.label) == (f"merged/{export.id}/demo-merged", "demo-merged · merged")
    assert target.model == str(export.exports / "demo-merged")
    loaded = job_target(export, settings)  # studio chat EXPORT
    assert (loaded.kind, loaded.model, loaded.adapter) == ("model", export.exports / "demo-merged", None)


def test_unfinished_run_has_no_tuned_model(settings: Settings, services: Services) -> None:
    run = made_run(settings.jobs, status="running")
    assert [one.key for one in targets_of(services, run)] == ["base"]


@pytest.mark.parametrize("key", ["", "gguf/x/../../etc/passwd", "/etc/passwd", "tuned"])
def test_a_key_that_is_no_target_is_refused(services: Services, key: str) -> None:
    with pytest.raises(InputError, match="Pick another one"):
        find_target(targets_of(services, None), key)


def test_selection_of_an_evaluation_means_its_run(settings: Settings, tmp_path: Path) -> None:
    run = made_run(settings.jobs)
    evaluation = made_evaluation(settings.jobs, run)
    found = selected_run(settings, evaluation.id)
    assert found is not None and found.id == run.id
    outside = made_run(tmp_path / "elsewhere")
    assert selected_run(settings, str(outside.path)) is None
    assert selected_run(settings, "") is None and selected_run(settings, "gone") is None


def test_opening_has_the_trained_system_prompt_and_held_out_questions(settings: Settings) -> None:
    opening = opening_of(settings, made_run(settings.jobs))
    assert opening.system == "Order to JSON." and len(opening.questions) == 3 and not opening.problem
    assert opening.questions[0].startswith("Order for Helen")


def test_opening_of_data_outside_the_roots_reads_nothing(settings: Settings, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"prompt": "a", "completion": "b"}\n')
    run = made_run(settings.jobs)
    request = run.request
    request.config["data"]["train"] = [{"path": str(secret), "format": "auto"}]
    opening = opening_of(settings, run)
    assert opening.questions == () and "may not read" in opening.problem


def test_two_panes_stream_at_once_and_not_faster_than_the_pace() -> None:
    began = time.monotonic()
    turns = [turn(speaker("one two three four", 0.1)), turn(speaker("a b c d", 0.1))]
    views = list(show_turns(turns, threading.Event()))
    seconds = time.monotonic() - began
    assert [last(view)["content"] for view in views[-1]] == ["one two three four ", "a b c d "]
    assert not views[-1][0]["busy"] and views[0][0]["busy"]
    assert len(views) <= seconds / 0.05 + 2
    assert any(last(left)["content"] and last(right)["content"] and left["busy"] for left, right in views[:-1])
    assert "first token" in views[-1][0]["speed"] and "tokens/s" in views[-1][0]["speed"]


def test_loading_is_told_with_its_seconds() -> None:
    views = list(show_turns([turn(speaker("done", more=lambda: time.sleep(1.2)))], threading.Event()))
    notes = {last(view[0])["note"] for view in views}
    assert "Loading the model …" in notes and "Loading the model … 1 s" in notes
    assert last(views[-1][0])["note"] == ""


def test_stop_keeps_what_was_said_and_does_not_wait_for_the_model() -> None:
    stop, held = threading.Event(), threading.Event()

    def ask(messages: list[dict[str, str]], event: threading.Event, tell: Callable[[News], None]) -> None:
        tell(Piece("half an "))
        held.wait(20)
        tell(Piece("answer"))

    views = []
    began = time.monotonic()
    for view in show_turns([turn(ask)], stop):
        views.append(view)
        if last(view[0])["content"]:
            stop.set()
    held.set()
    assert time.monotonic() - began < 5
    assert last(views[-1][0])["content"] == "half an " and last(views[-1][0])["note"] == "Stopped."


def test_failure_of_one_pane_is_a_sentence_and_the_other_goes_on() -> None:
    def broken(messages: Any, stop: Any, tell: Any) -> None:
        raise StudioError("the model could not be loaded", where="demo", fix="Unload other models")

    def bug(messages: Any, stop: Any, tell: Any) -> None:
        raise KeyError("/secret/path")

    *_, (first, second, third) = show_turns([turn(broken), turn(bug), turn(speaker("fine"))], threading.Event())
    assert last(first)["failed"] and "Unload other models" in last(first)["note"]
    assert last(second)["failed"] and "secret" not in last(second)["note"]
    assert last(third)["content"] == "fine " and not last(third)["failed"]


def test_a_failed_answer_is_not_sent_again() -> None:
    messages = read_messages({"messages": [
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two"}, {"role": "assistant", "content": "", "failed": True},
        {"role": "user", "content": "three"},
    ]})  # fmt: skip
    assert conversation(messages, " ") == [
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}, {"role": "user", "content": "three"},
    ]  # fmt: skip
    assert conversation(messages, "Be brief.")[0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("value", [None, "x", 3, {"messages": "x"}, {"messages": [1, None, {"role": "system"}]}])
def test_values_of_the_browser_are_not_trusted(value: Any) -> None:
    assert read_messages(value) == []


def test_model_output_travels_as_it_is() -> None:
    *_, (view,) = show_turns([turn(speaker(SCRIPT))], threading.Event())
    assert last(view)["content"] == SCRIPT + " "


@pytest.mark.parametrize(
    ("values", "where"),
    [((3, 1, 10), "Temperature"), ((0, 0, 10), "Top p"), ((0, 1, 0), "Maximum"), ((0, 1, None), "Maximum"),
     (("hot", 1, 10), "Temperature")],
)  # fmt: skip
def test_sampling_out_of_bounds_is_named(values: tuple[Any, Any, Any], where: str) -> None:
    with pytest.raises(InputError, match=where):
        Sampling.checked(*values)


def test_refresh_fills_the_tab(tab: ChatTab, settings: Settings) -> None:
    run = made_run(settings.jobs)
    left, right, _, right_value, system, *chips = tab.refresh(run.id, SESSION)[:8]  # type: ignore[arg-type]
    assert (left.value, right.value) == ("base", "tuned") and system == "Order to JSON."
    assert all(chip.value for chip in chips) and "examples" in right_value["hint"]
    *_, open_training, loaded, unload, summary = tab.refresh(run.id, SESSION)  # type: ignore[arg-type]
    assert not open_training.visible and "first message" in loaded and not unload.visible and summary == "base | tuned"


def test_refresh_without_a_run_says_what_to_do_and_still_offers_the_base_model(tab: ChatTab) -> None:
    left, right, _, right_value, *rest = tab.refresh("", SESSION)  # type: ignore[arg-type]
    assert left.value == "base" and not right.interactive and "Train a run" in right_value["hint"]
    assert rest[4].visible and rest[-1] == "base"


def test_answer_streams_both_panes_and_frees_the_session(
    tab: ChatTab, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made_run(settings.jobs)
    asked: list[str] = []

    def fake(target: Any, sampling: Sampling) -> Ask:
        asked.append(f"{target.model_id}:{sampling.temperature:g}")
        return speaker(f"I am {target.kind}")

    monkeypatch.setattr(tab, "_ask", fake)
    panes = (empty_pane(""), empty_pane(""))
    steps = list(tab.answer(run.id, " Who? ", "base", "tuned", *panes, "", 0, 1, 64, SESSION))  # type: ignore[arg-type]
    assert steps[0][tab.message] == "" and asked == ["base:0", "tuned:0"]
    assert last(steps[-1][tab.left_pane])["content"] == "I am base "
    assert last(steps[-1][tab.right_pane])["content"] == "I am tuned "
    assert steps[-1][tab.right_pane]["messages"][0]["content"] == "Who?"
    tab.live.end("tab-1", tab.live.begin("tab-1"))


def test_answer_refuses_an_empty_message(tab: ChatTab) -> None:
    with pytest.raises(InputError, match="empty"):
        next(tab.answer("", "  ", "base", "", None, None, "", 0, 1, 64, SESSION))  # type: ignore[arg-type]


def test_open_with_puts_the_file_at_the_right(tab: ChatTab, settings: Settings) -> None:
    run = made_run(settings.jobs)
    key = f"gguf/{made_export(settings.jobs, run).id}/demo-f16.gguf"
    left, right, *_, summary, tabs = tab.open_with(run.id, key, SESSION)  # type: ignore[arg-type]
    assert (left.value, right.value, summary, tabs.selected) == ("tuned", key, "tuned | GGUF", "chat")
    with pytest.raises(InputError):
        tab.open_with(run.id, "gguf/x/y.gguf", SESSION)  # type: ignore[arg-type]


def test_an_export_of_a_plain_model_is_opened_beside_that_model(tab: ChatTab, settings: Settings) -> None:
    config = ExportConfig.model_validate({"run": "smollm2-135m-instruct", "types": ["q8_0"]})
    job = create_job(settings.jobs, "export", "smol", config.model_dump(mode="json"))
    job.exports.mkdir()
    (job.exports / "smol-q8_0.gguf").touch()
    finish(job)
    key = f"gguf/{job.id}/smol-q8_0.gguf"
    left, right, *_, summary, tabs = tab.open_with(job.id, key, SESSION)  # type: ignore[arg-type]
    assert (left.value, right.value, summary, tabs.selected) == ("base", key, "base | GGUF", "chat")


def test_what_is_gone_is_replaced_by_what_is_there(tab: ChatTab, settings: Settings) -> None:
    run = made_run(settings.jobs)
    gone = "gguf/deleted/demo-f16.gguf"
    left, right, pane, *_, summary = tab.reload_choices(run.id, gone, gone)
    assert (left.value, right.value, summary) == ("base", "tuned", "base | tuned")
    assert pane["messages"] == [], "the answers of the one that is gone do not stand below another one's name"
    left, right, first, second, summary = tab.restart(run.id, "base", gone, SESSION)  # type: ignore[arg-type]
    assert (left.value, right.value, summary) == ("base", "tuned", "base | tuned")
    assert first["messages"] == second["messages"] == []
    *choices, _, _, summary = tab.restart(run.id, "tuned", "base", SESSION)  # type: ignore[arg-type]
    assert choices == [gr.skip(), gr.skip()] and summary == "tuned | base"


def test_one_question_a_tab_and_a_limit_for_all() -> None:
    turns = LiveTurns()
    first = turns.begin("a")
    with pytest.raises(InputError, match="still being answered"):
        turns.begin("a")
    for number in range(MAX_LIVE - 1):
        turns.begin(f"b{number}")
    with pytest.raises(StudioError, match="already"):
        turns.begin("c")
    turns.stop("a", discard=True)
    assert first.stop.is_set() and first.discard
    turns.end("a", first)
    assert not turns.begin("a").stop.is_set()

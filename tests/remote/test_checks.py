"""Rows are checked and priced before anything is sent."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
import tiktoken

from studio.config.load import build
from studio.config.remote import OpenAIConfig
from studio.errors import InputError, InputErrors
from studio.remote.checks import wrong_with
from studio.remote.prepare import prepare
from studio.remote.rows import rows_of, split
from studio.remote.table import FILE, read_table
from studio.remote.tokens import Tokens, _name, tokens_of
from studio.settings import PRESETS, Settings
from tests.remote.conftest import Rows, chat, prepared_of, questions
from tests.support.servers.openaijobs import refused_rows

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + 400_000 * "A"}}
PAIR = {"input": {"messages": [USER]}, "preferred_output": [ANSWER],
        "non_preferred_output": [{"role": "assistant", "content": "No"}]}  # fmt: skip
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("supervised", {"messages": []}, "'messages' is not a list of messages"),
    ("supervised", {"messages": [{"role": "bot", "content": "x"}, ANSWER]}, 'has the role "bot", which is none of'),
    ("supervised", {"messages": [USER]}, "the last message is from user, so there is no answer to learn"),
    ("supervised", {"messages": [USER, {**ANSWER, "weight": 0}]}, "every answer has the weight 0"),
    ("supervised", {"messages": [USER, {**ANSWER, "weight": 0.5}]}, "has the weight 0.5; only answers have one"),
    ("supervised", {"messages": [{**USER, "weight": 1}, ANSWER]}, "has the weight 1; only answers have one"),
    ("supervised", {"messages": [USER, {"role": "assistant", "content": ""}]}, "message 2 of 'messages' is empty"),
    ("supervised", {"messages": [{"role": "user"}, ANSWER]}, "message 1 of 'messages' has no content"),
    ("supervised", {"messages": [USER, {"role": "tool", "tool_call_id": "c9", "content": "1"}, ANSWER]},
     'answers the tool call "c9", which was never made'),
    ("supervised", {"messages": [USER, ANSWER], "tools": [{"type": "function"}]}, "tool 1 is not a function with"),
    ("supervised", {"messages": [USER, {**ANSWER, "weight": True}]}, "has the weight true; only answers have one"),
    ("supervised", {"messages": [USER, {**ANSWER, "tool_calls": 5}]}, "has tool calls that are not a list"),
    ("supervised", {"messages": [USER, {"role": "assistant", "tool_calls": [{**CALL, "id": None}]}]},
     "a tool call without an id"),
    ("supervised", {"messages": [USER, {"role": "assistant", "content": []}]}, "message 2 of 'messages' is empty"),
    ("supervised", {"messages": [USER, {"role": "assistant", "content": [IMAGE]}]},
     "part 1 of message 2 of 'messages' is an image, and only messages from user may have one"),
    ("supervised", {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}, ANSWER]},
     'is neither a text nor an image (its type is "input_audio")'),
    ("dpo", {**PAIR, "preferred_output": [ANSWER, ANSWER]}, "'preferred_output' must be one message"),
    ("dpo", {**PAIR, "non_preferred_output": [ANSWER]}, "both answers are the same"),
    ("dpo", {**PAIR, "input": {"messages": [USER, ANSWER]}}, "the prompt ends with an answer"),
    ("reinforcement", {"messages": [USER, ANSWER]}, "the prompt ends with an answer"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "row", "said"), WRONG)
def test_what_the_service_would_refuse_is_said(method: str, row: dict[str, Any], said: str) -> None:
    assert said in wrong_with(row, method)


def test_sound_rows_are_sound() -> None:
    called = {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]},
                           {"role": "tool", "tool_call_id": "c1", "content": "1"}, ANSWER]}  # fmt: skip
    assert [wrong_with(row, "supervised") for row in (called, chat("a"))] == ["", ""]
    assert wrong_with(PAIR, "dpo") == wrong_with({"messages": [USER]}, "reinforcement") == ""


def test_the_price_is_tokens_times_epochs_times_price(settings: Settings, rows: Rows) -> None:
    found = prepared_of(settings, rows(questions(60)), n_epochs=4)
    assert not found.counted and found.epochs == 4 and not found.epochs_chosen
    assert found.price == pytest.approx(found.tokens * 4 * 3.00 / 1e6)
    assert found.cost().startswith(f"about {found.tokens:,} tokens × 4 epochs = about $0.0")
    assert "Prices as of 2026-05-07" in found.cost() and "They may have changed." in found.cost()
    assert "= less than $0.01." in prepared_of(settings, rows(questions(12))).cost()
    # What the service would choose itself: at least 100 examples seen, by the rule of its cookbook.
    assert prepared_of(settings, rows(questions(12))).epochs == 8
    hourly = prepared_of(
        settings, rows([{"messages": [USER], "answer": str(at)} for at in range(12)]), method="reinforcement",
        model="openai:o4-mini-2025-04-16", grader='{"type": "string_check"}',
    )  # fmt: skip
    assert hourly.price is None and "$100.00 for each hour of training" in hourly.cost()


def test_tokens_are_counted_where_the_table_of_tokens_is_here() -> None:
    letters = tiktoken.Encoding("letters", pat_str=r".", mergeable_ranks={bytes([at]): at for at in range(256)},
                                special_tokens={"<|end|>": 256})  # fmt: skip
    counted, estimated = Tokens(letters), Tokens()
    assert counted.exact and counted.text("abcd") == 4 and counted.text("<|end|>") == 7
    assert not estimated.exact and (estimated.text("abcdefgh"), estimated.text("日本語")) == (2, 3)
    row = {"messages": [{"role": "user", "content": "abcd", "name": "ada"}, {"role": "assistant", "content": "ok"}]}
    # Three for the row, three a message, one for the name, and the texts of role, content and name.
    assert counted.row(row) == 3 + (3 + 1 + 4 + 4 + 3) + (3 + 9 + 2)


def test_doubtful_rows_are_told(settings: Settings, rows: Rows) -> None:
    some = [*questions(12), chat("Is 3 a number?", "3 is one."), chat("x", "y", "Be long."),
            chat("My key is sk-abcdefghijklmnopqrstuvwxyz", "Thanks", note="secret")]  # fmt: skip
    held = rows([chat("Is 3 a number?", "3 is one.")], "held.jsonl")
    said = "\n".join(prepared_of(settings, rows(some), validation=str(held)).warnings)
    assert "15 rows are few: 50 or more are advised" in said
    assert "the rows have 2 different system prompts (14 have 'Be short.')" in said
    assert "1 rows repeat an earlier one (row 13)" in said
    assert "1 texts look like keys or addresses, and would be sent (row 15: API key sk-a… (29 characters))" in said
    assert "abcdefghijklmnop" not in said
    assert "1 rows are in the training and the validation rows" in said
    assert "keys that are not sent, with their rows: note (1)" in said


def seen(at: int, *parts: dict[str, Any]) -> dict[str, Any]:
    """A row that asks about images."""
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": f"What is {at}?"}, *parts]}, ANSWER]}


def test_images_are_priced_as_images_and_refused_as_the_service_does(settings: Settings, rows: Rows) -> None:
    model = {"model": "openai:gpt-4o-2024-08-06"}
    low = {"type": "image_url", "image_url": {**IMAGE["image_url"], "detail": "low"}}
    found = prepared_of(settings, rows([seen(at, IMAGE, low) for at in range(12)]), **model)
    # Three for the row, three a message, two and three of its role, and the texts.
    assert found.problems == () and 12 * (765 + 85) < found.tokens < 12 * (765 + 85 + 30) and not found.counted
    assert any("24 images are priced as if each were one of usual size" in one for one in found.warnings)
    bitmap = {"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AAAA"}}
    large = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + 14_000_000 * "A"}}
    wrong = prepared_of(settings, rows([seen(0, *[low] * 11), seen(1, low, bitmap), seen(2, large)]), **model).problems
    assert wrong[0] == "row 1: it has 11 images, and 10 is the most"
    assert wrong[1] == "row 2: image 2 is none of jpeg, jpg, png, webp"
    assert wrong[2] == "row 3: image 1 has 10.5 MB, and 10 MB is the most"


def test_rows_for_a_grader_may_have_any_key(settings: Settings, rows: Rows) -> None:
    own = {"input": "the problem", "preferred_output": "yes"}
    path = rows([{"messages": [{"role": "user", "content": f"Is {at}?"}], **own} for at in range(12)])
    found = prepared_of(settings, path, method="reinforcement", grader="{}", model="openai:o4-mini-2025-04-16")
    assert found.problems == () and json.loads(found.training.splitlines()[0])["input"] == "the problem"


def test_messages_are_sent_with_the_keys_that_the_service_knows(settings: Settings, rows: Rows) -> None:
    some = [
        {"messages": [{**USER, "name": None, "weight": None, "id": at}, {**ANSWER, "weight": 1}]} for at in range(12)
    ]
    found = prepared_of(settings, rows(some))
    assert json.loads(found.training.splitlines()[0]) == {"messages": [USER, {**ANSWER, "weight": 1}]}
    assert "keys that are not sent, with their rows: messages.id (12)" in found.warnings
    pair = {**PAIR, "input": {"messages": [USER], "note": "x"}}
    (sent,) = rows_of(rows([pair]), "dpo")
    assert sent.row == PAIR and sent.unused == ("input.note",)


def test_calls_get_the_ids_that_the_service_wants(rows: Rows) -> None:
    turns = [("human", "2 + 2?"), ("function_call", '{"name": "add", "arguments": {"a": 2}}'), ("observation", "4"),
             ("gpt", "4")]  # fmt: skip
    path = rows([{"conversations": [{"from": who, "value": text} for who, text in turns]}])
    (sent,) = rows_of(path, "supervised")
    assert wrong_with(sent.row, "supervised") == ""
    call, answer = sent.row["messages"][1]["tool_calls"][0], sent.row["messages"][2]
    assert call["id"] == answer["tool_call_id"] == "call_1" and call["type"] == "function"


def test_a_share_that_holds_out_nothing_is_told(settings: Settings, rows: Rows) -> None:
    found = prepared_of(settings, rows(questions(12)), validation_share=0.03)
    assert "no row is held out for validation: 0.03 of 12 rows is less than one" in found.warnings


def test_a_damaged_table_of_tokens_means_an_estimate(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = settings.home / "cache" / "tiktoken"
    folder.mkdir(parents=True)
    (folder / _name("o200k_base")).write_text("damaged")

    def no_network(url: str, **_: Any) -> None:
        raise ConnectionError(url)

    monkeypatch.setattr("requests.get", no_network)
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    assert not tokens_of("o200k_base", settings).exact and tokens_of("o200k_base", settings).text("abcdefgh") == 2


def test_rows_that_cannot_be_used_are_all_named(settings: Settings, rows: Rows) -> None:
    path = rows([*questions(8), {"messages": [USER]}, {"messages": [{"role": "bot", "content": ""}]}])
    found = prepared_of(settings, path)
    assert [one.split(":")[0] for one in found.problems[:2]] == ["row 9", "row 10"]
    assert found.problems[2] == "8 rows can be used for training, and at least 10 are needed"
    with pytest.raises(InputErrors) as caught:
        found.require_sound()
    assert len(caught.value.errors) == 3 and "Nothing was sent" in caught.value.sentence
    # The local service refuses the same rows, by its own check.
    assert refused_rows(path.read_bytes(), "supervised", "training_file") is not None


@pytest.mark.parametrize("name", ["demo/validation.jsonl", "demo/pairs_test.jsonl", "demo/sums_test.jsonl"])
def test_the_studios_own_rows_become_the_services(settings: Settings, name: str) -> None:
    method = {"v": "supervised", "p": "dpo", "s": "reinforcement"}[name[5]]
    grader = '{"type": "string_check"}' if method == "reinforcement" else None
    found = prepared_of(settings, name, method=method, grader=grader, validation_share=0.1)
    assert found.problems == () and found.validation_rows == round((found.rows + found.validation_rows) * 0.1)
    assert refused_rows(found.training, method, "training_file") is None
    first = json.loads(found.training.splitlines()[0])
    assert (first.get("input") or first)["messages"][-1]["role"] == ("assistant" if method == "supervised" else "user")
    if method == "reinforcement":
        assert first["answer"]


def test_the_same_rows_give_the_same_bytes_and_key(settings: Settings, rows: Rows) -> None:
    path = rows(questions(20))
    first, again = (prepared_of(settings, path, validation_share=0.2) for _ in range(2))
    assert (first.training, first.config.key) == (again.training, again.config.key)
    assert prepared_of(settings, path, validation_share=0.2, seed=1).config.key != first.config.key
    train, held = split(questions(20), 0.2, 42)
    assert len(held) == 4 and not [row for row in held if row in train]


def test_answers_before_the_prompts_end_are_not_learned(settings: Settings, rows: Rows) -> None:
    asked = [USER, ANSWER, {"role": "user", "content": "And now?"}]
    path = rows([{"prompt": asked, "completion": [ANSWER]}])
    (sent,) = rows_of(path, "supervised")
    assert [one.get("weight") for one in sent.row["messages"]] == [None, 0, None, None]


def test_the_home_may_have_a_table_of_its_own(settings: Settings) -> None:
    text = (PRESETS / FILE).read_text()
    own = settings.home / FILE
    own.write_text(text.replace("training: 3.00", "training: 4.50").replace("as_of: 2026-05-07", "as_of: 2026-11-01"))
    found = read_table(settings)
    mini = found.model("ft:gpt-4o-mini-2024-07-18:my-org::abc")
    assert found.path == own and mini is not None and mini.training == 4.5
    assert found.age(datetime.date(2026, 11, 3)).startswith("Prices as of 2026-11-01 (2 days old)")
    own.write_text(text.replace("epochs:", "rounds:"))
    with pytest.raises(InputError, match="the key 'epochs' is missing"):
        read_table(settings)


def test_what_ends_is_told_with_its_day(settings: Settings, rows: Rows) -> None:
    config = OpenAIConfig(data=str(rows(questions())), model="gpt-4.1-nano-2025-04-14")
    early, late = (
        prepare(config, settings, today=datetime.date(2026, month, 1)).warnings for month in (6, 11)
    )  # fmt: skip
    assert "OpenAI will shut gpt-4.1-nano-2025-04-14 down on 2026-10-23" in early
    assert "OpenAI shut gpt-4.1-nano-2025-04-14 down on 2026-10-23" in late
    assert any("from 2027-01-06 nobody can" in one for one in late)
    known = prepared_of(settings, rows(questions()), model="openai:mine")
    assert known.price is None and any("the table does not have mine" in one for one in known.warnings)


@pytest.mark.parametrize(("option", "value", "said"), [
    ("n_epochs", 51, "a number from 1 to 50, or auto"), ("batch_size", 0, "a number from 1 to 256"),
    ("beta", 2.5, "at most 2"), ("grader", "[", "not a JSON object"), ("suffix", "x" * 65, "64"),
    ("learning_rate_multiplier", 0, "above 0"),
])  # fmt: skip
def test_options_have_the_bounds_of_the_api(option: str, value: Any, said: str) -> None:
    with pytest.raises(InputErrors, match=said):
        build(OpenAIConfig, {option: value})

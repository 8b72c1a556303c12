"""LLaMA-Factory's dataset_info.json: which source wins, what columns and tags mean, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.config.data import DataConfig, DataSource
from studio.data.files.hubsets import HubSet
from studio.data.formats.answers import Example
from studio.data.formats.rows import parse_row
from studio.data.prepare.pipeline import prepare_data
from studio.data.sources.datasetinfo import read_entry
from studio.data.sources.locate import absolute, locate
from studio.data.sources.parsing import parse_source
from studio.data.worker.operations import Operations
from studio.errors import InputError
from studio.methods import MethodConfig, RowKind
from studio.settings import Settings
from tests.conftest import call_studio

Write = Callable[..., Path]
Read = Callable[..., list[Example]]
SHAREGPT_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
CHAT = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
TURNS = [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]


@pytest.fixture
def read(write: Write, settings: Settings) -> Read:
    """read(entry, rows, kind): the rows of a set, understood."""

    def run(entry: dict[str, Any], rows: list[Any], kind: RowKind = "answers") -> list[Example]:
        write("rows.jsonl", rows)
        info = write("dataset_info.json", json.dumps({"mine": {"file_name": "rows.jsonl", **entry}}))
        source = DataSource(path=f"{info}:mine")
        return list(parse_source(source, locate(source, settings), "train", kind=kind).examples)

    return run


def turns(example: Example) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in example.messages or []]


def test_alpaca_with_all_defaults(read: Read) -> None:
    rows = [
        {"instruction": "Add.", "input": "2+2", "output": "4"},
        {"instruction": "Say hi.", "input": None, "output": "hi"},
        {"instruction": "Say ho.", "output": "ho"},
    ]
    assert [turns(one) for one in read({}, rows)] == [
        [("user", "Add.\n2+2"), ("assistant", "4")],
        [("user", "Say hi."), ("assistant", "hi")],
        [("user", "Say ho."), ("assistant", "ho")],
    ]


def test_alpaca_columns(read: Read) -> None:
    columns = {"prompt": "q", "response": "a", "system": "s", "history": "h"}
    (one,) = read({"columns": columns}, [{"q": "And 3+3?", "a": "6", "s": "Be short.", "h": [["2+2?", "4"]]}])
    assert turns(one) == [
        ("system", "Be short."), ("user", "2+2?"), ("assistant", "4"), ("user", "And 3+3?"), ("assistant", "6"),
    ]  # fmt: skip


def test_what_columns_leave_out_has_no_default(read: Read) -> None:
    rows = [{"q": "2+2?", "input": "not read", "output": "not read"}]
    (text,) = read({"columns": {"prompt": "q"}}, rows)
    assert (text.format, text.text) == ("text", "2+2?")
    (asked,) = read({"columns": {"prompt": "q"}}, rows, "prompts")
    assert (asked.format, turns(asked)) == ("prompts", [("user", "2+2?")])
    with pytest.raises(InputError, match=r"'messages' is missing; once columns is set.*Add 'messages' to columns"):
        read({"formatting": "sharegpt", "columns": {"tools": "t"}}, rows)


def test_sharegpt_and_its_system_text(read: Read) -> None:
    columns = {"messages": "conversations", "system": "sys"}
    entry = {"formatting": "sharegpt", "columns": columns}
    told = [{"from": "system", "value": "From the turns."}, *TURNS]
    first, second = read(entry, [{"conversations": TURNS, "sys": "Beside."}, {"conversations": told, "sys": "Beside."}])
    assert turns(first) == [("system", "Beside."), ("user", "2+2?"), ("assistant", "4")]
    assert turns(second)[0] == ("system", "From the turns.")
    (plain,) = read({"formatting": "sharegpt"}, [{"conversations": TURNS}])
    assert turns(plain) == [("user", "2+2?"), ("assistant", "4")]


def test_what_tags_leave_out_has_no_default(read: Read) -> None:
    entry = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": SHAREGPT_TAGS}
    assert turns(read(entry, [{"messages": CHAT}])[0]) == [("user", "2+2?"), ("assistant", "4")]
    told = [{"role": "system", "content": "Be short."}, *CHAT]
    with pytest.raises(InputError, match=r"row 1, field 'messages\[0\].role': no tag is set for the role 'system'"):
        read(entry, [{"messages": told}])
    named = {**entry, "tags": {**SHAREGPT_TAGS, "system_tag": "system"}}
    assert turns(read(named, [{"messages": told}])[0])[0] == ("system", "Be short.")
    with pytest.raises(InputError, match="'content_tag' is missing; once tags is set"):
        read({"formatting": "openai", "columns": {"messages": "messages"}, "tags": {"role_tag": "role"}}, [])


def test_openai_keeps_the_sharegpt_tags(read: Read) -> None:
    entry = {"formatting": "openai", "columns": {"messages": "messages"}}
    with pytest.raises(InputError, match=r"field 'messages\[0\]': key 'from' is missing; keys are: role, content"):
        read(entry, [{"messages": CHAT}])
    assert turns(read({**entry, "tags": SHAREGPT_TAGS}, [{"messages": CHAT}])[0])[1] == ("assistant", "4")


@pytest.mark.parametrize(
    ("entry", "row"),
    [
        ({"columns": {"prompt": "instruction", "query": "input", "chosen": "good", "rejected": "bad"}},
         {"instruction": "2+2?", "input": "", "good": "4", "bad": "5"}),
        ({"formatting": "sharegpt", "columns": {"messages": "conversations", "chosen": "good", "rejected": "bad"}},
         {"conversations": TURNS[:1], "good": TURNS[1], "bad": {"from": "gpt", "value": "5"}}),
    ],
)  # fmt: skip
def test_ranking(read: Read, entry: dict[str, Any], row: dict[str, Any]) -> None:
    (pair,) = read({"ranking": True, **entry}, [row], "pairs")
    assert turns(pair) == [("user", "2+2?"), ("assistant", "4")]
    assert isinstance(pair.rejected, list) and pair.rejected[-1]["content"] == "5"
    with pytest.raises(InputError, match="preference pairs"):
        read({"ranking": True, **entry}, [row])


def test_kto_tag_is_a_boolean(read: Read) -> None:
    columns = {"messages": "messages", "kto_tag": "good"}
    entry = {"formatting": "sharegpt", "columns": columns, "tags": SHAREGPT_TAGS}
    good, bad = read(entry, [{"messages": CHAT, "good": True}, {"messages": CHAT, "good": False}], "rated")
    assert (good.label, bad.label) == (True, False)
    with pytest.raises(InputError, match="a label must be true or false, not 'fine'"):
        read(entry, [{"messages": CHAT, "good": "fine"}], "rated")


def test_tools_take_openai_shape(write: Write, settings: Settings) -> None:
    call = {"name": "add", "arguments": {"a": 2, "b": 2}}
    row = {
        "conversations": [TURNS[0], {"from": "function_call", "value": json.dumps(call)},
                          {"from": "observation", "value": "4"}, TURNS[1]],
        "tools": json.dumps([{"name": "add", "parameters": {}}]),
    }  # fmt: skip
    write("rows.jsonl", [row])
    entry = {"file_name": "rows.jsonl", "formatting": "sharegpt",
             "columns": {"messages": "conversations", "tools": "tools"}}  # fmt: skip
    info = write("dataset_info.json", json.dumps({"mine": entry}))
    located = locate(DataSource(path=f"{info}:mine"), settings)
    made = located.studio_row(row, 1, "answers")
    assert made["tools"] == [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    assert made["messages"][1] == {
        "role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}],
    }  # fmt: skip
    assert [message["role"] for message in made["messages"]] == ["user", "assistant", "tool", "assistant"]
    row["conversations"][1]["value"] = "add(2, 2)"
    with pytest.raises(InputError, match=r"row 1, field 'conversations\[1\]': the text is not valid JSON"):
        located.studio_row(row, 1, "answers")


def test_the_source_order(write: Write) -> None:
    def source(**entry: Any) -> Any:
        return read_entry(write("dataset_info.json", json.dumps({"mine": entry})), "mine").source

    everything = {
        "hf_hub_url": "org/set", "ms_hub_url": "m/s", "script_url": "dir", "cloud_file_name": "s3://x",
        "file_name": "rows.jsonl", "subset": "small", "split": "test", "folder": "data",
    }  # fmt: skip
    assert source(**everything) == HubSet("org/set", "small", "test", folder="data")
    for key in ("hf_hub_url", "ms_hub_url", "script_url", "cloud_file_name"):
        del everything[key]
        following = next(iter(everything))
        if following == "file_name":
            break
        with pytest.raises(InputError, match=f"{following} is not supported"):
            source(**everything)
    assert source(file_name="sub/rows.jsonl").parts[-2:] == ("sub", "rows.jsonl")
    with pytest.raises(InputError, match="names no source"):
        source(formatting="alpaca")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"columns": {"images": "pictures"}}, "images are not supported"),
        ({"columns": {"promt": "q"}}, "there is no key 'promt'. Did you mean 'prompt'?"),
        ({"tags": {"user": "u"}}, "there is no key 'user'"),
        ({"fromatting": "alpaca"}, "Did you mean 'formatting'?"),
        ({"formatting": "chatml"}, "formatting 'chatml' is not known. Use one of: alpaca, sharegpt, openai"),
        ({"ranking": "yes"}, "ranking must be true or false, not 'yes'"),
        ({"ranking": True}, "'chosen' is missing"),
        ({"num_samples": -1}, "num_samples must be a number of rows, not -1"),
        ({"columns": {"response": "a"}}, "'prompt' is missing"),
        ({"split": "test"}, "a file has no split 'test'"),
        ({"subset": "x"}, "'subset' is for Hub datasets, not for file_name"),
        ({"hf_hub_url": "../x"}, "hf_hub_url '../x' is not a Hub id"),
        ({"file_name": 5}, "file_name must be a string, not 5"),
    ],
)
def test_what_is_not_read_is_refused_by_name(entry: dict[str, Any], words: str, write: Write) -> None:
    info = write("dataset_info.json", json.dumps({"mine": {"file_name": "rows.jsonl", **entry}}))
    with pytest.raises(InputError) as caught:
        read_entry(info, "mine")
    assert words in caught.value.sentence and "dataset_info.json:mine" in caught.value.where


def test_names_are_listed(write: Write, settings: Settings) -> None:
    info = write("dataset_info.json", json.dumps({"alpaca_en": {"file_name": "a"}, "identity": {"file_name": "b"}}))
    with pytest.raises(InputError, match=r"its datasets are: alpaca_en, identity\. Choose one: .*:alpaca_en"):
        locate(DataSource(path=str(info)), settings)
    with pytest.raises(InputError, match=r"there is no dataset 'alpaca'\. Did you mean 'alpaca_en'\?"):
        locate(DataSource(path=f"{info}:alpaca"), settings)
    for broken, what in (("[]", "this is not a dataset_info.json"), ("{", "invalid JSON")):
        write("dataset_info.json", broken)
        with pytest.raises(InputError, match=what):
            locate(DataSource(path=f"{info}:x"), settings)


def test_files_outside_of_the_roots_are_refused_to_the_page(write: Write, settings: Settings, tmp_path: Path) -> None:
    write("secret.jsonl", [{"text": "secret"}])
    settings.uploads.mkdir(parents=True)
    (settings.uploads / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (settings.uploads / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    entries = {
        "in": "rows.jsonl", "up": "../../secret.jsonl", "absolute": str(tmp_path / "secret.jsonl"),
        "link": "link.jsonl",
    }  # fmt: skip
    info = settings.uploads / "dataset_info.json"
    info.write_text(json.dumps({name: {"file_name": file} for name, file in entries.items()}))
    for name in entries:
        source = DataSource(path=f"{info}:{name}")
        if name == "in":
            assert len(list(locate(source, settings, confined=True).rows(0))) == 1
            continue
        with pytest.raises(InputError, match="the page may not read files there"):
            locate(source, settings, confined=True)
        assert len(list(locate(source, settings).rows(0))) == 1
    outside = write("dataset_info.json", info.read_text())
    with pytest.raises(InputError, match="the page may not read files there"):
        locate(DataSource(path=f"{outside}:in"), settings, confined=True)


def test_num_samples_in_a_run(write: Write, settings: Settings, tokenizer: Any) -> None:
    write("rows.jsonl", [{"instruction": f"Question {i}", "output": f"answer {i}"} for i in range(20)])
    info = write("dataset_info.json", json.dumps({"few": {"file_name": "rows.jsonl", "num_samples": 5}}))
    config = DataConfig(train=[DataSource(path=f"{info}:few")], validation=0)
    done = prepare_data(config, MethodConfig(), tokenizer, settings)
    assert (len(done.train), done.report.sources[0].rows, done.report.sources[0].chosen) == (5, 20, 5)
    own = DataConfig(train=[DataSource(path=f"{info}:few", rows=7)], validation=0)
    assert len(prepare_data(own, MethodConfig(), tokenizer, settings).train) == 7
    assert absolute(f"{info}:few", settings) == f"{info}:few"


def test_preview_shows_the_row_as_stored_and_follows_changes(
    write: Write, settings: Settings, model_path: Path
) -> None:
    write("rows.jsonl", [{"q": "2+2?", "a": "4", "b": "four"}])
    info = write("dataset_info.json", "")
    operations = Operations(settings)

    def preview(response: str) -> dict[str, Any]:
        columns = {"prompt": "q", "response": response}
        info.write_text(json.dumps({"mine": {"file_name": "rows.jsonl", "columns": columns}}))
        data = {"train": [{"path": f"{info}:mine"}]}
        return operations.run("preview", {"data": data, "model": str(model_path)}, lambda *phase: None)

    seen = preview("a")
    assert seen["raw"] == {"q": "2+2?", "a": "4", "b": "four"}
    assert (seen["format"], seen["messages"][-1]["content"]) == ("instruction", "4")
    assert preview("b")["messages"][-1]["content"] == "four"
    problem = preview("c")["problem"]
    assert problem["what"] == "key 'c' is missing; keys are: q, a, b" and problem["where"].startswith(
        "rows.jsonl, row 1"
    )


def test_inspect_names_an_entry(write: Write, session_home: Path, model_path: Path) -> None:
    write("rows.jsonl", [{"q": "2+2?", "a": "4"}])
    columns = {"prompt": "q", "response": "a"}
    info = write("dataset_info.json", json.dumps({"mine": {"file_name": "rows.jsonl", "columns": columns}}))
    done = call_studio("data", "inspect", f"{info}:mine", "--json", home=session_home)
    assert (done.json["rows"], done.json["format"]) == (1, "instruction")
    bare = call_studio("data", "inspect", str(info), home=session_home)
    assert bare.code == 2 and "its datasets are: mine" in bare.stderr


def test_openai_fine_tuning_files_need_nothing(write: Write, settings: Settings) -> None:
    """The chat format of OpenAI's fine-tuning, as its documentation shows it, is `messages` as it is."""
    rows = [
        {"messages": [{"role": "system", "content": "Marv is factual and sarcastic."}, *CHAT]},
        {"messages": [*CHAT, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "2+2?"}]}, CHAT[1]]},
    ]
    source = DataSource(path=str(write("openai.jsonl", rows)))
    parsed = parse_source(source, locate(source, settings), "train")
    assert parsed.source.format == "messages"
    assert [len(one.messages or []) for one in parsed.examples] == [3, 4, 2]
    assert parse_row(rows[2], 1, "x", "messages").messages == CHAT


WIKI = "".join(
    f"Article {n}. It has one line, with {'words ' * (n % 7)}in it.\n" + ("\n" if n % 5 == 0 else "") for n in range(40)
)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_plain_text_has_a_document_in_each_line_as_there(
    write: Write, settings: Settings, tokenizer: Any, model_path: Path, ends: str
) -> None:
    from datasets import load_dataset

    file = write("wiki.txt", WIKI.replace("\n", ends).encode())
    info = write("dataset_info.json", json.dumps({"wiki": {"file_name": "wiki.txt", "columns": {"prompt": "text"}}}))
    theirs = load_dataset("text", data_files=str(file), split="train", cache_dir=str(settings.home / "hf"))
    wanted = [line for line in theirs["text"] if line.strip()]
    source = DataSource(path=f"{info}:wiki")
    config = DataConfig(train=[source], validation=0)
    done = prepare_data(config, MethodConfig(name="pretrain"), tokenizer, settings)
    assert [tokenizer.decode(unit.input_ids[:-1]) for unit in done.train] == wanted
    assert any("each line is a separate document" in one.text for one in done.report.findings)
    worker = Operations(settings)
    args = {"method": {"name": "pretrain"}, "model": str(model_path)}
    seen = worker.run("preview", {**args, "row": 7, "data": config.model_dump()}, lambda *told: None)
    assert (seen["raw"], seen["rows"]) == ({"text": wanted[6]}, len(wanted))
    alone = worker.run("preview", {**args, "data": {"train": [{"path": str(file)}]}}, lambda *told: None)
    assert alone["rows"] == 9, "named by itself, its documents end at a blank line"

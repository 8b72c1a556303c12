"""Columns: names and Jinja lines, the texts of forms, the nearest mapping, and each refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from studio.config.data import COLUMN_ROLES, DataConfig, DataSource
from studio.config.load import build, dump_run
from studio.config.run import RunConfig
from studio.data.formats.column_names import suggest_columns
from studio.data.formats.columns import Columns
from studio.data.formats.rows import detect_format, parse_row
from studio.data.prepare.pipeline import prepare_data
from studio.errors import InputError, InputErrors
from studio.methods import MethodConfig, RowKind
from studio.settings import Settings

ROW = {"question": "q", "reply": "a", "id": 7}
MAPPED: list[tuple[dict[str, str], dict[str, Any], dict[str, Any]]] = [
    ({"prompt": "question", "completion": "reply"}, ROW, {"prompt": "q", "completion": "a", "id": 7}),
    # A column with a role's name that is not mapped keeps its meaning.
    ({"prompt": "question"}, {"question": "q", "completion": "a"}, {"prompt": "q", "completion": "a"}),
    # Two roles may come from one column, and two columns may trade names.
    ({"prompt": "x", "answer": "x"}, {"x": "q"}, {"prompt": "q", "answer": "q"}),
    ({"input": "output", "output": "input"}, {"input": "1", "output": "2"}, {"input": "2", "output": "1"}),
    ({"text": "{{ title }}\n{{ body | upper }}\n"}, {"title": "T", "body": "b"}, {"text": "T\nB\n"}),
    ({"text": '{{ row["my column"] }}'}, {"my column": "x"}, {"text": "x", "my column": "x"}),
    ({"text": "{% for word in words %}{{ word }};{% endfor %}"}, {"words": ["a", "b"]}, {"text": "a;b;"}),
    ({"label": "ok"}, {"ok": "True", "prompt": "q"}, {"label": True, "prompt": "q"}),
    ({"label": "ok"}, {"ok": "0"}, {"label": False}),
    ({"label": "{{ stars > 3 }}"}, {"stars": 2}, {"label": False}),
    ({}, ROW, ROW),
]


@pytest.mark.parametrize(("mapping", "row", "meaning"), MAPPED)
def test_mapped(mapping: dict[str, str], row: dict[str, Any], meaning: dict[str, Any]) -> None:
    assert Columns(mapping).apply(row, 1, "x.csv") == meaning


REFUSED: list[tuple[dict[str, str], dict[str, Any], list[str]]] = [
    ({"prompt": "Question"}, ROW, ["there is no column 'Question' for prompt; columns are: question, reply, id",
                                   "Did you mean 'question'?"]),
    ({"prompt": "zz"}, ROW, ["there is no column 'zz'", "Fix 'prompt' in columns"]),
    ({"text": "{{ titel }}"}, {"title": "T"}, ["field 'text'", "'titel' is undefined", "columns are: title"]),
    ({"text": "{{ 1 / 0 }}"}, ROW, ["field 'text'", "division by zero"]),
    # The sandbox holds: no way from a value to Python's own objects, no endless loop of a range.
    ({"text": "{{ ''.__class__.__mro__ }}"}, ROW, ["field 'text'", "unsafe"]),
    ({"text": "{{ row.update(x=1) }}"}, ROW, ["field 'text'", "unsafe"]),
    ({"text": "{% for i in range(10000000) %}x{% endfor %}"}, ROW, ["field 'text'", "Range too big"]),
    ({"text": "{{ title * 300000000 }}"}, {"title": "abcde"}, ["field 'text'", "more memory"]),
    ({"text": "{{ 300000000 * [1] }}"}, ROW, ["field 'text'", "more memory"]),
    ({"text": "{{ 9 ** 999999999 }}"}, ROW, ["field 'text'", "two seconds"]),
    ({"text": "{% for i in range(999) %}{{ 'x' * 99999 }}{% endfor %}"}, ROW, ["more than 16,777,216 characters"]),
]  # fmt: skip


@pytest.mark.parametrize(("mapping", "row", "said"), REFUSED)
def test_refused(mapping: dict[str, str], row: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        Columns(mapping).apply(row, 3, "dir/x.csv")
    for part in ["x.csv, row 3", *said]:
        assert part in caught.value.sentence
    assert caught.value.fix


def test_a_line_that_is_not_jinja() -> None:
    with pytest.raises(InputError, match=r"data\.train\.columns\.text: the template for text is not valid Jinja"):
        Columns({"text": "{{ title"})


# ---- the option


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ("prompt=question, completion=answer", {"prompt": "question", "completion": "answer"}),
        ("text={{ title }}, by {{ author }}, system=ctx", {"text": "{{ title }}, by {{ author }}", "system": "ctx"}),
        ("label = a=b", {"label": "a=b"}),
        ("  ", None),
    ],
)
def test_the_text_of_a_form(text: str, mapping: dict[str, str] | None) -> None:
    assert DataSource(path="x", columns=text).columns == mapping
    assert DataSource(path="x", columns=mapping).columns == mapping


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("question", "names are messages, system"),
        ("asked=question", "name=value"),
        ("prompt=a, prompt=b", "each name may be given once"),
        ("prompt=", "each name needs a value"),
        ({"asked": "question"}, "'asked' is not one of messages"),
        ({"prompt": 5}, "each name needs a value"),
    ],
)
def test_wrong_mappings(given: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataSource(path="x", columns=given)


def test_a_mapping_survives_yaml() -> None:
    source = {"path": "x", "columns": "text={{ title }}: {{ body }}", "tags": "role=who, content=said, user=me"}
    config = build(RunConfig, {"data": {"train": [source]}})
    from ruamel.yaml import YAML

    again = build(RunConfig, YAML(typ="safe").load(dump_run(config)))
    assert again == config
    assert again.data.train[0].tags == {"role": "who", "content": "said", "user": "me"}


# ---- the nearest mapping

SUGGESTED: list[tuple[list[str], RowKind, dict[str, str]]] = [
    (["question", "answer"], "answers", {"instruction": "question", "output": "answer"}),
    (["instruction", "response"], "answers", {"instruction": "instruction", "output": "response"}),
    (["Question", "reponse", "id"], "answers", {"instruction": "Question", "output": "reponse"}),
    (["question", "context", "answer"], "answers", {"instruction": "question", "input": "context", "output": "answer"}),
    (["dialog", "id"], "answers", {"messages": "dialog"}),
    (["body"], "answers", {"text": "body"}),
    (["question", "better", "worse"], "pairs", {"instruction": "question", "chosen": "better", "rejected": "worse"}),
    (["query", "answer", "rating"], "rated", {"instruction": "query", "output": "answer", "label": "rating"}),
    (["problem", "solution"], "prompts", {"instruction": "problem", "output": "solution"}),
    (["problem"], "prompts", {"prompt": "problem"}),
    (["x", "y"], "answers", {}),
    (["question"], "answers", {}),
    (["question", "answer"], "pairs", {}),
    ([], "rated", {}),
]


@pytest.mark.parametrize(("keys", "kind", "mapping"), SUGGESTED)
def test_suggestions(keys: list[str], kind: RowKind, mapping: dict[str, str]) -> None:
    assert suggest_columns(keys, kind) == mapping
    if not mapping:
        return
    # What is suggested works, once it is taken.
    row: dict[str, Any] = {key: True if key == "rating" else f"some {key}" for key in keys}
    if "dialog" in row:
        row["dialog"] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    mapped = Columns(mapping).apply(row, 1, "x")
    assert parse_row(mapped, 1, "x", detect_format([(1, mapped)], "x", kind), kind).row == 1
    # And the refusal of the file as it is names it.
    if not set(mapping) <= set(keys):
        with pytest.raises(InputError) as caught:
            parse_row(row, 1, "x", detect_format([(1, row)], "x", kind), kind)
        assert all(f"{role}={column}" in caught.value.fix for role, column in mapping.items())


@given(
    st.lists(st.text(max_size=12), max_size=8, unique=True), st.sampled_from(["answers", "pairs", "rated", "prompts"])
)
def test_a_suggestion_names_columns_that_are_there(keys: list[str], kind: RowKind) -> None:
    mapping = suggest_columns(keys, kind)
    assert set(mapping) <= set(COLUMN_ROLES)
    assert set(mapping.values()) <= set(keys)
    assert len(set(mapping.values())) == len(mapping)


# ---- in a run


def test_a_mapped_file_is_prepared(tokenizer: Any, settings: Settings, write: Callable[..., Path]) -> None:
    path = write("x.jsonl", [{"q": f"{i}?", "a": f"{i}!", "ctx": "Be brief."} for i in range(3)])
    source = DataSource(path=str(path), columns="instruction={{ q }}, output=a, system=ctx")
    done = prepare_data(DataConfig(train=[source], validation=0), MethodConfig(), tokenizer, settings)
    assert done.report.sources[0].format == "instruction"
    assert done.report.sources[0].reason == "the rows have the keys instruction and output"
    text = tokenizer.decode(done.train[1].input_ids)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\n1!<|im_end|>\n"
    )


def test_several_rows_without_a_column_are_named_at_once(
    tokenizer: Any, settings: Settings, write: Callable[..., Path]
) -> None:
    path = write("x.jsonl", [{"q": "1", "a": "1"}, {"q": "2"}, {"a": "3"}])
    source = DataSource(path=str(path), columns="prompt=q, completion=a")
    with pytest.raises(InputErrors) as caught:
        prepare_data(DataConfig(train=[source]), MethodConfig(), tokenizer, settings)
    assert [error.where for error in caught.value.errors] == ["x.jsonl, row 2", "x.jsonl, row 3"]


def test_a_file_for_validation_is_read_with_the_columns_of_training(
    tokenizer: Any, settings: Settings, write: Callable[..., Path]
) -> None:
    train = write("train.csv", "frage,antwort\nEins?,1\nZwei?,2\n")
    held = write("held.csv", "frage,antwort\nDrei?,3\n")
    source = {"path": str(train), "columns": "prompt=frage, completion=antwort"}
    done = prepare_data(DataConfig(train=[source], validation=str(held)), MethodConfig(), tokenizer, settings)
    text = tokenizer.decode(done.validation[0].input_ids)
    assert text.endswith("<|im_start|>user\nDrei?<|im_end|>\n<|im_start|>assistant\n3<|im_end|>\n")
    # A set that says itself what it is keeps its own.
    mixed = prepare_data(
        DataConfig(train=[source], validation="demo/validation.jsonl"), MethodConfig(), tokenizer, settings
    )
    assert len(mixed.validation) == 40

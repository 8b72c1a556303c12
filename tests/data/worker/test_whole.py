"""The difference of a pair's answers, rows of the file for validation, and what the page may not read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.data.worker.whole import WholeOperations
from studio.errors import InputError
from studio.settings import Settings
from tests.data.rows import chat

Write = Callable[..., Path]


def run(settings: Settings, op: str, **args: Any) -> Any:
    return WholeOperations(settings).run(op, args, lambda *told: None)


def marked(tokens: list[dict[str, Any]], common: list[bool]) -> str:
    """The text that the other answer has not."""
    assert len(tokens) == len(common)
    return "".join(token["text"] for token, same in zip(tokens, common, strict=True) if not same)


def test_the_difference_of_a_pair(settings: Settings, write: Write, model_path: Path) -> None:
    row = {"prompt": chat("Capital of France?", "")["messages"][:1], "chosen": [], "rejected": []}
    row |= {"chosen": [{"role": "assistant", "content": "The capital of France is Paris, on the Seine."}]}
    row |= {"rejected": [{"role": "assistant", "content": "The capital of France is Lyon, on the Rhone."}]}
    data = {"train": [{"path": str(write("x.jsonl", [row]))}]}
    shown = run(settings, "diff", row=1, data=data, method={"name": "dpo"}, model=str(model_path))
    assert shown["problem"] is None
    assert marked(shown["tokens"], shown["common"]["tokens"]).split() == ["Paris", "Seine"]
    assert marked(shown["rejected"], shown["common"]["rejected"]).split() == ["Lyon", "Rhone"]
    same = [token["id"] for token, common in zip(shown["tokens"], shown["common"]["tokens"], strict=True) if common]
    assert same == [
        token["id"] for token, common in zip(shown["rejected"], shown["common"]["rejected"], strict=True) if common
    ]


def test_one_answer_has_no_difference(settings: Settings, write: Write, model_path: Path) -> None:
    data = {"train": [{"path": str(write("x.jsonl", [chat("a", "b")]))}]}
    shown = run(settings, "diff", data=data, model=str(model_path))
    assert shown["tokens"]
    assert shown["common"] == {"tokens": [], "rejected": []}


def test_a_row_of_the_file_for_validation_is_shown(settings: Settings, write: Write, model_path: Path) -> None:
    path, held = write("x.jsonl", [chat("a", "b")]), write("held.jsonl", [chat("c", "d")])
    data = {"train": [{"path": str(path)}], "validation": str(held)}
    assert run(settings, "preview", source=1, data=data, model=str(model_path))["raw"] == chat("c", "d")
    with pytest.raises(InputError, match="there is no source 2"):
        run(settings, "preview", source=2, data=data, model=str(model_path))


@pytest.mark.parametrize("op", ["profile", "duplicates", "batch", "keep", "pair", "diff"])
def test_the_page_may_not_read_elsewhere(settings: Settings, write: Write, model_path: Path, op: str) -> None:
    outside = str(write("x.jsonl", [chat("a", "b")]))
    more: dict[str, Any] = {"keep": {"name": "x"}, "pair": {"first": {"at": 1}, "second": {"at": 1}}}.get(op, {})
    for data in ({"train": [{"path": outside}]}, {"train": [{"path": "demo/train.jsonl"}], "validation": outside}):
        if op == "diff":
            more = {"source": len(data["train"]) - (data["train"][0]["path"] == outside)}
        with pytest.raises(InputError, match="the page may not read files there"):
            run(settings, op, data=data, confined=True, **more)
    assert not (settings.home / "data").exists()

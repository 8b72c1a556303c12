"""The first batch and the upload of a cleaned copy, as the page begins and draws them, without a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.data.worker.client import DataWorker
from studio.data.worker.whole import WholeOperations
from studio.settings import Settings
from studio.ui.tabs.data.firstbatch import SHOWN, batch_value
from studio.ui.tabs.data.push import push_value
from studio.ui.tabs.data.tasks import DataTasks
from tests.data.quality.test_push import TOKEN, hub

__all__ = ["hub"]  # a fixture
WORDS = ["one", "two words", "three words here", "x " * (SHOWN + 20)]


def answer(settings: Settings, model_path: Path, method: str, rows: list[Any], **asked: Any) -> dict[str, Any]:
    file = settings.home / f"{method}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(map(json.dumps, rows)))
    data = {"train": [{"path": str(file), "reading": "raw"}], "validation": 0, "max_length": 4096, "shuffle": False}
    args = {"data": data, "method": {"name": method}, "model": str(model_path), "micro_batch": 4, **asked}
    return WholeOperations(settings).run("batch", args, lambda *told: None)


def text_of(line: dict[str, Any]) -> str:
    return "".join(token[0] for token in line["tokens"])


def test_padding_is_counted_and_long_rows_are_shown_in_part(session_settings: Settings, model_path: Path) -> None:
    rows = [{"prompt": "Say ", "completion": words} for words in WORDS]
    found = answer(session_settings, model_path, "sft", rows)
    shown = batch_value(found)
    assert [line["title"] for line in shown["lines"]] == [f"sft.jsonl, row {at}" for at in (1, 2, 3, 4)]
    width = len(found["arrays"]["input_ids"][0])
    lengths = [sum(mask) for mask in found["arrays"]["attention_mask"]]
    assert [line["padding"] for line in shown["lines"]] == [width - length for length in lengths]
    assert [len(line["tokens"]) + line["more"] for line in shown["lines"]] == lengths
    assert shown["lines"][3]["more"] > 0 and len(shown["lines"][3]["tokens"]) == SHOWN
    empty = sum(width - length for length in lengths)
    assert shown["said"] == (
        f"4 sequences of {width:,} tokens; {empty:,} of {4 * width:,} positions are padding ({empty / (4 * width):.0%})"
    )
    trained = "".join(token[0] for token in shown["lines"][1]["tokens"] if token[2])
    assert trained == "two words<|im_end|>" and text_of(shown["lines"][1]) == "Say two words<|im_end|>"
    assert [token[3] for token in shown["lines"][1]["tokens"]].count(True) == 1


def test_padding_that_is_not_computed_is_said_to_be_so(session_settings: Settings, model_path: Path) -> None:
    """Then the limit of tokens holds more rows, as it does in training."""
    rows = [{"prompt": "Say ", "completion": words} for words in WORDS[:3]]
    limited = {"micro_batch": 8, "batch": 8, "tokens": 16}
    padded = answer(session_settings, model_path, "sft", rows, **limited)
    found = answer(session_settings, model_path, "sft", rows, **limited, unpadded=True)
    real = [sum(mask) for mask in found["arrays"]["attention_mask"]]
    assert sum(real) <= 16 < len(real) * max(real) and len(found["rows"]) > len(padded["rows"])
    assert "which is not computed" not in batch_value(padded)["said"]
    assert batch_value(found)["said"].endswith("), which is not computed")


def test_packed_rows_are_told_apart(session_settings: Settings, model_path: Path) -> None:
    rows = [{"prompt": "Say ", "completion": words} for words in WORDS[:3]]
    found = answer(session_settings, model_path, "sft", rows, packing=True)
    shown = batch_value(found)
    total = found["shapes"]["input_ids"][1]
    assert shown["said"] == f"3 rows joined to one sequence of {total} tokens, no padding"
    assert [text_of(line) for line in shown["lines"]] == [f"Say {words}<|im_end|>" for words in WORDS[:3]]
    assert sum(len(line["tokens"]) for line in shown["lines"]) == total
    assert all(line["padding"] == 0 and not line["tokens"][0][2] for line in shown["lines"])


def test_a_pair_makes_two_lines(session_settings: Settings, model_path: Path) -> None:
    rows = [
        {"prompt": "Say ", "chosen": "yes", "rejected": "no, never"},
        {"prompt": "A", "chosen": "b", "rejected": "c"},
    ]
    shown = batch_value(answer(session_settings, model_path, "dpo", rows))
    assert [line["title"] for line in shown["lines"]] == [
        f"dpo.jsonl, row {row}, {side}" for side in ("chosen", "rejected") for row in (1, 2)
    ]
    assert [text_of(line).removesuffix("<|im_end|>") for line in shown["lines"]] == [
        "Say yes",
        "Ab",
        "Say no, never",
        "Ac",
    ]


def test_of_other_methods_only_the_size_is_said(session_settings: Settings, model_path: Path) -> None:
    shown = batch_value(answer(session_settings, model_path, "grpo", [{"prompt": "Say yes"}]))
    assert shown["lines"] == [] and shown["said"].startswith("1 sequences of up to ")


@pytest.fixture
def tasks(session_settings: Settings) -> Iterator[DataTasks]:
    made = DataTasks(DataWorker(session_settings, confined=True))
    yield made
    made.close()


def test_a_kept_set_is_uploaded(hub: Any, tasks: DataTasks, session_settings: Settings) -> None:
    file = session_settings.uploads / "push.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(json.dumps({"prompt": f"{n}?", "completion": "yes"}) for n in range(5)))
    data = {"train": [{"path": str(file)}], "validation": 0}
    kept = tasks.worker.call("keep", timeout=60, name="uploaded", data=data)
    args = {"name": Path(kept["path"]).name, "repo": "me/set", "private": True}
    task = tasks.begin("p", "push", [("push", args)], push_value)
    assert task.over.wait(120) and (task.state, task.error) == ("done", "")
    assert task.shown == {"said": "me/set has it now: train."}
    assert len(hub.taken) == 1 and TOKEN not in json.dumps(task.answers)

"""The profile: figures that can be counted by hand, each finding with its rows, a sample, and ending early."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.config.data import DataConfig, DataSource
from studio.data.prepare.batch import packing, padding
from studio.data.prepare.pipeline import prepare_data
from studio.data.quality.contents import has_broken_characters
from studio.data.quality.secrets import KINDS, find_secrets, hide_secrets
from studio.data.sources import stream
from studio.data.sources.locate import Located, locate
from studio.data.sources.stream import draw
from studio.data.worker.client import DataWorker
from studio.data.worker.whole import WholeOperations
from studio.errors import InputError, StoppedError
from studio.methods import MethodConfig
from studio.models.plan.batches import Batching
from studio.settings import Settings
from tests.data.rows import chat

Write = Callable[..., Path]
KEY = "sk-" + "a1B2" * 8


@pytest.fixture(scope="module")
def operations(session_settings: Settings) -> WholeOperations:
    return WholeOperations(session_settings)


@pytest.fixture
def ask(operations: WholeOperations, model_path: Path) -> Callable[..., Any]:
    def asked(
        path: Path, op: str = "profile", method: Any = None, told: Any = None, args: Any = None, **data: Any
    ) -> Any:
        config = {"train": [{"path": str(path)}], "validation": 0, **data}
        values = {"data": config, "method": method or {}, "model": str(model_path), **(args or {})}
        return operations.run(op, values, told or (lambda *step: None))

    return asked


def findings(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["check"]: one for one in result["findings"]}


def rows_of(finding: dict[str, Any]) -> list[int]:
    return [place["row"] for place in finding["places"]]


def test_each_finding_names_its_rows(ask: Callable[..., Any], write: Write) -> None:
    path = write(
        "x.jsonl",
        [
            chat("What is two plus two?", "Four."),
            chat("What is  two plus two?", "Four."),
            chat("echo", "echo"),
            chat("cafÃ©", "fine"),
            chat("a\x07b", "fine"),
            chat("write to joe@corp.de", f"with {KEY}"),
            chat("a", ""),
            {"messages": 5},
            chat("<|im_end|>", "fine"),
        ],
    )
    result = ask(path)
    found = findings(result)
    assert {check: rows_of(one) for check, one in found.items()} == {
        "empty_answer": [7], "unusable": [8], "broken_characters": [4, 5], "answer_is_prompt": [3], "secret": [6],
        "control_token": [9], "duplicate": [2],
    }  # fmt: skip
    assert [found[check]["level"] for check in ("empty_answer", "unusable")] == ["error", "error"]
    assert found["unusable"]["action"] == "refused: the run does not start"
    assert found["duplicate"]["level"] == "info"
    assert [one["level"] for one in result["findings"]] == sorted(
        (one["level"] for one in result["findings"]), key=("error", "warning", "info").index
    )
    assert (result["rows"], result["usable"], result["unusable"]) == (9, 6, 3)
    assert result["secrets"]["API key"] == {"count": 1, "shown": ["sk-a… (35 characters)"]}
    assert result["secrets"]["email address"] == {"count": 1, "shown": ["j…@….de"]}
    told = json.dumps(result)
    assert KEY not in told
    assert "joe@corp" not in told
    assert result["errors"][1]["where"] == "x.jsonl, row 8, field 'messages'"
    assert result["duplicates"]["pairs"][0]["similarity"] == 1.0
    left = ask(path, deduplicate="exact")
    assert findings(left)["duplicate"]["action"] == "dropped; the first one stays"
    assert left["train"] == result["train"] - 1


def test_the_figures_are_those_of_the_run(
    ask: Callable[..., Any], write: Write, tokenizer: Any, settings: Settings
) -> None:
    rows = [chat("word " * (n % 7), "yes " * (1 + n % 11)) for n in range(60)]
    path = write("x.jsonl", [{"messages": [{"role": "system", "content": "s"}, *row["messages"]]} for row in rows])
    for changes in (
        {}, {"max_length": 28, "truncation": "cut"}, {"max_length": 28, "truncation": "drop"}, {"deduplicate": "near"},
    ):  # fmt: skip
        result = ask(path, validation=0.2, **changes)
        config = DataConfig(train=[{"path": str(path)}], validation=0.2, **changes)
        run = prepare_data(config, MethodConfig(), tokenizer, settings)
        assert (result["train"], result["validation"]) == (len(run.train), len(run.validation))
        assert (result["tokens"]["kept"], result["tokens"]["kept_trained"]) == (
            run.report.tokens, run.report.supervised_tokens,
        )  # fmt: skip
        lengths = result["lengths"]
        if "deduplicate" in changes:
            assert run.report.dropped == result["duplicates"]["exact"] + result["duplicates"]["near"] > 0
            continue
        assert lengths["counts"] == run.report.lengths.counts
        assert (lengths["cut"], lengths["dropped"] + lengths["without_answer"]) == (run.report.cut, run.report.dropped)
        assert result["padding"]["tokens"] == sum(one.length for one in run.train)
        if changes:
            assert lengths["over_limit"] == findings(result)["too_long"]["count"] > 0
    assert result["turns"] == {"2": 60}
    assert result["roles"] == {"system": 60, "user": 60, "assistant": 60}


def test_what_is_over_the_limit_is_said_with_what_happens(ask: Callable[..., Any], write: Write) -> None:
    path = write("x.jsonl", [chat("a", "b"), chat("a", "b " * 50), chat("a " * 50, "b")])
    refused = ask(path, max_length=40)
    assert refused["lengths"]["refused"] == 2
    finding = findings(refused)["too_long"]
    assert (finding["level"], rows_of(finding)) == ("error", [2, 3])
    cut = ask(path, max_length=40, truncation="cut")
    assert (cut["lengths"]["cut"], cut["lengths"]["without_answer"]) == (1, 1)
    assert findings(cut)["too_long"]["level"] == "warning"
    assert findings(cut)["too_long"]["action"] == "truncated to their first 40 tokens"


def test_leaks_between_training_and_validation(ask: Callable[..., Any], write: Write) -> None:
    words = " ".join(f"word{n}" for n in range(60))
    held = write("held.jsonl", [chat("c", "d"), chat(words, "yes"), chat("new", "one")])
    path = write("x.jsonl", [chat("a", "b"), chat("c", "d"), chat(words.replace("word30", "other"), "yes")])
    result = ask(path, validation=str(held))
    assert (result["leakage"]["exact"], result["leakage"]["near"]) == (1, 1)
    found = findings(result)
    assert (rows_of(found["leak"]), found["leak"]["places"][0]["source"]) == ([1], 1)
    assert rows_of(found["near_leak"]) == [2]
    exact, near = result["leakage"]["pairs"]
    assert (exact["first"]["path"], exact["first"]["row"], exact["second"]["row"]) == (str(path), 2, 1)
    assert 0.8 <= near["similarity"] < 1
    assert ask(path, validation=str(held), deduplicate="near")["leakage"] == {"exact": 0, "near": 0, "pairs": []}
    # With a share kept away, the same row on both sides.
    shared = ask(write("y.jsonl", [chat(f"q{n % 10}", "a") for n in range(40)]), validation=0.5)
    assert shared["leakage"]["exact"] > 0
    assert shared["duplicates"]["exact"] == 30


@pytest.mark.parametrize(
    ("method", "row", "turns"),
    [
        ("dpo", {"prompt": "2+2=", "chosen": "4", "rejected": "5"}, {"2": 3}),
        ("kto", {"prompt": "2+2=", "chosen": "4", "rejected": "5"}, {"2": 3}),
        ("kto", {"prompt": "2+2=", "completion": "4", "label": True}, {"2": 3}),
        ("grpo", {"prompt": "2+2=", "answer": "4"}, {"1": 3}),
        ("pretrain", {"text": "Two and two is four."}, {"1": 3}),
    ],
)
def test_every_kind_of_row(ask: Callable[..., Any], write: Write, method: str, row: Any, turns: Any) -> None:
    result = ask(write("x.jsonl", [row, row, {**row, "prompt": "1+1=", "text": "One."}]), method={"name": method})
    assert (result["rows"], result["unusable"], result["turns"]) == (3, 0, turns)
    assert result["duplicates"]["exact"] == 1
    assert result["train"] == (6 if method == "kto" and "chosen" in row else 3)


def test_a_sample_is_labelled_seeded_and_quick(ask: Callable[..., Any], write: Write) -> None:
    path = write("x.jsonl", [chat(f"question {n}", f"answer {n}") for n in range(5000)])
    ask(path, max_length=64, args={"sample": 1})  # the tokenizer is loaded
    began = time.monotonic()
    result = ask(path, args={"sample": 100})
    assert time.monotonic() - began < 2
    assert result["sampled"] == {"rows": 100, "of": 5000, "text": "from 100 of 5,000 rows"}
    assert (result["rows"], result["duplicates"], result["leakage"]) == (100, None, None)
    # Whatever is asked for, the first answer does not wait for it.
    began = time.monotonic()
    many = ask(path, args={"sample": 5000}, max_length=99)
    assert time.monotonic() - began < 4
    assert many["sampled"]["rows"] >= 64


def test_a_draw_reads_the_lines_it_names(write: Write, settings: Settings) -> None:
    def located(path: Path) -> Located:
        return locate(DataSource(path=str(path)), settings)

    rows = [chat("é" * random.Random(n).randint(1, 3000), str(n)) for n in range(700)]
    path = write("x.jsonl", rows)
    drawn = draw(located(path), 50, 7)
    assert drawn.total == 700
    assert [at for at, _, _ in drawn.rows] == sorted({at for at, _, _ in drawn.rows})
    assert all(at == number and row == rows[at - 1] for at, number, row in drawn.rows)
    assert draw(located(path), 50, 7) == drawn != draw(located(path), 50, 8)
    assert [row for _, _, row in draw(located(path), 1000, 7).rows] == rows
    # Without one row a line: an array, empty lines.
    array = write("x.json", json.dumps(rows))
    assert all(row == rows[at - 1] for at, _, row in draw(located(array), 20, 7).rows)
    gaps = write("y.jsonl", "\n\n".join(json.dumps(row) for row in rows))
    assert all(row == rows[at - 1] and number == 2 * at - 1 for at, number, row in draw(located(gaps), 20, 7).rows)
    wrapped = write("z.jsonl", json.dumps({"data": rows}))
    assert draw(located(wrapped), 20, 7).total == 700
    broken = write("b.jsonl", "".join(json.dumps(row) + "\n" for row in rows[:50]) + "{broken\n")
    with pytest.raises(InputError, match="row 51"):
        draw(located(broken), 51, 7)


@pytest.mark.parametrize("kind", ["blanks", "encoding", "one object on several lines", "changes"])
def test_a_draw_of_lines_that_are_no_rows(write: Write, settings: Settings, monkeypatch: Any, kind: str) -> None:
    """A file that can be read is drawn from; one that cannot is refused in a sentence."""
    rows = [chat("é" if n > 3 else "e", str(n)) for n in range(60)]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path = write("x.jsonl", "\n".join(lines) + "\n")
    if kind == "blanks":
        path.write_text("\n  \n".join(lines) + "\n \t\n", encoding="utf-8")
    elif kind == "encoding":
        path.write_bytes("\n".join(lines).encode("latin-1"))
    elif kind == "one object on several lines":
        path.write_text("\n".join([lines[0], *(line.replace(",", ",\n") for line in lines[1:])]), encoding="utf-8")
    else:
        counted = stream._count_lines

        def then_cut(file: Path, on_rows: Any) -> Any:
            found = counted(file, on_rows)
            file.write_text(lines[0] + "\n")
            return found

        monkeypatch.setattr(stream, "_count_lines", then_cut)
    located = locate(DataSource(path=str(path)), settings)
    try:
        drawn = draw(located, 120, 7)
    except InputError as error:
        assert kind != "blanks" and "x.jsonl" in error.sentence and error.fix
        assert ("still being written" in error.sentence) == (kind == "changes")
    else:
        assert kind != "changes" and [row for _, _, row in drawn.rows] == rows


@pytest.fixture(scope="module")
def worker(session_settings: Settings) -> Iterator[DataWorker]:
    warm = DataWorker(session_settings)
    yield warm
    warm.close()


def test_a_newer_call_ends_the_older_and_the_worker_stays(worker: DataWorker, write: Write, model_path: Path) -> None:
    path = write("x.jsonl", [chat(f"question {n}", f"answer {n}") for n in range(30_000)])
    args: dict[str, Any] = {"data": {"train": [{"path": str(path)}]}, "model": str(model_path), "slot": "page 1"}
    worker.call("template", model=str(model_path))
    pid, ended, under_way = worker.pid, list[float](), threading.Event()

    def first() -> None:
        with pytest.raises(StoppedError):
            worker.call("profile", on_progress=lambda *step: under_way.set(), **args)
        ended.append(time.monotonic())

    running = threading.Thread(target=first)
    running.start()
    assert under_way.wait(30)
    began = time.monotonic()
    assert worker.call("profile", sample=64, **args)["sampled"]["of"] == 30_000
    running.join()
    assert ended[0] - began < 2
    assert worker.pid == pid
    # Another slot is nobody's concern; a cancel ends the slot's call and leaves the worker.
    under_way.clear()
    running = threading.Thread(target=first)
    running.start()
    assert under_way.wait(30)
    worker.cancel("page 2")
    assert running.is_alive()
    worker.cancel("page 1")
    running.join(timeout=10)
    assert len(ended) == 2
    assert worker.call("ping")["pid"] == pid


def test_padding_and_packing_by_hand() -> None:
    assert padding([4, 2, 3], Batching(2), [0, 1, 2]) == {"micro_batch": 2, "tokens": 9, "padded": 11, "waste": 0.1818}
    assert packing([6, 5, 4, 3, 2], 10) == {"bins": 2, "tokens": 20, "padded": 20, "waste": 0.0}
    assert packing([10, 1], 10)["bins"] == 2


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("cafÃ©", True), ("â€œquotedâ€\x9d", True), ("ðŸ™‚", True), ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", True),
        ("\ufffd", True), ("a\x00b", True),
        ("Übung, naïve «CAFÉ» É»", False), ("AMANHû", False), ("привет 🙂 €5 – 10 ™", False), ("a\tb\r\n", False),
        ("zażółć gęślą jaźń", False),
    ],
)  # fmt: skip
def test_broken_characters(text: str, broken: bool) -> None:
    assert has_broken_characters(text) is broken


def test_secrets_are_found_hidden_and_never_shown() -> None:
    secrets = {
        "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----",
        "AWS key": "AKIA" + "Q7" * 8, "GitHub token": "ghp_" + "a1" * 18, "Hugging Face token": "hf_" + "aB" * 17,
        "API key": KEY, "Google key": "AIza" + "x" * 35, "Slack token": "xoxb-1234567890-abc",
        "web token (JWT)": "eyJ" + "a" * 12 + ".eyJ" + "b" * 12 + ".ccc",
        "password in a URL": "postgres://joe:hunter2@", "email address": "jane.doe@corp.co.uk",
    }  # fmt: skip
    assert tuple(secrets) == KINDS
    for kind, secret in secrets.items():
        ((found, masked),) = find_secrets(f"see {secret} there")
        assert found == kind
        assert secret not in masked
        assert len(masked.replace("…", "")) < 40
        assert hide_secrets(f"see {secret} there") == (f"see [{kind}] there", 1)
    for text in ("sk-learn and task-force", "a@b", "user@example.com", "eyJust a word", "price: 5 @ 3.2", "ASIAN food"):
        assert find_secrets(text) == []

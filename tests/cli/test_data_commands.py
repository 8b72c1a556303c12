"""`studio data profile` and `keep`: what they print, what a script gets, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.cli.main import main

GOOD = {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]}
EMPTY = {"messages": [{"role": "user", "content": "3 + 3?"}, {"role": "assistant", "content": ""}]}


@pytest.fixture
def command(session_settings, model_path, tmp_path, capsys, monkeypatch):
    """Run the command line on rows in data.jsonl; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(rows: list[object], *arguments: str) -> tuple[int, str, str]:
        Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        Path("run.yaml").write_text("data:\n  train:\n    - path: data.jsonl\n  validation: 0\n  max_length: 64\n")
        code = main(["data", *arguments])
        return code, *capsys.readouterr()

    return run


def test_profile_of_a_file_and_of_a_run(command) -> None:
    code, out, err = command([GOOD, GOOD], "profile", "run.yaml", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["rows"], found["lengths"]["limit"], found["duplicates"]["exact"]) == (2, 64, 1)
    assert found["padding"]["micro_batch"] == 8
    code, out, _ = command([GOOD, GOOD], "profile", "data.jsonl", "--set", "data.validation=0", "--sample", "1")
    assert code == 0
    assert "1 row (from 1 of 2 rows)" in out
    code, out, _ = command([GOOD, GOOD], "profile", "run.yaml")
    text = "info, 1 row: identical to an earlier row except for whitespace (trained on as they are): data.jsonl row 2"
    assert text in out


def test_profile_exits_with_1_where_the_run_would_refuse(command) -> None:
    code, out, _ = command([GOOD, EMPTY], "profile", "run.yaml")
    assert code == 1
    assert "error, 1 row: an empty answer (refused: the run does not start): data.jsonl row 2" in out


def test_keep_writes_and_says_where(command, session_settings) -> None:
    code, out, err = command(
        [GOOD, GOOD, EMPTY], "keep", "run.yaml", "--name", "commands", "--drop", "empty_answer",
        "--set", "data.deduplicate=exact", "--json",
    )  # fmt: skip
    assert code == 0, err
    kept = json.loads(out)
    assert kept["left_out"] == {"empty_answer": 1, "duplicate": 1}
    folder = session_settings.home / "data" / "commands"
    assert kept["path"] == str(folder)
    assert json.loads((folder / "train.jsonl").read_text()) == GOOD
    code, out, _ = command([GOOD], "keep", "run.yaml", "--name", "commands", "--format", "parquet")
    assert code == 0
    assert str(session_settings.home / "data" / "commands-2") in out
    assert "saved 1 of 1 row; dropped: none" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["keep", "run.yaml", "--name", "a"], ["data.jsonl, row 2", "drop: empty_answer"]),
        (["keep", "run.yaml", "--name", "a/b"], ["'a/b' is not a name"]),
        (["keep", "run.yaml", "--name", "a", "--drop", "nothing"], ["'nothing'", "empty_answer"]),
        (["keep", "run.yaml"], ["Missing option", "--name"]),
        (["profile", "none.yaml"], ["none.yaml", "no such file"]),
        (["profile", "none.jsonl"], ["there is no file 'none.jsonl'"]),
        (["profile", "data.jsonl", "--set", "data.deduplicat=near"], ["data.deduplicate"]),
    ],
)
def test_wrong_input_is_a_sentence(command, arguments, words) -> None:
    code, _, err = command([GOOD, EMPTY], *arguments)
    assert code == 2
    for word in words:
        assert word in err
    assert "Traceback" not in err


def test_a_push_without_a_token_says_so(command, monkeypatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    code, _, err = command([GOOD], "keep", "run.yaml", "--name", "pushed", "--push", "me/set")
    assert code == 2
    assert "HF_TOKEN" in err

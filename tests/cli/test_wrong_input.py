"""Every bad input is a sentence with file, row and field, and what to do; exit code not 0; nothing is lost.

The table of the issue, through the real command line. Nothing is queued for any of them.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from studio.cli.main import main
from studio.jobs import list_jobs
from tests.support.everyday import everyday

GOOD = {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]}
LONG = {"messages": [{"role": "user", "content": "word " * 300}, {"role": "assistant", "content": "4"}]}


def lines(*rows: object) -> bytes:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


BAD_FILES = {
    "empty file": (b"", ["data.jsonl", "empty"]),
    "bad JSON in row 17": (lines(*[GOOD] * 16, '{"messages": [', GOOD), ["data.jsonl", "row 17"]),
    "missing key in row 3": (
        lines({"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b"}, {"prompt": "a"}),
        ["data.jsonl", "row 3", "completion"],
    ),
    "wrong encoding": (
        json.dumps({"text": "caf\u00e9"}, ensure_ascii=False).encode("latin-1"),
        ["data.jsonl", "UTF-8"],
    ),
    "0 supervised tokens": (
        lines(GOOD, {"messages": [{"role": "user", "content": "hello"}]}),
        ["data.jsonl", "row 2", "assistant"],
    ),
    "an example over max_length": (lines(GOOD, LONG), ["data.jsonl", "row 2", "data.max_length", "truncation"]),
}


@pytest.fixture
def command(session_settings, model_path, tmp_path, capsys, monkeypatch):
    """Run the command line on a run whose data is `content`; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    before = len(list_jobs(session_settings.jobs))

    def run(content: bytes, *arguments: str, extra: str = "") -> tuple[int, str, str]:
        Path("data.jsonl").write_bytes(content)
        Path("run.yaml").write_text(
            f"data:\n  train:\n    - path: data.jsonl\n  validation: 0\n  max_length: 128\n{extra}", encoding="utf-8"
        )
        code = main([*arguments] if arguments else ["train", "run.yaml", "--detach", "--json"])
        out, err = capsys.readouterr()
        assert len(list_jobs(session_settings.jobs)) == before, "a job was made of bad input"
        assert Path("data.jsonl").read_bytes() == content
        return code, out, err

    return run


@pytest.mark.parametrize("name", everyday(BAD_FILES, "bad JSON in row 17", "missing key in row 3", "wrong encoding"))
def test_bad_data_is_refused_with_file_row_and_field(command, name) -> None:
    content, words = BAD_FILES[name]
    code, out, err = command(content)
    assert code == 2
    answer = json.loads(out)
    assert answer["error"]["exit_code"] == 2
    for word in words:
        assert word in err, err
    assert answer["error"]["fix"]
    assert "Traceback" not in err


def test_an_unknown_config_key_names_the_nearest(command) -> None:
    code, _, err = command(lines(GOOD), extra="trainig:\n  epochs: 1\n")
    assert code == 2
    assert "run.yaml: there is no option 'trainig'. Did you mean 'training'?" in err


def test_a_full_disk_is_told_before_the_start(command, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    code, out, err = command(lines(*[GOOD] * 20))
    assert code == 1
    assert "GB free" in err
    assert "STUDIO_HOME" in json.loads(out)["error"]["fix"]


def test_a_run_that_does_not_fit_into_memory_says_what_would(command, monkeypatch) -> None:
    monkeypatch.setattr("studio.models.device.machine.memory", lambda: (2 * 10**9, 10**9))
    code, _, err = command(lines(*[GOOD] * 20), "train", "run.yaml", "--detach", "--set", "tuning.name=full")
    assert code == 2, err
    assert "GB of memory" in err
    assert "lora" in err


@pytest.mark.long
def test_options_without_an_effect_are_told_and_part_of_the_answer(command) -> None:
    sets = [f"--set={one}" for one in ("tuning.name=qlora", "tuning.modules_to_save=lm_head", "tuning.dora=true")]
    code, out, err = command(lines(*[GOOD] * 20), "plan", "run.yaml", "--json", *sets)
    assert code == 0, err
    (warning,) = json.loads(out)["warnings"]
    assert warning.startswith("tuning.modules_to_save has no effect with sft, qlora")
    assert "It applies to lora, dora" in warning
    code, out, _ = command(lines(*[GOOD] * 20), "plan", "run.yaml", *sets)
    assert code == 0 and "warning: tuning.modules_to_save has no effect" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "demo/sftt"], ["there is no preset or file 'demo/sftt'", "demo/sft"]),
        (["train", "none.yaml"], ["none.yaml", "no such file"]),
        (["train", "demo/sft", "--set", "training.epoch=1"], ["training.epochs"]),
        (["train"], ["Missing argument"]),
        (["trian"], ["No such command"]),
        (["evaluate", "nobody"], ["there is no run 'nobody'"]),
        (["export", "nobody"], ["there is no run 'nobody'"]),
        (["export", "nobody", "--to", "merged", "--type", "f16"], ["--type is for --to gguf"]),
        (["export", "nobody", "--to", "merged", "--imatrix", "on"], ["--imatrix is for --to gguf"]),
        (["export", "nobody", "--dtype", "float32"], ["--dtype is for --to merged"]),
        (["export", "nobody", "--to", "merged", "--base", "a/b"], ["--base is for --to adapter"]),
        (["export", "nobody", "--repo", "a/b"], ["--repo is for --to hub"]),
        (["export", "nobody", "--to", "folder", "--public"], ["--private or --public is for --to hub"]),
        (
            ["export", "nobody", "--to", "hub", "--what", "adapter", "--dtype", "float32"],
            ["--dtype is for --to merged"],
        ),
        (["export", "nobody", "--to", "hub", "--what", "gguf", "--type", "f16"], ["there is no run 'nobody'"]),
        (["jobs", "show"], ["Missing argument 'ID'", "--help"]),
        (["jobs", "show", "nobody"], ["there is no job 'nobody'"]),
        (["data", "inspect", "none.jsonl"], ["none.jsonl"]),
        (["chat", "nobody", "--prompt", "hello"], ["nobody"]),
    ],
)
def test_wrong_commands_are_sentences(home, capsys, arguments, words) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    for word in words:
        assert word in err
    assert "Traceback" not in err


def test_a_port_in_use_is_told_with_the_way_out(home, capsys) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["ui", "--port", str(port)]) == 2
    err = capsys.readouterr().err
    assert str(port) in err
    assert "--port" in err

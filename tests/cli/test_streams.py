"""What a command does where its output goes nowhere, and that `--json` is one object whatever happens."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from studio.cli.jobs import listing, watch
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.settings import Settings
from tests.conftest import call_studio
from tests.support.servers.openaiserver import OpenAI, serve_openai

NAME = "café – 日本"
# Ctrl-C while the modules of the commands are imported.
EARLY = """
import os, signal, sys
from studio import __main__ as command
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without it
class Hook:
    def find_spec(self, name, path, target=None):
        if name == "studio.cli.jobs.listing":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Hook())
sys.argv = ["studio", "jobs", "list", "--json"]
raise SystemExit(command.main())
"""


def started(home: Path, *command: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """A process as a shell starts it: with an output that waits in a buffer."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"STUDIO_HOME": str(home), **more.pop("env", {})}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    return subprocess.run(command, text=True, timeout=300, env=environment, **streams)


def studio(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "studio", *words)


def closed(number: int, *words: str) -> tuple[str, ...]:
    return ("sh", "-c", f'exec "$@" {number}>&-', "sh", *studio(*words))


def test_a_reader_who_leaves_changes_nothing(tmp_path: Path) -> None:
    read, written = os.pipe()
    os.close(read)
    done = started(tmp_path, *studio("jobs", "list", "--json"), stdout=written)
    os.close(written)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_answer_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = started(tmp_path, *studio("jobs", "list", "--json"), stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("stdout: the answer cannot be written (No space left on device). Check where")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.long
def test_an_output_that_is_closed_takes_no_other_file(tmp_path: Path) -> None:
    done = started(tmp_path, *closed(1, "jobs", "list", "--json"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = started(tmp_path, *closed(2, "jobs", "show", "nobody", "--json"))
    assert done.returncode == 2 and json.loads(done.stdout)["error"]["what"] == "there is no job 'nobody'"


@pytest.mark.long
def test_letters_that_the_output_lacks_are_written_out(settings: Settings) -> None:
    job = create_job(settings.jobs, "train", "plain", {})
    assert call_studio("jobs", "rename", job.id, NAME, home=settings.home).code == 0
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    done = started(settings.home, *studio("jobs", "show", job.id, "--json"), env=ascii_only)
    assert done.returncode == 0 and json.loads(done.stdout)["name"] == NAME
    done = started(settings.home, *studio("jobs", "show", job.id), env=ascii_only)
    assert done.returncode == 0 and r"train caf\xe9 \u2013 \u65e5\u672c: " in done.stdout


def test_ctrl_c_before_the_command_began_is_answered(tmp_path: Path) -> None:
    done = started(tmp_path, sys.executable, "-c", EARLY)
    assert (done.returncode, done.stderr) == (130, "stopped.\n")
    assert json.loads(done.stdout)["error"]["exit_code"] == 130


def test_json_before_the_verb_is_json(settings: Settings) -> None:
    job = create_job(settings.jobs, "train", "one", {})
    for words in (("--json",), ("--json", "list"), ("list", "--json")):
        (found,) = call_studio("jobs", *words, home=settings.home).json["jobs"]
        assert found["id"] == job.id
    assert call_studio("jobs", "--json", "show", "one", home=settings.home).json["id"] == job.id


def test_ctrl_c_ends_the_showing_and_not_the_job(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    job = create_job(settings.jobs, "train", "one", {})
    write_state(job.state_path, JobState(status="running"))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "read_events", interrupted)
    done = call_studio("jobs", "show", "one", "--follow", "--json", home=settings.home)
    assert done.code == 130 and done.json["error"]["what"] == "stopped"
    assert "the job goes on" in done.stderr and not job.stop_path.exists()


def test_rows_that_openai_refuses_are_one_answer(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    file = tmp_path / "two.jsonl"
    file.write_text(f"{json.dumps(row)}\n" * 2)
    with serve_openai(OpenAI()) as address:
        done = call_studio(
            "openai", "check", str(file), "--json", home=tmp_path / "home",
            OPENAI_API_KEY="sk-ada", OPENAI_BASE_URL=address, TIKTOKEN_CACHE_DIR=str(tmp_path),
        )  # fmt: skip
    assert done.code == 2 and done.json["rows"] == 2 and "Nothing was sent" in done.stderr


def test_signing_out_answers_in_json(tmp_path: Path) -> None:
    assert call_studio("sign-out", "--json", home=tmp_path).json == {"ended": 0}
    for damaged in (None, "{", "[1]"):
        if damaged is not None:
            (tmp_path / "page.json").write_text(damaged)
        refused = call_studio("link", "--json", home=tmp_path)
        assert refused.code == 2 and refused.json["error"]["what"] == "no page of this home opens with a link"


def test_what_the_system_refuses_says_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, words in ((errno.EACCES, "Check who owns it"), (errno.EROFS, "to a disk that can be written")):
        refused = OSError(number, os.strerror(number), "/a/home")
        monkeypatch.setattr(listing, "list_jobs", MagicMock(side_effect=refused))
        done = call_studio("jobs", "list", "--json", home=tmp_path)
        assert done.code == 1 and done.json["error"]["where"] == "/a/home" and words in done.json["error"]["fix"]


def test_a_path_that_is_too_long_is_no_job(tmp_path: Path) -> None:
    done = call_studio("jobs", "show", f"/{'a' * 300}", "--json", home=tmp_path)
    assert done.code == 2 and done.json["error"]["what"].startswith("there is no job '/aaa")

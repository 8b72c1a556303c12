"""A page's rows are checked in a process of their own, unless they are few: the answer is the same, the memory not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from studio.config.remote import OpenAIConfig
from studio.errors import InputError
from studio.processes import child_environment
from studio.reach import reading_for
from studio.remote import checking
from studio.remote.checking import check
from studio.remote.prepare import Checked, prepare
from studio.settings import Settings, read_settings
from tests.remote.conftest import USER_ONLY, Rows, chat, questions


@pytest.fixture
def page(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings by which a page may read the test's files."""
    monkeypatch.setenv("STUDIO_ROOTS", str(tmp_path))
    return read_settings()


def asked(path: Path, **options: Any) -> OpenAIConfig:
    return OpenAIConfig(data=str(path), **options)


def of(found: Checked) -> dict[str, Any]:
    return {one.name: getattr(found, one.name) for one in fields(Checked)}


def test_another_process_finds_the_same(page: Settings, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [*questions(12), chat("My key is sk-abcdefghijklmnopqrstuvwxyz", note="x"), USER_ONLY]
    config = asked(rows(some), validation=str(rows(questions(11), "held.jsonl")), n_epochs=2, seed=7)
    here = check(config, page)
    started: list[str] = []
    child = checking.run_child
    monkeypatch.setattr(checking, "SMALL_BYTES", 0)
    monkeypatch.setattr(checking, "run_child", lambda module, *rest: (started.append(module), child(module, *rest)))
    there = check(config, page)
    assert of(here) == of(there) == of(prepare(config, page)) and started == ["studio.remote.checking"]
    assert there.rows == 13 and len(there.warnings) >= 3 and "row 14" in there.problems[0]
    assert there.config.key and there.cost() == here.cost()


def test_its_refusals_are_the_same_sentences(page: Settings, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = rows(questions(12))
    broken.write_text(broken.read_text() + "{not json\n")
    outside = Path(sys.prefix) / "pyvenv.cfg"
    for path in (broken, outside, broken.with_name("none.jsonl")):
        said = []
        for size in (checking.SMALL_BYTES, 0):
            with monkeypatch.context() as patch, reading_for(page), pytest.raises(InputError) as caught:
                patch.setattr(checking, "SMALL_BYTES", size)
                check(asked(path), page)
            said.append(caught.value.sentence)
        assert said[0] == said[1] and str(path.name) in said[0]


WEB = """
import json, resource, sys, threading, time
from studio.config.remote import OpenAIConfig
from studio.remote.checking import check
from studio.settings import read_settings
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
check(OpenAIConfig(data=sys.argv[1]), read_settings())
before, late, over = peak(), [0.0], threading.Event()
def beat():
    while not over.is_set():
        began = time.monotonic()
        time.sleep(0.01)
        late[0] = max(late[0], time.monotonic() - began - 0.01)
watcher = threading.Thread(target=beat)
watcher.start()
began = time.monotonic()
found = check(OpenAIConfig(data=sys.argv[2]), read_settings())
seconds = time.monotonic() - began
over.set()
watcher.join()
print(json.dumps({"grown": peak() - before, "rows": found.rows, "late": late[0], "seconds": seconds}))
"""


@pytest.mark.long
def test_the_web_process_does_not_grow_with_the_file(page: Settings, rows: Rows, tmp_path: Path) -> None:
    """`STUDIO_TEST_MB` makes the file larger, for measuring."""
    text, size = "x" * 400, int(os.environ.get("STUDIO_TEST_MB", "40")) * 1_000_000
    large, line = tmp_path / "large.jsonl", 0
    with large.open("w") as file:
        while file.tell() < size:
            file.write("".join(json.dumps(chat(f"{n} {text}")) + "\n" for n in range(line, line + 1000)))
            line += 1000
    done = subprocess.run(
        [sys.executable, "-c", WEB, str(rows(questions(12))), str(large)], env=child_environment(),
        capture_output=True, text=True, timeout=590, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    print(told)
    assert told["rows"] == line
    assert told["grown"] < size / 4, f"the web process grew by {told['grown'] / 1e6:.0f} MB"

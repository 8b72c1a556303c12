"""Processes: shared, ended, not left behind; the key nowhere to be seen."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from studio.chat.client import AnswerStats, stream
from studio.chat.manager import ChatManager
from studio.chat.target import Target
from studio.errors import InputError, StoppedError, StudioError
from tests.chat.conftest import make_settings
from tests.support.everyday import everyday
from tests.support.processes import gone


def wait_gone(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if gone(pid):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def gguf(gguf_path: Path) -> Target:
    return Target("gguf", "smollm2", gguf=gguf_path)


def test_open_shares_lists_and_closes(tmp_path: Path, gguf: Target) -> None:
    manager = ChatManager(make_settings(tmp_path))
    phases: list[str] = []
    handles = []
    threads = [
        threading.Thread(target=lambda: handles.append(manager.open(gguf, lambda phase, s: phases.append(phase))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({handle.pid for handle in handles}) == 1 and len(handles) == 3
    assert "starting" in phases or "loading the GGUF file" in phases
    (loaded,) = manager.loaded()
    assert loaded.memory > 100 * 2**20 and loaded.target == gguf
    pid = handles[0].pid
    manager.close(gguf)
    assert not psutil.pid_exists(pid)
    assert manager.loaded() == [] and list((tmp_path / "tmp").iterdir()) == []
    manager.close(gguf)  # again: nothing happens


def test_the_key_is_neither_in_the_command_line_nor_in_the_log(tmp_path: Path, gguf: Target) -> None:
    manager = ChatManager(make_settings(tmp_path))
    handle = manager.open(gguf)
    "".join(stream(handle, "gguf", [{"role": "user", "content": "hi"}], max_tokens=3))
    assert handle.key not in " ".join(psutil.Process(handle.pid).cmdline())
    logs = list((tmp_path / "tmp").glob("chat-*"))
    assert logs and all(handle.key not in log.read_text() for log in logs)
    assert handle.key not in repr(handle)
    manager.close_all()
    assert not psutil.pid_exists(handle.pid)


def test_stream_gives_text_and_figures_and_sentences(tmp_path: Path, gguf: Target) -> None:
    manager = ChatManager(make_settings(tmp_path))
    handle = manager.open(gguf)
    ends: list[AnswerStats] = []
    question = [{"role": "user", "content": "Count to ten."}]
    assert "".join(stream(handle, "gguf", question, temperature=0, max_tokens=8, on_end=ends.append))
    (stats,) = ends
    assert stats.finish_reason == "length" and stats.completion_tokens == 8
    assert stats.first_token_seconds and stats.tokens_per_second and stats.seconds >= stats.first_token_seconds
    with pytest.raises(InputError, match="temperature"):
        list(stream(handle, "gguf", question, temperature=5))
    manager.close(gguf)
    with pytest.raises(StudioError, match="is no longer responding"):
        list(stream(handle, "gguf", question))


@pytest.mark.long
def test_an_idle_server_ends_and_is_loaded_again(tmp_path: Path, gguf: Target) -> None:
    manager = ChatManager(make_settings(tmp_path, idle=2))
    handle = manager.open(gguf)
    "".join(stream(handle, "gguf", [{"role": "user", "content": "hi"}], max_tokens=3))
    assert wait_gone(handle.pid, 15)
    assert manager.loaded() == []
    again = manager.open(gguf)
    assert again.pid != handle.pid
    manager.close_all()


@pytest.mark.long
def test_a_busy_server_is_not_idle(tmp_path: Path, gguf: Target) -> None:
    manager = ChatManager(make_settings(tmp_path, idle=1))
    handle = manager.open(gguf)
    begin = time.monotonic()
    options = {"temperature": 2, "seed": 1, "max_tokens": 4000}
    for _ in stream(handle, "gguf", [{"role": "user", "content": "Tell a long story."}], **options):
        if time.monotonic() - begin > 4:
            break
    assert psutil.pid_exists(handle.pid)
    assert wait_gone(handle.pid, 15)
    manager.close_all()


@pytest.mark.parametrize("when", everyday(["loading", "ready"], "ready"))
def test_the_server_ends_with_its_parent(tmp_path: Path, gguf_path: Path, when: str) -> None:
    """A parent that is killed cannot tidy up; the server must notice by itself."""
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from studio.chat.manager import ChatManager\n"
        "from studio.chat.target import Target\n"
        "from studio.settings import read_settings\n"
        "manager = ChatManager(read_settings())\n"
        "def die(phase, seconds):\n"
        f"    if {when == 'loading'} and manager._servers:\n"
        "        print(list(manager._servers.values())[0].process.pid, flush=True); os._exit(9)\n"
        f"handle = manager.open(Target('gguf', 'x', gguf=Path({str(gguf_path)!r})), die)\n"
        "print(handle.pid, flush=True); os._exit(9)\n"
    )
    environment = {**os.environ, "STUDIO_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 9, done.stderr
    assert wait_gone(int(done.stdout), 15)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        pytest.param("no model", "no config.json", marks=pytest.mark.long),
        pytest.param("no adapter", "no adapter_config.json", marks=pytest.mark.long),
        pytest.param("text.gguf", "not a GGUF file", marks=pytest.mark.long),
        ("cut.gguf", "llama.cpp cannot load this file"),
        pytest.param("none.gguf", "no such file", marks=pytest.mark.long),
    ],
)
def test_failures_are_sentences(name: str, sentence: str, tmp_path: Path, model_path: Path) -> None:
    manager = ChatManager(make_settings(tmp_path))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.gguf").write_text("not a model")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\0" * 40)
    targets = {
        "no model": Target("model", "a", model=tmp_path / "empty"),
        "no adapter": Target("run", "b", model=model_path, adapter=tmp_path / "empty"),
    }
    with pytest.raises(InputError, match=sentence) as caught:
        manager.open(targets.get(name) or Target("gguf", "c", gguf=tmp_path / name))
    assert "Traceback" not in caught.value.sentence and str(tmp_path) in caught.value.sentence
    assert manager.loaded() == []


def test_loading_can_be_stopped(tmp_path: Path, model_path: Path) -> None:
    manager = ChatManager(make_settings(tmp_path))
    target = Target("model", "x", model=model_path)
    caught: list[BaseException] = []

    def load() -> None:
        try:
            manager.open(target)
        except StudioError as error:
            caught.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    while not manager._servers:
        time.sleep(0.01)
    pid = next(iter(manager._servers.values())).process.pid
    manager.close(target)
    thread.join(10)
    assert [type(error) for error in caught] == [StoppedError]
    assert not psutil.pid_exists(pid)
    with pytest.raises(StudioError, match="was not ready within 0"):
        manager.open(target, timeout=0)


@pytest.mark.long
def test_a_retrained_run_is_loaded_again(tmp_path: Path, model_path: Path, gguf_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(gguf_path.read_bytes())
    manager = ChatManager(make_settings(tmp_path))
    target = Target("gguf", "x", gguf=file)
    first = manager.open(target)
    assert manager.open(target) == first
    os.utime(file)
    second = manager.open(target)
    assert second.pid != first.pid and not psutil.pid_exists(first.pid)
    manager.close_all()


def test_the_manager_is_light() -> None:
    heavy = ("torch", "transformers", "numpy", "openai", "httpx", "fastapi", "llama_cpp", "gradio", "datasets")
    program = f"import sys, studio.chat.manager, studio.chat.ask; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Child processes: output, errors, stop and peak memory."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from studio.errors import InputError, StoppedError, StudioError
from studio.export.steps import StepResult, require, run_own_step, run_step
from tests.export.conftest import Recorder

ALLOCATE = "x = bytearray(200_000_000); import time; time.sleep(0.6); print('done')"


def test_lines_end_at_carriage_returns_too(watcher: Recorder) -> None:
    lines: list[str] = []
    code = r"import sys; sys.stdout.write('a 1%\ra 2%\r\nb\nwithout end')"
    result = run_step([sys.executable, "-c", code], watcher, lines.append)
    assert lines == ["a 1%", "a 2%", "b", "without end"]
    assert (result.code, result.lines) == (0, lines)


def test_peak_is_the_childs_own(watcher: Recorder) -> None:
    big = run_step([sys.executable, "-c", ALLOCATE], watcher)
    small = run_step([sys.executable, "-c", "import time; time.sleep(0.6)"], watcher)
    assert 200e6 < big.peak_bytes < 260e6
    assert 0 < small.peak_bytes < 60e6, "not this process's size, which wait4 would report"


def test_stop_ends_the_process_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(StoppedError):
        run_step([sys.executable, "-c", "import time; time.sleep(60)"], Recorder(stop_after=2))
    assert time.monotonic() - began < 20
    mine = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    assert not [child for child in mine if "time.sleep(60)" in " ".join(child.cmdline())]


def test_a_signal_is_named(watcher: Recorder) -> None:
    result = run_step([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], watcher)
    assert "SIGKILL" in result.ending()
    assert "memory" in result.ending()
    with pytest.raises(StudioError, match=r"merging failed: .*SIGKILL"):
        require(result, "merging")


def merged(folder: Path, watcher: Recorder) -> StepResult:
    """How the merge of a folder with itself ends."""
    names = {"base": folder, "adapter": folder, "target": folder / "t", "tokenizer": folder}
    request = {name: str(path) for name, path in names.items()} | {"form": {"dtype": "float32"}}
    return run_own_step("studio.export.gguf.merge", request, folder, watcher)


def test_an_own_steps_sentence_comes_back(tmp_path: Path, watcher: Recorder) -> None:
    result = merged(tmp_path, watcher)
    assert result.code != 0
    with pytest.raises(StudioError, match="adapter_config"):
        require(result, "merging")


def test_the_class_of_the_error_survives(tmp_path: Path, watcher: Recorder) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    result = merged(tmp_path, watcher)
    assert isinstance(result.error, InputError)
    assert result.code == InputError.exit_code

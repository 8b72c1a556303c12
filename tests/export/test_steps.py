"""Child processes: output, errors, stop and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from studio.errors import InputError, StoppedError, StudioError
from studio.export.steps import StepResult, require, run_own_step, run_step
from studio.processes import child_environment
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


FORKING = """
import json, os, sys
from pathlib import Path
import numpy
from studio.errors import StoppedError
from studio.export import steps
from studio.jobs.run import warm

class Stopping(steps.QuietWatcher):
    def should_stop(self):
        return sys.argv[2] == "stop"

steps.HEAVY |= {"forked_step"}
warm.here = warm.Warm.beside()
said = []
try:
    request, folder = {"mode": sys.argv[2]}, Path(sys.argv[1])
    result = steps.run_own_step("forked_step", request, folder, Stopping(), lambda *n: said.append(n))
    found = {"code": result.code, "answer": result.answer, "error": result.error and result.error.what,
             "ending": result.ending(), "peak": result.peak_bytes}
except StoppedError as error:
    found = {"stopped": error.what}
print("FOUND", json.dumps(found | {"said": said, "own": os.getpid(), "session": os.getsid(0)}))
"""
FORKED = """
import os, sys, time
from huggingface_hub import is_offline_mode
from studio.errors import InputError
from studio.export.steps import serve_step

def work(request, report):
    report(1, 2)
    if request["mode"] == "error":
        raise InputError("row 3 is empty", where="rows.jsonl")
    if request["mode"] == "killed":
        os.kill(os.getpid(), 9)
    if request["mode"] == "stop":
        time.sleep(600)
    return {"pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "numpy": "numpy" in sys.modules,
            "offline": is_offline_mode(), "cwd": os.getcwd()}

if __name__ == "__main__":
    raise SystemExit(serve_step(work))
"""


@pytest.mark.parametrize("mode", ["answer", "error", "killed", "stop"])
def test_a_forked_step_is_like_one_of_its_own(tmp_path: Path, mode: str) -> None:
    (tmp_path / "forking.py").write_text(FORKING)
    (tmp_path / "forked_step.py").write_text(FORKED)
    environment = child_environment(STUDIO_HOME=str(tmp_path / "home"))
    environment["PYTHONPATH"] = os.pathsep.join((str(tmp_path), environment["PYTHONPATH"]))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "forking.py"), str(tmp_path), mode],
        capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120,
    )  # fmt: skip
    assert "FOUND" in done.stdout, done.stderr
    found = json.loads(done.stdout.split("FOUND", 1)[1])
    if mode == "stop":
        assert found["stopped"]
        return
    assert found["said"] == [[1, 2]]
    assert found["peak"] > 1e7 or mode == "killed"
    if mode == "answer":
        answer = found["answer"]
        assert found["code"] == 0
        assert answer["offline"], "as a process of its own that is told so"
        assert answer["numpy"], "it has what was imported before"
        assert answer["pid"] != found["own"] != answer["parent"]
        assert answer["session"] == found["session"], "it is found with the rest of the job"
        assert answer["cwd"] == str(tmp_path)
    elif mode == "error":
        assert found["code"] == 2
        assert found["error"] == "row 3 is empty"
    else:
        assert found["code"] == -9
        assert "SIGKILL" in found["ending"]

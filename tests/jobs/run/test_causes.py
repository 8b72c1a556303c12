"""What a dead process's log says: for each row of the table a real log, with the sentence, the fix and the line.

The texts are those that the libraries wrote when the errors were caused (torch 2.13, huggingface_hub 2.4, Python 3.11);
where that costs little they are caused here. Those of CUDA are PyTorch's own words, which no GPU was at hand for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from studio.jobs.run.causes import CAUSES
from studio.jobs.run.diagnosis import Diagnosis, diagnose, from_exception
from tests.support.servers.hubserver import Hub, serve_hub

HEAD = "12:00:01  loading model\n12:00:09  training      3 of 84   loss 1.2345\nTraceback (most recent call last):\n"
FRAME = '  File "/studio/train/worker.py", line 71, in train\n    trainer.train()\n'
HUB = "huggingface_hub.errors."
# Row of the table → (what the log ends with, a part of the reason).
LOGS: dict[str, tuple[str, str]] = {
    "gpu memory": (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of "
        "23.65 GiB of which 1.12 GiB is free.", "the GPU's memory was full",
    ),
    "memory": (
        "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 4000000000000000 bytes. Error code 12 (Cannot allocate memory)",
        "the computer's memory was full",
    ),
    "disk": ("OSError: [Errno 28] No space left on device", "the disk was full"),
    "quota": ("OSError: [Errno 122] Disk quota exceeded: 'checkpoints/checkpoint-3'", "your disk quota was used up"),
    "half a file": (
        "RuntimeError: [enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598",
        "could not be written completely",
    ),
    "gpu assert": (
        "torch.AcceleratorError: CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously "
        "reported at some other API call, so the stacktrace below might be incorrect.", "device-side assert",
    ),
    "gpu fault": (
        "RuntimeError: CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be "
        "asynchronously reported", "the GPU failed: an illegal memory access was encountered",
    ),
    "gpu driver": (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU",
        "older than torch needs",
    ),
    "no gpu": ("AssertionError: Torch not compiled with CUDA enabled", "no NVIDIA GPU that torch can use"),
    "gpu kind": (
        "RuntimeError: CUDA error: no kernel image is available for execution on the device", "not built for this kind",
    ),
    "package": ("ModuleNotFoundError: No module named 'nosuch'", "the Python package 'nosuch' is missing"),
    "versions": (
        "ImportError: cannot import name 'NoSuchThing' from 'transformers' (/venv/transformers/__init__.py)",
        "version of 'transformers' is not compatible",
    ),
    "library": (
        "OSError: libcudart.so.99: cannot open shared object file: No such file or directory",
        "the library libcudart.so.99 is missing",
    ),
    "library version": (
        "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /venv/x.so)",
        "is incompatible with this system (GLIBC_2.38)",
    ),
    "gated": (
        f"{HUB}GatedRepoError: 403 Client Error.\n\nCannot access gated repo for url https://huggingface.co/org/gated/"
        "resolve/main/config.json.\nGatedRepo", "org/gated is gated",
    ),
    "revision": (
        f"{HUB}RevisionNotFoundError: 404 Client Error.\n\nRevision Not Found for url: https://huggingface.co/org/real/"
        "resolve/nobranch/config.json.", "has org/real, but not this revision",
    ),
    "missing file": (
        f"{HUB}RemoteEntryNotFoundError: 404 Client Error.\n\nEntry Not Found for url: https://huggingface.co/org/real/"
        "resolve/main/nofile.json.", "no file nofile.json there",
    ),
    "not found": (
        f"{HUB}RepositoryNotFoundError: 404 Client Error.\n\nRepository Not Found for url: https://huggingface.co/org/"
        "none/resolve/main/config.json.\nPlease make sure you specified the correct `repo_id` and `repo_type`.",
        "the Hub has no org/none",
    ),
    "no access": (
        f"{HUB}HfHubHTTPError: 401 Client Error: Unauthorized for url: https://huggingface.co/api/whoami-v2",
        "the Hub refused https://huggingface.co/api/whoami-v2",
    ),
    "no network": (
        f"{HUB}LocalEntryNotFoundError: An error happened while trying to locate the file on the Hub and we cannot "
        "find the requested files in the local cache.", "the network did not respond",
    ),
    "broken model file": (
        "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: header too large",
        "a model file is corrupted (header too large)",
    ),
    "other model": (
        "RuntimeError: Error(s) in loading state_dict for PeftModel:\n\tsize mismatch for base_model.model.q_proj."
        "lora_A: copying a param with shape torch.Size([8, 32])", "base_model.model.q_proj.lora_A has a different size",
    ),
    "bad json": (
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 7 (char 6)",
        "not valid JSON (Expecting value: line 1 column 7 (char 6))",
    ),
    "bad text": (
        "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        "a file is not utf-8 text",
    ),
    "bad table": (
        "pyarrow.lib.ArrowInvalid: Could not open Parquet input source 'p.parquet': Parquet magic bytes not found in "
        "footer.", "a table cannot be read (Could not open Parquet",
    ),
    "token id": ("IndexError: index out of range in self", "outside the model's vocabulary"),
    "shared memory": (
        "RuntimeError: DataLoader worker (pid(s) 4711) is killed by signal: Bus error. It is possible that "
        "dataloader's workers are out of shared memory.", "shared memory was full",
    ),
    "open files": ("OSError: [Errno 24] Too many open files: '/dev/null'", "too many files were open"),
    "threads": ("RuntimeError: can't start new thread", "ran out of threads"),
    "read-only": ("OSError: [Errno 30] Read-only file system: '/data/jobs'", "the disk is read-only"),
    "permission": ("PermissionError: [Errno 13] Permission denied: '/root/x'", "'/root/x' cannot be written or read"),
}  # fmt: skip


def written(folder: Path, text: str) -> Path:
    log = folder / "log.txt"
    log.write_text(text)
    return log


@pytest.mark.parametrize("name", LOGS)
def test_each_row_is_told_with_its_line(name: str, tmp_path: Path) -> None:
    text, reason = LOGS[name]
    log = written(tmp_path, f"{HEAD}{FRAME}{text}\n")
    found = diagnose(1, log, kills={})
    assert reason in found.reason and found.fix
    marked = log.read_text().splitlines()[(found.line or 0) - 1 :]
    (cause,) = [one for one in CAUSES if one.name == name]
    assert re.search(cause.pattern, "\n".join(marked) + "\n"), "the line is where the words begin"
    assert found.line is not None and found.line >= 6


def test_the_memory_has_other_words_in_other_libraries(tmp_path: Path) -> None:
    for text in ("RuntimeError: could not create a primitive", "MemoryError", "std::bad_alloc"):
        assert diagnose(1, written(tmp_path, f"{HEAD}{text}\n"), kills={}).reason == "the computer's memory was full"


def test_every_row_has_a_log() -> None:
    assert [cause.name for cause in CAUSES] == list(LOGS)


CAUSED: dict[str, tuple[str, int, str]] = {
    "import": ("import nosuchpackage", 1, "the Python package 'nosuchpackage' is missing"),
    "library": ("import ctypes; ctypes.CDLL('libnone.so.9')", 1, "the library libnone.so.9 is missing"),
    "memory": ("x = bytearray(10**17)", 1, "the computer's memory was full"),
    "disk": ("f = open('/dev/full', 'w'); f.write('x' * 10**5); f.flush()", 1, "the disk was full"),
    "segfault": ("import ctypes; ctypes.string_at(0)", -11, "SIGSEGV"),
    "illegal": ("import os; os.kill(os.getpid(), 4)", -4, "an instruction that this CPU does not support"),
    "abort": ("import os; os.abort()", -6, "aborted (SIGABRT)"),
    "term": ("import os; os.kill(os.getpid(), 15)", -15, "by a shutdown"),
    "unknown": ("import os, signal; os.kill(os.getpid(), signal.SIGUSR1)", -10, "the process ended with SIGUSR1"),
    "value": ("def f():\n    raise ValueError('odd')\nf()", 1, "ValueError: odd"),
    "silent": ("raise SystemExit(7)", 7, "the process ended with exit status 7"),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSED)
def test_processes_that_really_die(name: str, tmp_path: Path) -> None:
    code, status, reason = CAUSED[name]
    log = written(tmp_path, "12:00:00  begins\n" * 3)
    script = tmp_path / "made.py"
    script.write_text(code)
    with log.open("ab") as output:
        command = [sys.executable, "-X", "faulthandler", str(script)]
        ended = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    found = diagnose(ended, log, kills={})
    assert ended == status
    assert reason in found.reason and found.fix
    assert found.line is not None
    line = log.read_text().splitlines()[found.line - 1]
    expected = {"segfault": "Fatal Python error: Segmentation fault", "illegal": "Fatal Python error: Illegal instr",
                "abort": "Fatal Python error: Aborted", "value": "ValueError: odd"}  # fmt: skip
    assert expected.get(name, "") in line
    if name == "value":
        assert "made.py, line 2" in found.fix


def test_what_the_hub_refuses(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    asked = {
        "'org/none', 'config.json'": "the Hub has no org/none",
        "'org/gated', 'config.json'": "org/gated is gated on the Hub",
        "'org/real', 'none.json'": "no file none.json there",
        "'org/real', 'config.json', revision='none'": "has org/real, but not this revision",
    }
    with serve_hub(Hub({"org/real": folder}, gated=("org/gated",))) as address:
        env = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        code = "import sys; from huggingface_hub import hf_hub_download as get\nfor one in sys.argv[2:]:\n"
        code += "    try:\n        eval(f'get({one}, cache_dir=sys.argv[1])')\n    except Exception:\n"
        code += "        import traceback; traceback.print_exc(); print('=====', file=sys.stderr)\n"
        command = [sys.executable, "-c", code, str(tmp_path / "cache"), *asked]
        told = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stderr
    texts = told.split("=====\n")[:-1]
    assert len(texts) == len(asked)
    for text, reason in zip(texts, asked.values(), strict=True):
        assert reason in diagnose(1, written(tmp_path, text), kills={}).reason


def test_an_exception_is_told_with_its_place(tmp_path: Path) -> None:
    log = written(tmp_path, f"{HEAD}{FRAME}ValueError: odd\n12:00:10  after\n")
    try:
        raise ValueError("odd")
    except ValueError as error:
        found = from_exception(error, log)
    assert found.reason == "an unexpected error (ValueError: odd)"
    assert "It was raised in test_causes.py, line" in found.fix
    assert found.line == 6
    assert from_exception(MemoryError(), log).reason == "the computer's memory was full"


PLAN = {
    "memory": {"weights": 2_000_000_000, "gradients": 0, "activations": 5_000_000_000, "runtime": 900_000_000},
    "available_bytes": 9_000_000_000,
    "cures": [
        {"change": {"training.micro_batch_size": 1}, "bytes": 7_000_000_000},
        {"change": {"training.activation_checkpointing": True}, "bytes": 4_000_000_000},
        {"change": {"tuning.name": "qlora"}, "bytes": 3_000_000_000},
    ],
}


def test_full_memory_comes_with_the_plan_and_the_first_change_that_fits(tmp_path: Path) -> None:
    log = written(tmp_path, f"{HEAD}{FRAME}{LOGS['memory'][0]}\n")
    found = diagnose(1, log, {"plan": PLAN}, kills={})
    assert "The plan counted 7.90 GB (weights 2.00, activations 5.00, runtime 0.90)" in found.fix
    assert "9.00 GB of memory were free" in found.fix
    # 7 GB would fit into what was free, but the plan was wrong already: it takes clearly less.
    assert found.change == {"training.activation_checkpointing": True}
    assert "Set training.activation_checkpointing to true: it then needs 4.00 GB" in found.fix
    tight = {"plan": {**PLAN, "available_bytes": 3_000_000_000}}
    assert diagnose(1, log, tight, kills={}).change == {}
    assert "smaller model" in diagnose(1, log, tight, kills={}).fix
    gpu = diagnose(1, written(tmp_path, LOGS["gpu memory"][0] + "\n"), {"plan": PLAN}, kills={})
    assert gpu.reason == "the GPU's memory was full" and "GB on the GPU were free" in gpu.fix


@pytest.mark.parametrize(
    ("code", "before", "now", "part"),
    [
        (-9, {"vmstat": 3}, {"vmstat": 4}, "the kernel killed the process because memory was full"),
        (None, {"vmstat": 3}, {"vmstat": 4}, "the kernel killed the process because memory was full"),
        (-9, {"vmstat": 3}, {"vmstat": 3}, "something killed the process (SIGKILL)"),
        (-9, {"vmstat": 3}, {"vmstat": 0}, "something killed the process (SIGKILL)"),  # the computer was restarted
        (-9, {"vmstat": 3}, {"events": 9}, "most often because memory was full"),
        (None, {"vmstat": 3}, {"vmstat": 3}, "the process disappeared"),
        (-11, {"vmstat": 3}, {"vmstat": 4}, "SIGSEGV"),
    ],
)
def test_the_kernels_count_decides(tmp_path: Path, code, before, now, part) -> None:
    environment = {"oom_kills": before, "plan": PLAN}
    found: Diagnosis = diagnose(code, written(tmp_path, HEAD), environment, kills=now)
    assert part in found.reason
    assert bool(found.change) == ("memory was full" in found.reason)


STEPS = "".join(f"12:01:{number:02d}  training  {number:>5} of 100   loss 1.9\n" for number in range(2, 50))
FULL = f"Traceback (most recent call last):\n{FRAME}OSError: [Errno 28] No space left on device\n"
TRACKER = "12:00:01  warning: wandb gets no more data from this run (ConnectionError: Max retries exceeded)\n"


@pytest.mark.parametrize("code", [-9, -15, -6, None])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{STEPS}{FULL}", "the disk was full"),
        (f"{FULL}{STEPS}", None),  # a library caught it, and the run went on
        (TRACKER, None),
    ],
)
def test_what_was_survived_is_no_cause(tmp_path: Path, code: int | None, text: str, reason: str | None) -> None:
    found = diagnose(code, written(tmp_path, text), kills={}).reason
    assert found == reason if reason else not any(cause.reason == found for cause in CAUSES)


def test_an_earlier_attempts_words_are_not_this_ones(tmp_path: Path) -> None:
    earlier = f"{STEPS}{FULL}12:02:00  failed: the disk was full\n"
    log = written(tmp_path, f"{earlier}12:10:00  resuming from step 50\n")
    begun = len(earlier.encode())
    assert "the disk was full" in diagnose(-15, log, kills={}).reason
    found = diagnose(-15, log, kills={}, start=begun)
    assert "SIGTERM" in found.reason and found.line == log.read_text().count("\n")
    assert from_exception(ValueError("odd"), log, start=begun).line is None
    log.write_text(FULL)  # cut meanwhile
    assert "the disk was full" in diagnose(-15, log, kills={}, start=begun).reason

"""Whether a model can be taken away as GGUF, told before it is trained: from config.json, tokenizer and tensor headers.

A child process rehearses the conversion without the weights (`studio.export.gguf.rehearsal`), some seconds with torch,
which this process never imports. The answer is kept with the environment, for any home, as long as converter,
checkpoint and rehearsal are the same. Where the converter is not installed nothing is claimed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from studio.models.inspect.headers import Tensor
from studio.models.inspect.tokenizerfiles import tokenizer_files
from studio.processes import child_environment, module_command
from studio.settings import Settings

_MODULE = "studio.export.gguf.rehearsal"
_PACKAGES = ("llama-cpp-python", "transformers", "tokenizers")
_PROOF = ("causes.py", "gates.py", "material.py", "model.py", "verify.py")  # what the rehearsal takes of it
_SECONDS = 180
# Printed before llama.cpp is asked to load the file, after it, and before it computes a small model of the same
# config: it may end the child instead of answering.
LOADING, LOADED, COMPUTING = "@loading", "@loaded", "@computing"
_AGAIN_SECONDS = 60.0  # until a question that could not be answered is asked again
_ASKING = threading.Lock()
_UNTOLD: dict[str, float] = {}


@dataclass(frozen=True)
class Obstacle:
    """Why a model cannot be taken away as GGUF.

    Attributes:
        reason: a word for programs: architecture, tokenizer, tokenizer_file, conversion, load, tokens,
            computing or arithmetic.
        what, fix: for a person.
    """

    reason: str
    what: str
    fix: str

    def finding(self) -> dict[str, Any]:
        """As a finding of a plan."""
        return {
            "level": "warning", "count": 0, "reason": f"gguf.{self.reason}", "fix": self.fix,
            "text": f"this model can be trained, but not exported to GGUF: {self.what}",
        }  # fmt: skip


def gguf_obstacle(folder: Path, raw: dict[str, Any], tensors: Sequence[Tensor], settings: Settings) -> Obstacle | None:
    """Say what keeps a model from becoming a GGUF; None for nothing, and where it cannot be told.

    Args:
        folder: with the model's tokenizer.
        raw: its config.json.
        tensors: what its weight files hold.
        settings: name the home, for when the environment cannot be written to.
    """
    request = {
        "folder": str(folder), "config": raw, "tensors": [[one.name, one.dtype, one.shape] for one in tensors],
    }  # fmt: skip
    name = f"{_key(folder, request)}.json"
    with _ASKING:  # one at a time: several plans of one model ask for the same
        kept = _kept(name, settings)
        if kept is None and time.monotonic() - _UNTOLD.get(name, -_AGAIN_SECONDS) >= _AGAIN_SECONDS:
            kept = _asked(request)
            if kept is None:
                _UNTOLD[name] = time.monotonic()
            else:
                _keep(name, kept, settings)
    return Obstacle(**kept) if kept else None


def _asked(request: dict[str, Any]) -> dict[str, str] | None:
    """The child's answer: {} for no obstacle, None where it could not tell."""
    environment = child_environment(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", GGML_NO_BACKTRACE="1")
    try:
        done = subprocess.run(
            module_command(_MODULE), input=json.dumps(request), capture_output=True, text=True, errors="replace",
            timeout=_SECONDS, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0:
        try:
            answer = json.loads(lines[-1])
            obstacle: dict[str, str] | None = answer["obstacle"] if answer["known"] else None
        except (ValueError, IndexError, KeyError, TypeError):
            return None
        return obstacle
    if COMPUTING in lines:
        what = "llama.cpp crashes while it computes a small random model with the same config"
        return asdict(Obstacle("computing", what, "Export after a run of one step first: the export shows for certain"))
    if LOADED in lines:  # it ended in a trial of what is no part of the model: nothing is known against that
        return {}
    if LOADING in lines:
        return asdict(Obstacle("load", "llama.cpp crashes while loading the converted file", ""))
    return None


def _key(folder: Path, request: dict[str, Any]) -> str:
    """What an answer depends on: the request, the tokenizer's files, the packages and our own code."""
    digest = hashlib.sha256(json.dumps({**request, "folder": ""}, sort_keys=True).encode())
    for package in _PACKAGES:
        try:
            digest.update(f"{package} {version(package)}\n".encode())
        except PackageNotFoundError:
            digest.update(f"{package} is missing\n".encode())
    code = Path(__file__).resolve().parents[2] / "export"
    ours = [*sorted((code / "gguf").glob("*.py")), *(code / "proof" / name for name in _PROOF)]
    for file in [*ours, *sorted(folder / path for path in tokenizer_files(folder))]:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _places(settings: Settings) -> tuple[Path, ...]:
    return Path(sys.prefix) / "share" / "finetune-studio" / "rehearsed", settings.home / "tools" / "rehearsed"


def _kept(name: str, settings: Settings) -> dict[str, str] | None:
    for place in _places(settings):
        try:
            value = json.loads((place / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(value, dict) and set(value) in (set(), {"reason", "what", "fix"}):
            return value
    return None


def _keep(name: str, value: dict[str, str], settings: Settings) -> None:
    for place in _places(settings):
        try:
            place.mkdir(parents=True, exist_ok=True)
            partial = place / f".{name}.{os.getpid()}"
            partial.write_text(json.dumps(value), encoding="utf-8")
            partial.replace(place / name)
        except OSError:
            continue
        return

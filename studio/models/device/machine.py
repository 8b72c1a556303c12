"""What this machine is: processor or GPU, memory, free disk, measured speed. Needs no torch itself.

The speed is measured once by a child process (`measure`) and kept in `device.json` under the studio's home until
torch or the processor changes. Memory is asked for at each call, and a container's limit counts, not the host's.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil

from studio.errors import StudioError
from studio.locks import locked, say_waiting
from studio.models.device import compiled, gpus
from studio.private import make_home
from studio.processes import child_environment, module_command
from studio.settings import Settings

Kind = Literal["cpu", "cuda", "mps"]
# bfloat16 must be this much faster before it is chosen: below, it only costs precision.
BF16_GAIN = 1.3
_CGROUP = Path("/sys/fs/cgroup")
_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")


# Before the first measurement: torch's CPU build on Linux.
IMPORT_BYTES = 400_000_000


@dataclass(frozen=True)
class DeviceInfo:
    """The device a run would use.

    Attributes:
        kind: "cpu", "cuda" or "mps". Before the first measurement a GPU shows as "cpu".
        name: of the processor or GPU.
        cores: processor cores this process may use.
        memory_bytes: memory of the device: the GPU's own for "cuda", else the machine's (or container's).
        available_bytes: how much of it is free now.
        free_disk: free bytes on the disk of the studio's home.
        gflops: measured speed of matrix products by dtype, GFLOP/s; empty before the first measurement.
        import_bytes: memory of its own that a process holds once it has imported the libraries of a training run.
        bf16_fast: whether bfloat16 is worth using: measured, or guessed from the processor's flags before that.
        capability: CUDA compute capability (major, minor); (0, 0) without a CUDA device.
        has_nvidia: whether there is an NVIDIA driver, which is known before the first measurement.
        compiled: whether a run has the fused kernels' compiled code (`device.compiled`).
    """

    kind: Kind
    name: str
    cores: int
    memory_bytes: int
    available_bytes: int
    free_disk: int
    gflops: dict[str, float] = field(default_factory=dict)
    bf16_fast: bool = False
    import_bytes: int = IMPORT_BYTES
    capability: tuple[int, int] = (0, 0)
    has_nvidia: bool = False
    compiled: bool = True

    @property
    def lacks_gpu(self) -> bool:
        """Whether it is known to have no NVIDIA GPU; before the first measurement only a missing driver says so."""
        return self.kind != "cuda" and (self.measured or not self.has_nvidia)

    @property
    def measured(self) -> bool:
        """Whether the speed is known."""
        return bool(self.gflops)


def device_info(settings: Settings, measure: bool = False, wanted: str = "any") -> DeviceInfo:
    """Describe this machine.

    Args:
        settings: `settings.home` holds the kept measurement and decides which disk counts.
        measure: measure now if no measurement of this torch on this processor is kept (about five seconds).
        wanted: option `training.device` of the run that is asked for: "cpu" leaves a GPU out of account, "cuda:1" takes
            that one's memory, "any" that of the GPU with the most free.

    Raises:
        StudioError: the measurement was asked for and torch could not be run, or somebody keeps its lock.
    """
    processor, flags = _processor()
    without = wanted == "cpu" or gpus.hidden()
    nvidia = _has_nvidia() and not without
    key = {"torch": _version("torch"), "processor": processor, "cores": cores(), "nvidia": nvidia}
    # The processor beside a GPU is measured and kept for itself.
    file = settings.home / ("device-cpu.json" if without and _has_nvidia() else "device.json")
    kept = _read(file, key)
    if kept is None and measure:
        make_home(settings.home)
        # One at a time: two measurements beside each other would both come out too low, and one is kept for good.
        with locked(file.with_suffix(".lock"), "the speed of this computer cannot be measured now", say_waiting):
            kept = _read(file, key)
            if kept is None:
                kept = _measure(without)
                _write(file, {"key": key, "measured": kept})
    return _describe(kept, processor, flags, settings, nvidia, wanted)


def cores() -> int:
    """Processor cores this process may use: its affinity, or a container's quota if that is smaller."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read_text(_CGROUP / "cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]):
        allowed = min(allowed, max(1, math.ceil(int(quota[0]) / int(quota[1]))))
    return allowed


def memory() -> tuple[int, int]:
    """Return (total, available) bytes of main memory, within a container's limit."""
    whole = psutil.virtual_memory()
    total, free = int(whole.total), int(whole.available)
    limit = _read_text(_CGROUP / "memory.max")
    if limit.isdigit() and int(limit) < total:
        used = _read_text(_CGROUP / "memory.current")
        total = int(limit)
        free = min(free, max(0, total - (int(used) if used.isdigit() else 0) + _reclaimable()))
    return total, free


def _describe(
    kept: dict[str, Any] | None, processor: str, flags: set[str], settings: Settings, nvidia: bool, wanted: str
) -> DeviceInfo:
    total, free = memory()
    place = next((path for path in (settings.home, *settings.home.parents) if path.exists()), Path("/"))
    kind: Kind = kept["kind"] if kept else "cpu"
    gflops = {str(name): float(speed) for name, speed in kept["gflops"].items()} if kept else {}
    loaded = int(kept.get("import_own_bytes", IMPORT_BYTES)) if kept else IMPORT_BYTES
    name = processor
    if kept and kind != "cpu":
        name = str(kept["name"])
    if kept and kind == "cuda":
        total, free = int(kept["memory_bytes"]), int(kept["free_bytes"])
        gpu = _gpu(wanted)
        if gpu is not None:
            name = gpu.name
            total, free = (gpu.memory_bytes, gpu.free_bytes) if gpu.memory_bytes else (total, free)
    if kept is None:
        fast = any(flag in flags for flag in _BF16_FLAGS)
    elif kept.get("bf16_native") is not None:
        fast = bool(kept["bf16_native"])
    else:
        fast = kind == "cpu" and gflops["bfloat16"] > BF16_GAIN * gflops["float32"]
    major, minor = (kept or {}).get("capability") or (0, 0)
    return DeviceInfo(
        kind, name, cores(), total, free, shutil.disk_usage(place).free, gflops, fast, loaded,
        (int(major), int(minor)), nvidia, compiled.expected(),
    )  # fmt: skip


def _measure(without_gpu: bool) -> dict[str, Any]:
    command = module_command("studio.models.device.measure")
    env = child_environment(**({gpus.VISIBLE: ""} if without_gpu else {}))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=env, check=False)
    except subprocess.TimeoutExpired as error:
        raise StudioError(
            "measuring this machine took over 3 minutes", fix="Close other programs and try again"
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StudioError(
            f"measuring this machine failed ({last})", fix="Check the installation of torch with `studio doctor`"
        )
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _read(file: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text())
        measured = content["measured"]
        whole = content["key"] == key and {"kind", "gflops", "import_own_bytes"} <= set(measured)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return measured if whole else None


def _write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".device-", delete=False) as handle:
        json.dump(content, handle, indent=1)
    Path(handle.name).replace(file)


def _processor() -> tuple[str, set[str]]:
    """Name and flags of the processor. The name alone may be as vague as "AMD EPYC", so its model numbers follow."""
    fields: dict[str, str] = {}
    for line in _read_text(Path("/proc/cpuinfo")).split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    model = fields.get("model name") or platform.processor() or platform.machine()
    numbers = "/".join(fields[name] for name in ("cpu family", "model", "stepping") if name in fields)
    return (f"{model} ({numbers})" if numbers else model), flags


def _has_nvidia() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/dxg").exists()


def _gpu(wanted: str) -> gpus.Gpu | None:
    """The GPU that is meant: the one of that number, or the one with the most free memory."""
    found = gpus.visible_gpus()
    number = wanted.partition(":")[2]
    if number:
        return found[int(number)] if int(number) < len(found) else None
    return max(found, key=lambda gpu: gpu.free_bytes, default=None)


def _reclaimable() -> int:
    """Bytes of file cache that the container's kernel gives back when memory is asked for."""
    for line in _read_text(_CGROUP / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file" and value.isdigit():
            return int(value)
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

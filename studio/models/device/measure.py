"""`python -m studio.models.device.measure`: how fast this machine multiplies matrices, as one JSON line.

A process of its own, because it needs torch and the page must not. Best of several runs, since another program
may be busy meanwhile; about a second besides the import. `device` keeps the result.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import psutil

# (tokens, inputs, outputs) of one product; the size of a block of a 1 B model on a CPU, large enough on a GPU.
_SHAPES = {"cpu": (1024, 1024, 2048), "cuda": (8192, 4096, 4096), "mps": (4096, 2048, 2048)}
_SECONDS = 0.4


def measure() -> dict[str, Any]:
    """Return what `device` keeps: kind, name, memory_bytes, free_bytes, gflops by dtype, capability and the two below.

    Memory and capability are those of the accelerator and None on a CPU. `bf16_native` is False on an older GPU, where
    bfloat16 is emulated, and None where the speed alone decides. `import_own_bytes` is what a process holds of its own
    with the libraries of a training run imported: a CUDA build of torch takes half a gigabyte more.
    """
    import torch

    kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    free, total = torch.cuda.mem_get_info() if kind == "cuda" else (None, None)
    name = torch.cuda.get_device_name() if kind == "cuda" else "Apple GPU" if kind == "mps" else ""
    gflops = {}
    for dtype in (torch.float32, torch.bfloat16):
        gflops[str(dtype).removeprefix("torch.")] = round(_speed(torch, kind, dtype), 1)
    loaded = _import_bytes()
    native = torch.cuda.is_bf16_supported(including_emulation=False) if kind == "cuda" else None
    return {
        "kind": kind, "name": name, "memory_bytes": total, "free_bytes": free, "gflops": gflops, "bf16_native": native,
        "import_own_bytes": loaded, "capability": torch.cuda.get_device_capability() if kind == "cuda" else None,
    }  # fmt: skip


def _import_bytes() -> int:
    from transformers import AutoModelForCausalLM  # noqa: F401 - imported to be measured
    from trl import SFTTrainer  # noqa: F401

    return own_bytes()


def own_bytes() -> int:
    """Resident bytes of this process without the pages of files that it has mapped.

    Those of the libraries are in the system's cache for all processes, and a job that was forked from one that has
    imported them counts only those that it touches itself.
    """
    now = psutil.Process().memory_info()
    return int(now.rss) - int(getattr(now, "shared", 0))


def _speed(torch: Any, kind: str, dtype: Any) -> float:
    """GFLOP/s of the fastest product within the time; the first two warm up."""
    tokens, inputs, outputs = _SHAPES[kind]
    x = torch.randn(tokens, inputs, device=kind, dtype=dtype)
    weight = torch.randn(outputs, inputs, device=kind, dtype=dtype)
    wait = {"cuda": torch.cuda.synchronize, "mps": getattr(torch, "mps", torch).synchronize if kind == "mps" else None}
    synchronize = wait.get(kind) or (lambda: None)
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        synchronize()
        times.append(time.perf_counter() - begin)
    return 2e-9 * tokens * inputs * outputs / min(times[2:])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure()) + "\n")

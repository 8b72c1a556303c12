"""The NVIDIA GPUs that a process may use, as the driver's own program lists them. Needs no torch.

Numbered as torch numbers them: cuda:0 is the first that CUDA_VISIBLE_DEVICES leaves visible. Without nvidia-smi no GPU
is known by name, and whoever asks leaves the choice to torch.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from dataclasses import dataclass

VISIBLE = "CUDA_VISIBLE_DEVICES"
_QUERY = ["--query-gpu=uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits"]
_MIB = 1024**2
# What nvidia-smi said last: on a busy machine it may answer late once, and the GPUs are still there then.
_last: list[Gpu] = []


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        id: what CUDA_VISIBLE_DEVICES takes for it.
        name: as the driver calls it.
        memory_bytes, free_bytes: its memory, and what is free of it now; 0 for a slice (MIG), which is not asked.
    """

    id: str
    name: str
    memory_bytes: int
    free_bytes: int


def hidden() -> bool:
    """Whether the environment hides every GPU from the programs that use CUDA."""
    return os.environ.get(VISIBLE, "0").split(",")[0].strip() in ("", "-1")


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that this process may use, in torch's numbering; none where nvidia-smi is not installed."""
    program = shutil.which("nvidia-smi")
    if program is None or hidden():
        return []
    try:
        done = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=5, check=True)
        _last[:] = _read(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        pass  # the last answer stands
    return numbered(_last, os.environ.get(VISIBLE))


def numbered(listed: list[Gpu], visible: str | None) -> list[Gpu]:
    """Choose and order GPUs as CUDA does; an unknown word hides what follows it.

    Args:
        listed: all GPUs in the driver's order.
        visible: value of CUDA_VISIBLE_DEVICES, None where it is not set.
    """
    if visible is None:
        return list(listed)
    found: list[Gpu] = []
    for word in (part.strip() for part in visible.split(",")):
        gpu = next((one for place, one in enumerate(listed) if _means(word, place, one)), None)
        if gpu is None and word.startswith("MIG-"):
            gpu = Gpu(word, "GPU slice (MIG)", 0, 0)
        if gpu is None or gpu in found:
            break
        found.append(gpu)
    return found


def _means(word: str, place: int, gpu: Gpu) -> bool:
    return word == str(place) or (word.startswith("GPU-") and gpu.id.startswith(word))


def _read(text: str) -> list[Gpu]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]
    return [Gpu(row[0], row[1], int(row[2]) * _MIB, int(row[3]) * _MIB) for row in rows]

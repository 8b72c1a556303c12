"""GPUs as nvidia-smi lists them: a program of that name on the PATH stands in for the driver's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.models.device import gpus
from studio.models.device import machine as device
from studio.models.device.gpus import Gpu, hidden, numbered, visible_gpus
from studio.settings import Settings

LISTED = """GPU-aaaa1111, NVIDIA H100 80GB HBM3, 81559, 81000
GPU-bbbb2222, NVIDIA H100 80GB HBM3, 81559, 4000
"""
FIRST = Gpu("GPU-aaaa1111", "NVIDIA H100 80GB HBM3", 81559 * 1024**2, 81000 * 1024**2)
SECOND = Gpu("GPU-bbbb2222", "NVIDIA H100 80GB HBM3", 81559 * 1024**2, 4000 * 1024**2)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi that prints what the file beside it says, and nothing else on the PATH."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    (tmp_path / "listed").write_text(LISTED)
    program.write_text(f'#!/bin/sh\nwhile read line; do echo "$line"; done < {tmp_path / "listed"}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    monkeypatch.setattr(gpus, "_last", [])
    return tmp_path / "listed"


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, [FIRST, SECOND]),
        ("1", [SECOND]),
        ("1,0", [SECOND, FIRST]),
        ("GPU-bbbb", [SECOND]),
        ("0,7,1", [FIRST]),  # CUDA does not see what follows an unknown one
        ("0,0", [FIRST]),
        ("", []),
    ],
)
def test_gpus_are_numbered_as_torch_numbers_them(visible: str | None, found: list[Gpu]) -> None:
    assert numbered([FIRST, SECOND], visible) == found


def test_a_slice_of_a_gpu_is_taken_at_its_word() -> None:
    (found,) = numbered([FIRST], "MIG-1234")
    assert (found.id, found.memory_bytes) == ("MIG-1234", 0)


def test_the_program_is_asked(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible_gpus() == [FIRST, SECOND]
    monkeypatch.setenv(gpus.VISIBLE, "1")
    assert visible_gpus() == [SECOND]
    for word in ("", "-1"):
        monkeypatch.setenv(gpus.VISIBLE, word)
        assert hidden() and visible_gpus() == []


def test_a_program_that_fails_once_takes_no_gpu_away(smi: Path) -> None:
    assert len(visible_gpus()) == 2
    for broken in ("Failed to initialize NVML", "GPU-aaaa1111, A GPU, many, 3"):
        smi.write_text(f"{broken}\n")
        assert visible_gpus() == [FIRST, SECOND]


def test_the_asked_for_gpu_says_its_memory(smi: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    result = {
        "kind": "cuda", "name": "A GPU", "memory_bytes": 1, "free_bytes": 1, "import_own_bytes": 1, "bf16_native": True,
        "gflops": {"float32": 50_000.0, "bfloat16": 700_000.0}, "capability": [9, 0],
    }  # fmt: skip
    asked: list[bool] = []

    def measure(without_gpu: bool) -> dict[str, object]:
        asked.append(without_gpu)
        return {**result, "kind": "cpu", "bf16_native": None} if without_gpu else result

    monkeypatch.setattr(device, "_measure", measure)
    monkeypatch.setattr(device, "_has_nvidia", lambda: True)
    assert device.device_info(settings, measure=True).available_bytes == FIRST.free_bytes
    assert device.device_info(settings, wanted="cuda:1").available_bytes == SECOND.free_bytes
    processor = device.device_info(settings, measure=True, wanted="cpu")
    assert (processor.kind, processor.has_nvidia) == ("cpu", False)
    assert processor.memory_bytes == device.memory()[0]
    assert device.device_info(settings).kind == "cuda", "each is kept for itself"
    assert asked == [False, True]
    assert json.loads((settings.home / "device-cpu.json").read_text())["measured"]["kind"] == "cpu"

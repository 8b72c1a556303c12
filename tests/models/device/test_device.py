"""The device is described without torch, and its measurement is kept until something changes."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from studio.models.device import machine as device
from studio.models.device.machine import device_info
from studio.models.device.measure import own_bytes
from studio.settings import Settings


def test_unmeasured_device_knows_memory_and_needs_no_torch(settings: Settings) -> None:
    info = device_info(settings)
    assert (info.kind, info.gflops, info.measured) == ("cpu", {}, False)
    assert 0 < info.available_bytes <= info.memory_bytes
    assert info.cores >= 1 and info.free_disk > 0 and info.name
    code = (
        "import sys; from studio.settings import read_settings; from studio.models.device.machine import device_info;"
        "import studio.models.plan.making; device_info(read_settings());"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.long
def test_measurement_is_made_once_and_kept(settings: Settings, monkeypatch) -> None:
    info = device_info(settings, measure=True)
    assert info.measured and set(info.gflops) == {"float32", "bfloat16"}
    assert all(speed > 0 for speed in info.gflops.values())
    if info.kind == "cpu":
        assert info.bf16_fast == (info.gflops["bfloat16"] > device.BF16_GAIN * info.gflops["float32"])
    monkeypatch.setattr(device, "_measure", lambda without_gpu: (_ for _ in ()).throw(AssertionError("measured twice")))
    again = device_info(settings, measure=True)
    assert (again.gflops, again.kind) == (info.gflops, info.kind)


def test_several_at_once_measure_once(settings: Settings, monkeypatch) -> None:
    made: list[int] = []
    gflops = {"float32": 100.0, "bfloat16": 110.0}

    def measure(without_gpu: bool) -> dict[str, object]:
        made.append(1)
        time.sleep(0.2)
        return {"kind": "cpu", "name": "", "gflops": gflops, "bf16_native": None, "import_own_bytes": 1}

    monkeypatch.setattr(device, "_measure", measure)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: device_info(settings, measure=True).gflops, range(4)))
    assert made == [1]
    assert found == [gflops] * 4


def test_other_processor_or_damage_is_measured_anew(settings: Settings, monkeypatch) -> None:
    made: list[int] = []
    result = {"kind": "cpu", "name": "", "gflops": {"float32": 100.0, "bfloat16": 110.0}, "bf16_native": None}

    def measure(without_gpu: bool) -> dict[str, object]:
        made.append(1)
        return result

    monkeypatch.setattr(device, "_measure", measure)
    assert not device_info(settings, measure=True).bf16_fast
    file = settings.home / "device.json"
    content = json.loads(file.read_text())
    content["key"]["processor"] = "another"
    file.write_text(json.dumps(content))
    device_info(settings, measure=True)
    file.write_text("{")
    device_info(settings, measure=True)
    assert len(made) == 3


def test_gpu_shows_its_own_memory(settings: Settings, monkeypatch) -> None:
    result = {
        "kind": "cuda", "name": "A GPU", "memory_bytes": 80 * 10**9, "free_bytes": 79 * 10**9,
        "gflops": {"float32": 50_000.0, "bfloat16": 700_000.0}, "bf16_native": True,
    }  # fmt: skip
    monkeypatch.setattr(device, "_measure", lambda without_gpu: result)
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    info = device_info(settings, measure=True)
    assert (info.kind, info.name, info.available_bytes, info.bf16_fast) == ("cuda", "A GPU", 79 * 10**9, True)


def test_container_limits_count(settings: Settings, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(device, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("700000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100000000\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert device.memory() == (1_000_000_000, 400_000_000)
    assert device.cores() == 1
    (tmp_path / "memory.max").write_text("max\n")
    assert device.memory()[0] > 1_000_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell them apart")
def test_own_memory_leaves_out_the_pages_of_files(tmp_path) -> None:
    size = 40_000_000
    file = tmp_path / "library"
    with file.open("wb") as handle:
        handle.truncate(size)
    process = psutil.Process()
    before, whole = own_bytes(), process.memory_info().rss
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ) as pages:
        assert not any(pages[at] for at in range(0, size, mmap.PAGESIZE))
        assert process.memory_info().rss - whole > 0.9 * size
        assert abs(own_bytes() - before) < 0.1 * size
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as made:
            for at in range(0, size, mmap.PAGESIZE):
                made[at] = 1
            assert own_bytes() - before == pytest.approx(size, rel=0.1)

"""The line on this machine at the foot of the left column: processor or GPU, memory, disk.

It shows the measured speed once there is one (`studio.models.device.machine` keeps it); it starts no measurement.
"""

from __future__ import annotations

from typing import Any

from studio.jobs.run.devices import ANY, Device, list_devices
from studio.models.device.machine import DeviceInfo, device_info
from studio.settings import Settings
from studio.ui.text import gigabytes

SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def device_line(settings: Settings) -> dict[str, Any]:
    """Return {"first", "second", "devices"}: two short lines of text, and one for each device if there are several."""
    devices = list_devices(settings)
    several = sum(device.slots for device in devices) > 1
    return describe(device_info(settings)) | {"devices": list(map(device_words, devices)) if several else []}


def device_words(device: Device) -> str:
    """What a device is called, and how many jobs it takes where that is more than one."""
    return f"{device.name} · {device.title}" + (f" · {device.slots} jobs at once" if device.slots > 1 else "")


def offered_devices(settings: Settings) -> list[tuple[str, str]]:
    """Return (label, word) of what the option `training.device` can be on this machine."""
    listed = [(device_words(device), device.name) for device in list_devices(settings)]
    return [("any · the first free one", ANY), *listed]


def describe(device: DeviceInfo) -> dict[str, str]:
    """Word the facts of a device; speed of the dtype that training would use, in GFLOP/s."""
    first = [f"CPU · {device.cores} cores" if device.kind == "cpu" else device.name]
    dtype = "bfloat16" if device.bf16_fast and "bfloat16" in device.gflops else next(iter(device.gflops), None)
    if dtype is not None:
        first.append(f"{SHORT.get(dtype, dtype)} {device.gflops[dtype]:,.0f} GFLOP/s")
    used, total = device.memory_bytes - device.available_bytes, device.memory_bytes
    return {
        "first": " · ".join(first),
        "second": f"memory {gigabytes(used)} of {gigabytes(total)} GB · {device.free_disk / 1e9:.0f} GB of disk free",
    }

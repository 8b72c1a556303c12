"""The devices of this machine that jobs run on, and which job takes which. Needs no torch.

Every job takes one place on one device. A training says which (`training.device`); evaluations and exports take any.
Without STUDIO_DEVICES the devices are the GPUs that the driver lists, and the processor. "any" is any of the GPUs, and
the processor only where there is no GPU: a run that asks for nothing must not land on the slow one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from studio.errors import InputError
from studio.jobs.store.request import ELSEWHERE_KINDS
from studio.models.device.gpus import VISIBLE, visible_gpus
from studio.models.device.machine import cores
from studio.settings import Settings

ANY, CPU = "any", "cpu"
# Of a job that runs elsewhere: it takes no place here.
NOWHERE = "none"


@dataclass(frozen=True)
class Device:
    """A device that jobs may be given.

    Attributes:
        name: as `training.device` calls it: "cpu" or "cuda:N".
        title: what it is.
        slots: how many jobs it takes at once.
        environment: what the process of a job on it finds in its environment.
    """

    name: str
    title: str
    slots: int = 1
    environment: dict[str, str] = field(default_factory=dict)


def list_devices(settings: Settings) -> list[Device]:
    """Return the devices that jobs may use here, GPUs first.

    A GPU that STUDIO_DEVICES names and that is not there is left out.
    """
    gpus = visible_gpus()
    found = {
        f"cuda:{number}": Device(f"cuda:{number}", gpu.name, environment={VISIBLE: gpu.id})
        for number, gpu in enumerate(gpus)
    }
    # Where no GPU is known by name there may still be one that torch finds (no nvidia-smi): it is not hidden.
    found[CPU] = Device(CPU, "processor", environment={VISIBLE: ""} if gpus else {})
    if not settings.devices:
        return list(found.values())
    return [_shared(found[name], slots) for name, slots in settings.devices if name in found]


def _shared(device: Device, slots: int) -> Device:
    """Give a device several places; each job on the processor gets its share of the cores."""
    environment = dict(device.environment)
    if device.name == CPU and slots > 1:
        environment["OMP_NUM_THREADS"] = str(max(1, cores() // slots))
    return Device(device.name, device.title, slots, environment)


def wanted_device(kind: str, config: dict[str, Any]) -> str:
    """Return what a job asks for: a device's name, "any", or "none" where it runs elsewhere."""
    if kind in ELSEWHERE_KINDS:
        return NOWHERE
    training = config.get("training") if kind == "train" else None
    asked = training.get("device") if isinstance(training, dict) else None
    return str(asked or ANY)


def environment_of(device: Device, wanted: str) -> dict[str, str]:
    """Return what the job's process finds in its environment; who asks for the processor sees no GPU at all."""
    return {**device.environment, **({VISIBLE: ""} if wanted == CPU else {})}


def assign(queued: list[tuple[str, str]], devices: list[Device], taken: list[str]) -> dict[str, Device]:
    """Say which waiting jobs can start, and where.

    In the order of the line each takes the first free place that it accepts. Who waits for a device that is busy or
    gone holds up nobody who wants another one.

    Args:
        queued: (id, device asked for), first in line first.
        devices: of this machine.
        taken: device of each job that runs; "" (not recorded) counts as the first device that takes any job.

    Returns:
        the device by id.
    """
    open_to_any = [device for device in devices if takes(device, ANY, devices)]
    first = open_to_any[0].name if open_to_any else ""
    busy = Counter(name or first for name in taken)
    found: dict[str, Device] = {}
    for job, wanted in queued:
        if wanted == NOWHERE:
            found[job] = Device(NOWHERE, "no device")
            continue
        for device in devices:
            if busy[device.name] < device.slots and takes(device, wanted, devices):
                found[job] = device
                busy[device.name] += 1
                break
    return found


def takes(device: Device, wanted: str, devices: list[Device]) -> bool:
    """Whether a device is what a job asks for.

    Args:
        device: the one in question.
        wanted: a device's name, or `ANY`: a GPU where there is one, else the CPU.
        devices: all of this machine.
    """
    if wanted == ANY:
        return device.name != CPU or all(one.name == CPU for one in devices)
    return device.name == wanted


def require_device(wanted: str, settings: Settings) -> None:
    """Check that a device is there.

    Raises:
        InputError: it is not; the sentence lists those that are.
    """
    devices = list_devices(settings)
    if any(takes(device, wanted, devices) for device in devices):
        return
    names = [device.name for device in devices]
    if not names:
        raise InputError(
            f"none of the devices in STUDIO_DEVICES is available ({', '.join(dict(settings.devices))})",
            where="STUDIO_DEVICES",
            fix="Use an available one, such as cpu, or leave it empty",
        )
    raise InputError(
        f"there is no device '{wanted}' here", where="training.device", fix=f"Set it to {' or '.join([ANY, *names])}"
    )

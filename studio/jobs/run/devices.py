"""The devices of this machine that jobs run on, and which job takes which. Needs no torch.

Every job takes one place on one device. A training says which (`training.device`), or takes several GPUs
(`training.devices`), whose numbers are those of this list; evaluations and exports take any. On the processor a run of
several processes takes one place, since they share its cores.
Without STUDIO_DEVICES the devices are the GPUs that the driver lists, and the processor. "any" is any of the GPUs, and
the processor only where there is no GPU: a run that asks for nothing must not land on the slow one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from studio.config.training import TrainingConfig
from studio.errors import InputError
from studio.jobs.store.request import ELSEWHERE_KINDS
from studio.models.device.gpus import VISIBLE, visible_gpus
from studio.models.device.machine import cores
from studio.settings import Settings

ANY, CPU = "any", "cpu"
# "any*2" asks for two of them, "cuda:0,cuda:2" for these.
TIMES, AND = "*", ","
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
    """Return what a job asks for: a device's name, "any", several of either, or "none" where it runs elsewhere."""
    if kind in ELSEWHERE_KINDS:
        return NOWHERE
    training = config.get("training") if kind == "train" else None
    if not isinstance(training, dict):
        return ANY
    asked, several = str(training.get("device") or ANY), str(training.get("devices") or "auto")
    if several.startswith("["):
        return AND.join(f"cuda:{number.strip()}" for number in several.strip("[]").split(","))
    return f"{asked}{TIMES}{several}" if asked == ANY and several not in ("auto", "1") else asked


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
    busy = Counter(one for name in taken for one in (name or first).split(AND))
    found: dict[str, Device] = {}
    for job, wanted in queued:
        if wanted == NOWHERE:
            found[job] = Device(NOWHERE, "no device")
            continue
        free = [one for one in devices if busy[one.name] < one.slots and takes(one, wanted, devices)]
        many = how_many(wanted, free)
        if len(free) >= many:
            busy.update(one.name for one in free[:many])
            found[job] = free[0] if many == 1 else _joined(free[:many])
    return found


def how_many(wanted: str, devices: list[Device]) -> int:
    """How many of the devices that it may have a job takes; of the processor always one place.

    Args:
        wanted: what it asks for.
        devices: that it may have.
    """
    if all(device.name == CPU for device in devices):
        return 1
    return int(wanted.partition(TIMES)[2] or 1) * len(wanted.split(AND))


def _joined(devices: list[Device]) -> Device:
    """Several GPUs as one that a job is given."""
    ids = [device.environment[VISIBLE] for device in devices if VISIBLE in device.environment]
    name, title = AND.join(device.name for device in devices), f"{len(devices)} GPUs"
    return Device(name, title, environment={VISIBLE: ",".join(ids)} if len(ids) == len(devices) else {})


def takes(device: Device, wanted: str, devices: list[Device]) -> bool:
    """Whether a device is what a job asks for, or one of those.

    Args:
        device: the one in question.
        wanted: a device's name, or `ANY`: a GPU where there is one, else the CPU; or several.
        devices: all of this machine.
    """
    if wanted.partition(TIMES)[0] == ANY:
        return device.name != CPU or all(one.name == CPU for one in devices)
    return device.name in wanted.split(AND)


def require_devices(training: TrainingConfig, settings: Settings, one_of_several: bool = False) -> None:
    """Check that the devices of a training are there, and cores for its processes.

    Args:
        training: section of the run.
        settings: which devices may be used.
        one_of_several: this machine has its part of a run of several; else all of the run is to be computed here.

    Raises:
        InputError: one is missing; the sentence says what there is.
    """
    if training.nodes > 1 and not one_of_several:
        raise InputError(
            f"this run uses {training.nodes} machines, which cannot be started from here", where="training.nodes",
            fix="Use studio launch --to slurm or --to torchrun, or set it to 1",
        )  # fmt: skip
    wanted = wanted_device("train", {"training": training.model_dump()})
    if not training.device_ids:
        require_device(training.device, settings)
    ranks, devices = training.ranks_here, list_devices(settings)
    gpus = [device.name for device in devices if device.name != CPU]
    here = f"there {'are' if len(gpus) > 1 else 'is'} {', '.join(gpus) or 'no GPU'} here"
    if training.device_ids:
        if training.device != ANY:
            raise InputError(
                f"training.device is {training.device}, but training.devices lists GPUs", where="training.devices",
                fix="Leave training.device at any, or training.devices at auto",
            )  # fmt: skip
        if missing := [name for name in wanted.split(AND) if name not in gpus]:
            raise InputError(
                f"there is no {' and no '.join(missing)}: {here}", where="training.devices",
                fix="List available GPUs" if gpus else "Set it to auto, or to a number of processes on the CPU",
            )  # fmt: skip
        return
    if ranks == 1:
        return
    if training.device not in (ANY, CPU):
        raise InputError(
            f"training.device is {training.device}, which is one device, but training.devices is {ranks}",
            where="training.devices", fix="Set it to auto, or training.device to any",
        )  # fmt: skip
    if gpus and training.device == ANY:
        if ranks > len(gpus):
            raise InputError(
                f"{ranks} devices were requested, but {here}", where="training.devices",
                fix=f"Set it to {len(gpus)} or less, or training.device to cpu",
            )  # fmt: skip
    elif ranks > cores():
        raise InputError(
            f"{ranks} processes were requested, but this computer has {cores()} cores to compute with",
            where="training.devices", fix=f"Set it to {cores()} or less, or to auto",
        )  # fmt: skip


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

"""The machines of a run that several compute: what its folder says of them, and by which address they are reached.

They share the job's folder. `machines.json` in it is written by whoever launches the run; the first machine adds, at
each start, where it listens (`meeting`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import socket
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil

import studio
from studio.errors import InputError
from studio.jobs.store.files import read_json, write_json
from studio.processes import module_command
from studio.train.ranks.ends import FOLDER

FILE = "machines.json"
LOOPBACK = "127.0.0.1"
#: In the environment: names of the other machines, so that the first one finds the address by which they reach it.
OTHERS = "STUDIO_OTHER_MACHINES"
_PACKAGE = Path(studio.__file__).resolve().parent


@dataclass(frozen=True)
class Asked:
    """How the machines of a run are to meet.

    Attributes:
        host: address of the first machine at which it listens; "" to find it out.
        port: at which it listens; 0 for any that is free.
        wait: seconds that the machines wait for each other.
        by_hand: whether a person starts each of them, and must be told how.
    """

    host: str = ""
    port: int = 0
    wait: float = 600.0
    by_hand: bool = False


def write_asked(job: Path, asked: Asked) -> None:
    """Say in a job's folder how its machines are to meet."""
    write_json(job / FILE, asdict(asked))


def read_asked(job: Path) -> Asked:
    """How the machines of a job are to meet.

    Raises:
        InputError: the job was not launched for several machines.
    """
    try:
        raw = read_json(job / FILE)
    except ValueError:
        raw = None
    if not isinstance(raw, dict):
        raise InputError(
            "this run uses several machines and was not launched on them", where="training.nodes",
            fix="Use studio launch --to slurm or --to torchrun, or set it to 1",
        )  # fmt: skip
    known = {one.name for one in fields(Asked)}
    return Asked(**{key: value for key, value in raw.items() if key in known})


def joining_line(job: Path, number: int, home: Path) -> str:
    """The command line that starts another machine's part of a run, on that machine.

    Args:
        job: the job's folder.
        number: of the machine, from 1.
        home: the STUDIO_HOME.
    """
    command = module_command("studio.train.ranks.joining", str(job), str(number))
    return shlex.join(["env", f"STUDIO_HOME={home}", f"PYTHONPATH={_PACKAGE.parent}", *command])


def log_of_machine(job: Path, number: int) -> Path:
    """What another machine's launcher says."""
    return job / FOLDER / f"machine-{number}.log"


def versions() -> dict[str, Any]:
    """What must be the same on all machines: versions, and a digest of this package's code."""
    from importlib.metadata import version

    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return {"studio": studio.__version__, "torch": version("torch"), "code": digest.hexdigest()}


def difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """What differs of another machine's versions, as a clause; "" for nothing.

    Args:
        there, here: as `versions`.
    """
    for name in ("studio", "torch"):
        if there.get(name) != here[name]:
            return f"has {name} {there.get(name)}, and the first one {here[name]}"
    return "" if there.get("code") == here["code"] else f"has other files of the studio {here['studio']}"


def own_address() -> str:
    """The address at which the other machines, whose names are in the environment, reach this one."""
    own = {socket.gethostname(), os.environ.get("SLURMD_NODENAME", "")}
    for name in os.environ.get(OTHERS, "").split():
        if name not in own and (found := _towards(name)):
            return found
    return LOOPBACK


def _towards(name: str) -> str:
    """This machine's address on the way to another one; "" where there is no way. Nothing is sent."""
    with contextlib.suppress(OSError):
        family, kind, _, _, there = socket.getaddrinfo(name, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(there)
            return str(probe.getsockname()[0])
    return ""


def interface_towards(host: str) -> str:
    """Name of the interface by which this machine reaches another one; "" where it is not known."""
    own = _towards(host)
    for name, found in psutil.net_if_addrs().items():
        if any(one.address == own for one in found):
            return str(name)
    return ""


def addresses() -> list[str]:
    """This machine's IPv4 addresses, those that other machines may reach before the loopback."""
    found = [
        one.address for each in psutil.net_if_addrs().values() for one in each if one.family == socket.AF_INET
    ]  # fmt: skip
    return sorted(found, key=lambda one: one.startswith("127."))

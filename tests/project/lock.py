"""`python -m tests.project.lock [--check]`: constraints.txt, the versions that were tested together.

`make lock` writes it. It names all that the studio with its demo and tests needs on Linux without a GPU. torch keeps
pyproject.toml's range, so that each machine takes the build for its own devices; what only torch asks for (triton,
nvidia-*, sympy) is torch's to choose.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "constraints.txt"
HEAD = """\
# The versions that were tested together: Linux, no GPU, Python 3.11 and 3.13. Written by `make lock`.
# torch is a range on purpose: its build depends on the machine.
"""
# Kept as pyproject.toml has it, and not followed.
RANGE = "torch"
# A virtual environment's own, which torch bounds (setuptools) and `make install` updates (pip).
TOOLS = {"pip", "setuptools"}
EXTRAS = ("demo", "test")
# Where the lock holds. What only another of them needs is kept as it is, since it is not installed here.
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
SYSTEMS = [{**LINUX, "python_version": name, "python_full_version": f"{name}.0"} for name in ("3.11", "3.13")]


@dataclass
class Needed:
    """What the project needs: versions of what is installed here, names of what only another system in SYSTEMS has."""

    here: dict[str, str] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    lacking: set[str] = field(default_factory=set)


def declared(project: dict[str, Any]) -> list[Requirement]:
    """The requirements of pyproject.toml, with those of the extras that are tested."""
    extras = project["project"]["optional-dependencies"]
    return [Requirement(one) for one in (*project["project"]["dependencies"], *(r for e in EXTRAS for r in extras[e]))]


def needed(requirements: list[Requirement]) -> Needed:
    """Follow what is asked for through what is installed, as far as torch; the same is followed once."""
    return _followed(tuple(map(str, requirements)))


@cache
def _followed(lines: tuple[str, ...]) -> Needed:
    found, seen = Needed(), set()
    waiting = [(Requirement(line), "") for line in lines]
    while waiting:
        one, extra = waiting.pop()
        name = canonicalize_name(one.name)
        mark = one.marker
        if name in TOOLS or not (mark is None or any(mark.evaluate({**at, "extra": extra}) for at in SYSTEMS)):
            continue
        try:
            if name != RANGE:
                found.here[name] = version(name)
        except PackageNotFoundError:
            here = mark is None or mark.evaluate({"extra": extra})
            (found.lacking if here else found.elsewhere).add(name)
            continue
        asked = {(name, extra) for extra in ("", *one.extras)} - seen
        seen |= asked
        if name != RANGE:
            waiting += [(Requirement(line), extra) for _, extra in asked for line in requires(name) or []]
    return found


def read_lock(text: str) -> dict[str, str]:
    """The lock's lines by name: `name==version`, or torch's range."""
    lines = (line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {canonicalize_name(re.split(r"[=<>!~ ]", line)[0]): line for line in lines}


def problems(project: dict[str, Any], text: str) -> Iterator[str]:
    """Say each way in which the lock is not that of pyproject.toml and of what is installed."""
    requirements, lock = declared(project), read_lock(text)
    found = needed(requirements)
    by_name = {canonicalize_name(one.name): one for one in requirements}
    expected = f"{RANGE}{by_name[RANGE].specifier}"
    if lock.pop(RANGE, None) != expected:
        yield f"{RANGE} has to stand as {expected}, as in pyproject.toml"
    yield from (f"{name} is needed and not installed" for name in sorted(found.lacking))
    yield from (f"{name} is needed and not locked" for name in sorted({*found.here, *found.elsewhere} - {*lock}))
    yield from (f"{name} is locked and nothing needs it" for name in sorted({*lock} - {*found.here, *found.elsewhere}))
    for name, line in lock.items():
        pinned = re.fullmatch(r"[\w.-]+==([\w.]+)", line)
        if pinned is None:
            yield f"{line}: not a version that every machine can take (name==version)"
        elif name in found.here and Version(pinned[1]) != Version(found.here[name]):
            yield f"{line}: {found.here[name]} is installed"
        elif name in by_name and pinned[1] not in by_name[name].specifier:
            yield f"{line}: pyproject.toml asks for {by_name[name]}"


def written(project: dict[str, Any], text: str) -> str:
    """The lock of what is installed here; what only another Python needs keeps its line."""
    requirements, before = declared(project), read_lock(text)
    found = needed(requirements)
    lines = {name: f"{name}=={Version(has).public}" for name, has in found.here.items()}
    lines |= {name: before[name] for name in found.elsewhere & before.keys()}
    lines |= {one.name: f"{one.name}{one.specifier}" for one in requirements if one.name == RANGE}
    return HEAD + "".join(f"{lines[name]}\n" for name in sorted(lines))


def main(arguments: list[str]) -> int:
    """Write the lock, or with `--check` say what is wrong with it; returns 1 where something is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if "--check" not in arguments:
        LOCK.write_text(written(project, LOCK.read_text(encoding="utf-8")), encoding="utf-8")
    said = list(problems(project, LOCK.read_text(encoding="utf-8")))
    print("".join(f"{LOCK.name}: {one}\n" for one in said) + ("Write it with `make lock`.\n" if said else ""), end="")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

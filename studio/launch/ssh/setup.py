"""Getting a machine ready: what it has, a folder of our own, and the studio in an environment there.

Everything lies below one folder: `venvs` (an environment for each version of the studio), `files` (data and models by
their SHA-256) and `home`, the STUDIO_HOME there. Nothing outside of it is written, and nothing needs root.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import __version__
from studio.errors import InputError, StudioError
from studio.launch.ssh import wheel
from studio.launch.ssh.machine import Machine

#: A run needs Python of this version; two numbers.
PYTHON = (3, 11)
# Bytes: of the libraries, torch with CUDA among them, and what a run needs beside its files.
INSTALL_BYTES, SPARE_BYTES = 10_000_000_000, 500_000_000
_INSTALL_SECONDS = 3600.0
_MARK = "studio:"
_NO_VENV = 71
# POSIX sh. A login shell may print what it likes, also without an end of line: our lines begin with a mark.
_PROBE = r"""
echo
umask 077
case "$F" in /*) ;; *) F="$HOME/$F" ;; esac
say() { printf 'studio:%s=%s\n' "$1" "$2"; }
say folder "$F"
mkdir -p "$F/wheels" "$F/venvs" "$F/files" "$F/home" 2>/dev/null
if ( : > "$F/.probe" ) 2>/dev/null; then rm -f "$F/.probe"; say writable 1; fi
say free "$(df -Pk "$F" 2>/dev/null | awk 'NR==2 {print $4}')"
if [ -n "$P" ]; then set -- "$P"; else set -- python3 python3.14 python3.13 python3.12 python3.11 python; fi
for p in "$@"; do
  q=$(command -v "$p" 2>/dev/null) || continue
  v=$("$q" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
  say python "$v $q"
done
case "$(rsync --version 2>/dev/null | head -n 1)" in *"version 3"*) say rsync 1 ;; esac
command -v nvidia-smi >/dev/null 2>&1 && say gpu 1
exit 0
"""


# Runs a shell once nobody else installs the same there; the lock ends with the shell's last process.
_ALONE = """
import fcntl, os, sys
file = open(sys.argv[1], "w")
os.set_inheritable(file.fileno(), True)
try:
    fcntl.flock(file, fcntl.LOCK_EX)
except OSError:  # a file system without locks
    pass
os.execvp("sh", ["sh", "-s"])
"""


@dataclass(frozen=True)
class Found:
    """What a machine has.

    Attributes:
        folder: ours, absolute.
        python: absolute path of a Python that is new enough.
        free: bytes on the folder's disk; None where it does not say.
        rsync: whether it has rsync, version 3 (macOS has another program of that name).
        gpu: whether it has an NVIDIA driver.
    """

    folder: str
    python: str
    free: int | None
    rsync: bool
    gpu: bool

    @property
    def home(self) -> str:
        """The STUDIO_HOME there."""
        return f"{self.folder}/home"

    @property
    def files(self) -> str:
        """Where data and models lie, by SHA-256."""
        return f"{self.folder}/files"


def probe(machine: Machine, python: str | None = None) -> Found:
    """Look at a machine, and make the studio's folder there.

    Args:
        machine: that is reached.
        python: the Python that is to be used; None for any that is new enough.

    Raises:
        InputError: it has no such Python, or the folder cannot be written.
        StudioError: as `Machine.run`.
    """
    values = f"F={shlex.quote(machine.address.folder)}; P={shlex.quote(python or '')}\n"
    code, out, errors = machine.run("sh -s", given=(values + _PROBE).encode(), seconds=60)
    told: dict[str, list[str]] = {}
    for line in out.decode("utf-8", errors="replace").splitlines():
        if line.startswith(_MARK):
            key, _, value = line.removeprefix(_MARK).partition("=")
            told.setdefault(key, []).append(value)
    if "folder" not in told:
        said = (errors.strip().splitlines() or [f"exit status {code}"])[-1]
        raise InputError(
            f"{machine.shown} runs no commands of a POSIX shell ({said})", where="--to",
            fix="Use a machine with Linux or macOS, and an account with a shell",
        )  # fmt: skip
    folder = told["folder"][0]
    if "writable" not in told:
        raise InputError(
            f"the folder {folder} on {machine.shown} cannot be written", where="--to",
            fix="Name another one: ssh://host/folder",
        )  # fmt: skip
    free = told.get("free", [""])[0]
    return Found(
        folder, _python(told.get("python", []), machine, python), int(free) * 1024 if free.isdigit() else None,
        "rsync" in told, "gpu" in told,
    )  # fmt: skip


def _python(told: list[str], machine: Machine, asked: str | None) -> str:
    wanted = ".".join(map(str, PYTHON))
    found = [(version, path) for version, _, path in (one.partition(" ") for one in told)]
    for version, path in found:
        if tuple(map(int, version.split("."))) >= PYTHON:
            return path
    if asked:
        what = f"Python {found[0][0]}, which is too old" if found else "no Python that starts"
        raise InputError(
            f"{asked} on {machine.shown} is {what}", where="--python", fix=f"Name a Python {wanted} or newer there"
        )
    what = f"only Python {', '.join(dict.fromkeys(version for version, _ in found))}" if found else "no Python"
    raise InputError(
        f"{machine.shown} has {what}", where="--to",
        fix=f"Install Python {wanted} or newer there, or name one with --python",
    )  # fmt: skip


def require_room(machine: Machine, found: Found, needed: int) -> None:
    """Refuse to begin what the disk there has no room for.

    Args:
        machine: the machine.
        found: of `probe`.
        needed: bytes.

    Raises:
        StudioError: there is less.
    """
    if found.free is not None and found.free < needed + SPARE_BYTES:
        raise StudioError(
            f"the disk of {found.folder} on {machine.shown} has {found.free / 1e9:.1f} GB free, "
            f"and {(needed + SPARE_BYTES) / 1e9:.1f} GB are needed",
            where="--to", fix="Free some space there, or name a folder on another disk: ssh://host/folder",
        )  # fmt: skip


def no_room(machine: Machine, folder: str) -> StudioError:
    """The error for a disk there that became full."""
    return StudioError(
        f"the disk of {folder} on {machine.shown} is full", where="--to",
        fix="Free some space there, or name a folder on another disk: ssh://host/folder",
    )  # fmt: skip


class Studio:
    """The studio on a machine.

    Args:
        machine: where.
        found: what it has.
        python: that has the studio.
    """

    def __init__(self, machine: Machine, found: Found, python: str) -> None:
        self.machine, self.found, self.python = machine, found, python

    def command(self, operation: str) -> str:
        """The command line of an operation of `studio.launch.ssh.there`."""
        home, python = shlex.quote(f"STUDIO_HOME={self.found.home}"), shlex.quote(self.python)
        run = f"exec env {home} {python} -m studio.launch.ssh.there {operation}"
        return f"cd {shlex.quote(self.found.folder)} && {run}"

    def ask(
        self,
        operation: str,
        given: dict[str, Any],
        *,
        seconds: float = 120,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Have an operation done there, and return its answer.

        Args:
            operation: of `there`.
            given: its argument.
            seconds: it may take.
            meanwhile: called now and then; an exception of it ends the waiting.

        Raises:
            BrokenError: the machine cannot be reached now.
            InputError, StudioError: what the studio there says, in its words.
        """
        code, out, errors = self.machine.run(
            self.command(operation), given=json.dumps(given).encode(), seconds=seconds, meanwhile=meanwhile
        )
        answer = _last_object(out)
        if answer is None:
            said = (errors.strip().splitlines() or [f"exit status {code}"])[-1]
            if "No space left" in errors:
                raise no_room(self.machine, self.found.folder)
            raise StudioError(
                f"the studio on {self.machine.shown} does not respond ({said})", where="--to",
                fix=f"Look there: {self.python} -m studio doctor",
            )  # fmt: skip
        if isinstance(error := answer.get("error"), dict):
            kind = InputError if error.get("exit_code") == InputError.exit_code else StudioError
            raise kind(
                f"{error.get('what', '')} (on {self.machine.shown})", where=str(error.get("where", "")),
                fix=str(error.get("fix", "")),
            )  # fmt: skip
        return answer


def ready(machine: Machine, found: Found, python: str | None, report: Callable[[str], None]) -> Studio:
    """Return the studio of a machine: that of `python`, or one that is installed there now.

    Args:
        machine: the machine.
        found: of `probe`.
        python: a Python there that has the studio; None to have one installed below our folder.
        report: told what is being done.

    Raises:
        InputError: `python` has no studio, or another version of it.
        StudioError: it cannot be installed, or as `Machine.run`.
    """
    if python:
        studio = Studio(machine, found, found.python)
        _require_version(studio)
        return studio
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / wheel.name()
        digest = wheel.make_wheel(file)
        place = f"{found.folder}/venvs/{digest[:12]}"
        studio = Studio(machine, found, f"{place}/bin/python")
        code, _, _ = machine.run(f"test -f {shlex.quote(f'{place}/.installed')}", seconds=60)
        if code != 0:
            report("installing the studio there")
            require_room(machine, found, INSTALL_BYTES)
            _install(machine, found, file, place)
    _require_version(studio)
    return studio


def _install(machine: Machine, found: Found, file: Path, place: str) -> None:
    inner = f"{found.folder}/wheels/{place.rpartition('/')[2]}"
    with file.open("rb") as opened:
        put(machine, opened, f"{inner}/{file.name}")
    put(machine, wheel.constraints().encode(), f"{inner}/constraints.txt")
    parts = ",".join([*wheel.extras(), *(["cuda"] if found.gpu else [])])
    asked = f"{inner}/{file.name}" + (f"[{parts}]" if parts else "")
    v, pip = shlex.quote(place), f"{shlex.quote(f'{place}/bin/python')} -m pip install --disable-pip-version-check"
    made = shlex.quote(f"{place}/.installed")
    script = (
        f"umask 077; [ -f {made} ] && exit 0\n"
        f"rm -rf {v}\n{shlex.quote(found.python)} -m venv {v} >&2 || {{ rm -rf {v}; exit {_NO_VENV}; }}\n"
        f"{pip} --quiet -c {shlex.quote(f'{inner}/constraints.txt')} {shlex.quote(asked)} >&2 || exit 1\n"
        f": > {made}\n"
    )
    alone = shlex.join([found.python, "-c", _ALONE, f"{place}.lock"])
    code, _, errors = machine.run(alone, given=script.encode(), seconds=_INSTALL_SECONDS)
    if code == 0:
        return
    if "No space left" in errors:
        raise no_room(machine, found.folder)
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    said = next(
        (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else f"status {code}"
    )
    if code == _NO_VENV:
        raise StudioError(
            f"{found.python} on {machine.shown} cannot make an environment ({said})", where="--to",
            fix="Install its venv there (Debian and Ubuntu: apt-get install python3-venv), or name another --python",
        )  # fmt: skip
    raise StudioError(
        f"the studio cannot be installed on {machine.shown} ({said})", where="--to",
        fix="See the log; install it there by hand and name its Python with --python",
    )  # fmt: skip


def put(machine: Machine, content: Any, path: str) -> None:
    """Write a file there, whole or not at all.

    Args:
        machine: the machine.
        content: bytes, or an open file.
        path: absolute, below our folder.

    Raises:
        StudioError: it cannot be written.
    """
    folder, target = (shlex.quote(one) for one in (path.rpartition("/")[0], path))
    part = f"{target}.part.$$"  # its own: two runs may write the same at once
    command = f"umask 077; mkdir -p {folder} && cat > {part} && mv -f {part} {target}"
    code, _, errors = machine.run(command, given=content, seconds=_INSTALL_SECONDS)
    if code != 0:
        if "No space left" in errors:
            raise no_room(machine, path)
        said = (errors.strip().splitlines() or [f"status {code}"])[-1]
        raise StudioError(f"{path} on {machine.shown} cannot be written ({said})", where="--to", fix="Check the folder")


def _require_version(studio: Studio) -> None:
    code, out, errors = studio.machine.run(
        f"{shlex.quote(studio.python)} -c 'import studio.launch.ssh; print(); print(\"{_MARK}\" + studio.__version__)'",
        seconds=60,
    )
    lines = [line for line in out.decode(errors="replace").splitlines() if line.startswith(_MARK)]
    if code != 0 or not lines:
        said = (errors.strip().splitlines() or [f"status {code}"])[-1]
        raise InputError(
            f"{studio.python} on {studio.machine.shown} has no studio ({said})", where="--python",
            fix="Install it there (pip install finetune-studio), or omit --python, and the studio installs itself",
        )  # fmt: skip
    version = lines[-1].removeprefix(_MARK)
    if version != __version__:
        raise InputError(
            f"{studio.python} on {studio.machine.shown} has version {version} of the studio, and this is {__version__}",
            where="--python", fix="Install the same version there, or omit --python, and the studio installs itself",
        )  # fmt: skip


def _last_object(out: bytes) -> dict[str, Any] | None:
    for line in reversed(out.decode("utf-8", errors="replace").splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    return None

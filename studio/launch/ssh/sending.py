"""Parcels on their way to the other machine: those that are not there yet, by rsync or as tar archives.

A parcel arrives under another name and gets its own once its SHA-256 was found there to be right, so that a broken
connection leaves nothing that looks whole; rsync goes on where it was cut off.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable
from typing import IO

from studio.errors import StudioError
from studio.launch.ssh.machine import BrokenError, Machine, explained, wait_for
from studio.launch.ssh.parcel import PARCEL, Parcel
from studio.launch.ssh.setup import Studio, no_room, require_room

# Seconds for one parcel; that the connection lives is ssh's to say.
_LONG = 7 * 24 * 3600.0
_RSYNC_BROKEN = (10, 12, 30, 35, 255)


def send_parcels(
    studio: Studio, parcels: list[Parcel], report: Callable[[str, float, float | None], None],
    meanwhile: Callable[[], None] = lambda: None,
) -> int:  # fmt: skip
    """Send what is not there yet.

    Args:
        studio: on the other machine.
        parcels: that must be there.
        report: told what is being done, bytes of it, and all bytes.
        meanwhile: called now and then; an exception of it ends the sending.

    Returns:
        bytes that were sent.

    Raises:
        BrokenError: the connection broke; what has arrived is used next time.
        StudioError: no room there, or a parcel does not arrive as it left.
    """
    absent = _absent(studio, parcels, meanwhile)
    size = sum(one.bytes for one in absent)
    if not absent:
        return 0
    require_room(studio.machine, studio.found, size)
    done = 0.0
    for parcel in absent:
        report("copying files", done / 1e6, size / 1e6)
        if uses_rsync(studio):
            _by_rsync(studio, parcel, meanwhile)
        else:
            _by_tar(studio, parcel, meanwhile)
        done += parcel.bytes
    report("copying files", done / 1e6, size / 1e6)
    if left := _absent(studio, absent, meanwhile):
        raise StudioError(
            f"{left[0].source} arrived with other contents: it was changed while it was copied", where="--to",
            fix="Leave the file alone until it is copied, and resume the run",
        )  # fmt: skip
    return size


def uses_rsync(studio: Studio) -> bool:
    """Whether both machines have rsync of version 3; other programs of that name lack what is needed."""
    if not studio.found.rsync or shutil.which("rsync") is None:
        return False
    done = subprocess.run(["rsync", "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "version 3" in done.stdout.partition("\n")[0]


def _absent(studio: Studio, parcels: list[Parcel], meanwhile: Callable[[], None]) -> list[Parcel]:
    if not parcels:
        return []
    digests = [one.digest for one in parcels]
    found = studio.ask("settle", {"parcels": digests}, seconds=_LONG, meanwhile=meanwhile)["absent"]
    return [one for one in parcels if one.digest in found]


def _by_rsync(studio: Studio, parcel: Parcel, meanwhile: Callable[[], None]) -> None:
    """Links of a folder are followed: a checkpoint in the Hub's cache consists of them."""
    target = f"{studio.found.files}/{parcel.digest}{PARCEL}"
    folder = parcel.source.parent
    listed = "".join(f"{inner}\0" for inner, _ in parcel.files).encode(errors="surrogateescape")
    run_rsync(
        studio.machine, [], [f"{folder}/", studio.machine.rsync_place(target)], listed, meanwhile, before=target,
    )  # fmt: skip


def run_rsync(
    machine: Machine, options: list[str], places: list[str], listed: bytes, meanwhile: Callable[[], None],
    before: str = "", full: Callable[[], Exception] | None = None,
) -> None:  # fmt: skip
    """Have rsync copy some files between two folders.

    Args:
        machine: the other machine.
        options: beside those that every copy has.
        places: from where and to where.
        listed: the files' paths, each with a NUL behind it.
        meanwhile: called now and then; an exception of it ends the copying.
        before: folder there that is made first; "" for none.
        full: makes the error for a full disk; by default it is the one there.

    Raises:
        BrokenError: the connection broke.
        StudioError: a disk is full, or a file cannot be read or written.
    """
    if before:
        machine.run(f"umask 077; mkdir -p {shlex.quote(before)}", seconds=60)
    command = [
        "rsync", "--times", "--copy-links", "-s", "--partial", "--delay-updates",
        "--from0", "--files-from=-", "--no-implied-dirs", f"--rsh={machine.rsync_shell()}", *options, *places,
    ]  # fmt: skip
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
        given.write(listed)
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=subprocess.DEVNULL, stderr=errors)
        code = wait_for(process, _LONG, meanwhile)
        errors.seek(0)
        text = errors.read().decode("utf-8", errors="replace")
    if code in (0, 24) or (code == 23 and _only_gone(text)):
        return
    if "No space left" in text:
        raise full() if full is not None else no_room(machine, machine.address.folder)
    if code is None or code in _RSYNC_BROKEN:
        raise explained(text, machine.address)
    said = (text.strip().splitlines() or [f"status {code}"])[0]
    raise StudioError(f"files cannot be copied between here and {machine.shown} ({said})", fix="See the job's log")


def _only_gone(text: str) -> bool:
    """Whether all that rsync complains of is files that are gone since they were listed, as of an older checkpoint."""
    told = [line for line in text.splitlines() if line.startswith("rsync: ")]
    return bool(told) and all("No such file or directory" in line for line in told)


def _by_tar(studio: Studio, parcel: Parcel, meanwhile: Callable[[], None]) -> None:
    reading, writing = os.pipe()
    failed: list[OSError] = []

    def write() -> None:
        try:
            with os.fdopen(writing, "wb") as pipe, tarfile.open(fileobj=pipe, mode="w|", dereference=True) as archive:
                for inner, file in parcel.files:
                    archive.add(file, arcname=inner, recursive=False)
        except OSError as error:  # also where ssh ended and nobody reads
            failed.append(error)

    thread = threading.Thread(target=write, name="tar", daemon=True)
    thread.start()
    given: IO[bytes]
    with os.fdopen(reading, "rb") as given:
        code, out, errors = studio.machine.run(
            studio.command(f"unpack {parcel.digest}"), given=given, seconds=_LONG, meanwhile=meanwhile
        )
    thread.join()
    if code == 0:
        return
    if "No space left" in errors or b"no space left" in out.lower():
        raise no_room(studio.machine, studio.found.folder)
    said = str(failed[0]) if failed else (errors.strip().splitlines() or [f"status {code}"])[-1]
    raise BrokenError(f"{parcel.source} did not reach {studio.machine.shown} ({said})", fix="The studio will try again")

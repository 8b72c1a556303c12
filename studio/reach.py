"""What a page may read, and how: `allowed` decides by the name (`named`), `opened` by what it has opened.

Between a check and its use a file can become a link to another one. So what a page names is walked to, folder by
folder, from the root of the file system, following no link; what was opened so is checked and then read, and nothing is
opened again. Without a page (`reading_for` names none), a file is opened as its user may, if it is an ordinary one.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.errors import InputError
from studio.named import identity, may_be_named, never_read, pinned
from studio.settings import Settings

# A config, a schema, an index of weights: what is read whole has a bound.
WHOLE_BYTES = 256_000_000
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_page: ContextVar[Settings | None] = ContextVar("page", default=None)
_process: list[Settings] = []


@contextlib.contextmanager
def reading_for(settings: Settings | None) -> Iterator[None]:
    """Within it, what is read is read for a page of these settings; None for nobody but this process's user."""
    before = _page.set(settings)
    try:
        yield
    finally:
        _page.reset(before)


@contextlib.contextmanager
def reading_only_for(settings: Settings) -> Iterator[None]:
    """Within it, all threads of this process read for a page of these settings."""
    before = _process[:]
    _process[:] = [settings]
    try:
        yield
    finally:
        _process[:] = before


def reading_as_asked(settings: Settings, roots: Sequence[str] | None) -> AbstractContextManager[None]:
    """Within it, this process reads as whoever asked for its work may: see `roots_of_page`."""
    if roots is None:
        return contextlib.nullcontext()
    return reading_only_for(replace(settings, roots=tuple(map(Path, roots))))


def page() -> Settings | None:
    """The settings of the page for which this is read; None where none asked for it."""
    return _page.get() or next(iter(_process), None)


def roots_of_page() -> tuple[str, ...] | None:
    """The folders beside the home that the page may read for which this is done; None where none asked for it."""
    settings = page()
    return None if settings is None else tuple(str(pinned(root)) for root in settings.roots)


def allowed(path: Path, settings: Settings) -> Path | None:
    """`path` with links resolved, if a page may read there: below a root, no secret, no temporary file.

    None otherwise, also for what is no path. Temporary files are what browsers send: nothing of them is read by a
    path, so that nobody can send a file of code and name it.
    """
    try:
        real = path.expanduser().resolve()
        if any(part.is_symlink() for part in (real, *real.parents)):  # a loop of links: Python 3.13 gives it back
            return None
        if not may_be_named(real, settings):
            return None
        kept = never_read(settings)
        for part in (real, *real.parents):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                if identity(part.stat()) in kept:  # a further name of it, or another spelling where case is one
                    return None
    except (OSError, RuntimeError, ValueError):  # a NUL, a home of nobody, too long, a loop of links
        return None
    return real


def opened(path: Path) -> io.BufferedReader:
    """Open an ordinary file for reading its bytes, within the reach of the page that asks, if one does.

    A page is given the bytes that the file has now: one that grows meanwhile has an end.

    Raises:
        OSError: it is not there, or this user may not read it.
        InputError: it is no ordinary file, or the page may not read it.
    """
    settings = page()
    if settings is None:
        file = _ordinary(os.open(path, _FILE), path)
        return os.fdopen(file, "rb")
    file = _walked(path, settings, _FILE)
    return io.BufferedReader(_Bounded(_ordinary(file, path)), 1 << 18)


@contextlib.contextmanager
def held(path: Path) -> Iterator[str]:
    """Hold a file open as `opened` does, for a library that opens it by a name; yields that name.

    Raises:
        OSError, InputError: as `opened`.
    """
    settings = page()
    if settings is None:
        yield str(path)
        return
    file = _ordinary(_walked(path, settings, _FILE), path)
    try:
        yield descriptor_path(file)
    finally:
        os.close(file)


def descriptor_path(file: int) -> str:
    """The name under which this process opens once more what a descriptor has open."""
    return f"/proc/self/fd/{file}" if Path("/proc/self/fd").is_dir() else f"/dev/fd/{file}"


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file another name, or copy it to where it can have none, as `opened` opens it.

    Raises:
        OSError, InputError: as `opened`; OSError also where `target` cannot be written.
    """
    with held(source) as name:
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # With a descriptor, the system is told to follow `name`, which may be a link of the kernel's.
            os.link(name, target.name, dst_dir_fd=folder, follow_symlinks=True)
        except OSError:
            shutil.copyfile(name, target)
        finally:
            os.close(folder)


def read_bytes(path: Path, most: int = WHOLE_BYTES) -> bytes:
    """Read a whole file, as `opened` opens it.

    Raises:
        OSError, InputError: as `opened`; InputError also for one of more than `most` bytes.
    """
    with opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InputError(
            f"the file has more than {most / 1e6:,.0f} MB", where=str(path), fix="Check that it is what you mean"
        )
    return content


def read_text(path: Path, most: int = WHOLE_BYTES) -> str:
    """Read a whole file of UTF-8, as `read_bytes`; line ends become newlines.

    Raises:
        OSError, InputError: as `read_bytes`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return io.TextIOWrapper(io.BytesIO(read_bytes(path, most)), encoding="utf-8").read()


def entries(folder: Path) -> list[str]:
    """Return the names in a folder, sorted, within the reach of the page that asks, if one does.

    Raises:
        OSError: it is not there, or no folder, or this user may not read it.
        InputError: the page may not read it.
    """
    settings = page()
    if settings is None:
        return sorted(os.listdir(folder))  # noqa: PTH208 - the names, as for a descriptor below
    found = _walked(folder, settings, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return sorted(os.listdir(found))  # noqa: PTH208 - pathlib has no form for a descriptor
    finally:
        os.close(found)


def open_in(folder: Path, *names: str) -> io.BufferedReader:
    """Open an ordinary file of a folder of ours, whoever asks: neither it nor a folder on the way to it is a link.

    Args:
        folder: the folder.
        names: from there to the file; at least one.

    Raises:
        OSError: it is not there.
        InputError: it is a link, or no ordinary file.
    """
    return os.fdopen(_within(folder, names, _FILE), "rb")


def append_in(folder: Path, *names: str) -> io.FileIO:
    """Open a file of a folder of ours for writing at its end, without a buffer; it is made if it is not there.

    A folder that came from elsewhere may hold a link in its place, which is not followed.

    Raises:
        OSError: it cannot be written, or a folder on the way is not there.
        InputError: as `open_in`.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    return io.FileIO(_within(folder, names, flags), "ab")


def open_own(path: Path, *folders: Path) -> io.BufferedReader:
    """Open a file that lies in one of some folders of ours, as `open_in` does; any other one as `opened` does.

    Raises:
        OSError, InputError: as these.
    """
    for folder in map(pinned, folders):
        if path.is_relative_to(folder) and path != folder:
            return open_in(folder, *path.relative_to(folder).parts)
    return opened(path)


def _within(folder: Path, names: Sequence[str], flags: int) -> int:
    path = folder.joinpath(*names)
    if ".." in names:
        raise refusal(path)
    above = os.open(folder, _FOLDER & ~os.O_NOFOLLOW)
    try:
        for name in names[:-1]:
            below = _step(name, above, _FOLDER, path)
            os.close(above)
            above = below
        return _ordinary(_step(names[-1], above, flags | os.O_NOFOLLOW, path), path)
    finally:
        os.close(above)


def refusal(path: Path) -> InputError:
    """The error for what a page may not read."""
    return InputError(
        "the page may not read files there",
        where=f"{path!s:.200}",
        fix="Upload the file, or add its folder to STUDIO_ROOTS before starting the studio",
    )


class _Bounded(io.RawIOBase):
    """A file up to the size that it has now."""

    def __init__(self, file: int) -> None:
        self._file = io.FileIO(file, "rb")
        self._size = os.fstat(file).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            return self._file.seek(max(0, self._size + offset))
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        left = max(0, self._size - self._file.tell())
        return self._file.readinto(memoryview(buffer)[:left]) if left else 0

    def close(self) -> None:
        self._file.close()
        super().close()


def _walked(path: Path, settings: Settings, flags: int) -> int:
    """Open what a page names, through no link; returns the descriptor."""
    try:
        real = path.expanduser().resolve()
    except (RuntimeError, ValueError):
        raise refusal(path) from None
    if not may_be_named(real, settings):
        raise refusal(path)
    kept = never_read(settings)
    above = os.open(real.anchor, _FOLDER)
    try:
        for name in real.parts[1:-1]:
            below = _step(name, above, _FOLDER, path)
            os.close(above)
            above = below
            if identity(os.fstat(above)) in kept:
                raise refusal(path)
        found = _step(real.name, above, flags | os.O_NOFOLLOW, path) if real.name else os.dup(above)
    finally:
        os.close(above)
    if identity(os.fstat(found)) in kept:
        os.close(found)
        raise refusal(path)
    return found


def _step(name: str, above: int, flags: int, path: Path) -> int:
    try:
        return os.open(name, flags, 0o666, dir_fd=above)
    except OSError as error:
        if error.errno == errno.ELOOP:  # its links were resolved before: somebody has put one there meanwhile
            raise InputError(
                "it was replaced by a link while it was read",
                where=f"{path!s:.200}",
                fix="Find out what changes the folder, then try again",
            ) from error
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, a device without a driver
            raise _odd(path) from error
        error.filename = str(path)
        raise


def _ordinary(file: int, path: Path) -> int:
    info = os.fstat(file)
    if not stat.S_ISREG(info.st_mode) or info.st_dev in _pseudo():
        os.close(file)
        if stat.S_ISDIR(info.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise _odd(path)
    return file


def _odd(path: Path) -> InputError:
    return InputError("this is not an ordinary file", where=f"{path!s:.200}", fix="Name a file that holds data")


@lru_cache(maxsize=1)
def _pseudo() -> frozenset[int]:
    """Devices of file systems whose files are no data: /proc and /sys."""
    return frozenset(path.stat().st_dev for path in (Path("/proc"), Path("/sys")) if path.is_dir())

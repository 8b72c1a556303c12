"""The home belongs to whoever started the studio: other users of the machine read and lock nothing in it.

Every process of the studio begins with `begin`, so that what it and its children write is its owner's alone. A home
that a person shares on purpose (set-gid for a group, as `chmod 2770` makes it) stays shared with that group.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from studio.settings import studio_home

_OTHERS = 0o077
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What the studio makes in its home. Whatever else lies there is not ours to change.
_FOLDERS = ("jobs", "models", "datasets", "data", "uploads", "cache", "tmp", "secrets", "outlines", "tools")
OWN_FILES = (
    "supervisor.lock", "supervisor.log", "supervisor.json", "queue.lock", "queue.json", "page.json", "device.json",
    "device.lock", "device-cpu.json", "device-cpu.lock", "browser.secret", "signed-out.json", "sessions.json",
    ".reserve", "ahead",
)  # fmt: skip
_mask = _OTHERS  # of this process, once it has begun
_DEEPEST = 64  # levels of folders; ours has ten


def begin(home: Path | None = None) -> str:
    """Keep what this process writes to its owner, and tighten a home that an older version left open.

    Args:
        home: STUDIO_HOME of the environment by default. It need not exist yet, and is not made.

    Returns:
        a sentence where the home stays open to others, "" where it does not.
    """
    global _mask
    home = studio_home() if home is None else home
    try:
        found: os.stat_result | None = home.stat()
    except OSError:  # not there yet, or whoever opens it says what is wrong
        found = None
    _mask = 0o007 if found is not None and _is_shared(found) else _OTHERS
    os.umask(_mask)
    if found is None:
        return ""
    if said := _open_to(home, found):
        return said
    if found.st_mode & _OTHERS or not (home / "secrets").is_dir():
        with contextlib.suppress(OSError):  # a disk that cannot be written now: what needs it says so
            tighten(home)
            make_secrets(home)
    return ""


def lock_mode() -> int:
    """The mode of a lock's file: for the owner, and in a home that is shared with a group for that group."""
    return 0o660 if _mask == 0o007 else 0o600


def make_home(home: Path) -> Path:
    """Make the home for its owner alone, if it is not there, and return it.

    Raises:
        OSError: it cannot be made.
    """
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o700, exist_ok=True)
    return home


def make_secrets(home: Path) -> Path:
    """Make the folder of what nobody but the studio reads, and return it; the page can name nothing in it.

    Raises:
        OSError: it cannot be made.
    """
    folder = make_home(home) / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) != 0o700:  # of a set-gid home
        with contextlib.suppress(OSError):  # a file system without modes
            folder.chmod(0o700)
    return folder


def tighten(home: Path) -> int:
    """Take the rights of other users away from the home and from what the studio made in it.

    Links are never followed; what belongs to somebody else, or has another name outside of the home (a base model that
    was linked in), stays as it is. A home that is shared on purpose keeps its mode, and so does the folder ~ itself.

    Returns:
        how many files and folders were changed.

    Raises:
        OSError: the home cannot be opened.
    """
    real = home.resolve()
    top = os.open(real, _FOLDER)
    try:
        found = os.fstat(top)
        if _is_shared(found) or found.st_uid != os.geteuid():
            return 0
        changed = 0 if real == Path.home().resolve() else _close(top, found)
        names: dict[tuple[int, int], int] = {}
        changed += _tighten_in(top, _FOLDERS, OWN_FILES, lambda info: _only_name(info, names), 0)
        if names:  # of those with several names, what has all of them here
            changed += _tighten_in(
                top, _FOLDERS, (), lambda info: names.get((info.st_dev, info.st_ino)) == info.st_nlink, 0
            )
        return changed
    finally:
        os.close(top)


def _only_name(info: os.stat_result, names: dict[tuple[int, int], int]) -> bool:
    """Whether a file has no other name; the names of those that have one are counted."""
    if info.st_nlink > 1:
        names[info.st_dev, info.st_ino] = names.get((info.st_dev, info.st_ino), 0) + 1
    return info.st_nlink == 1


def _tighten_in(
    above: int, folders: Iterable[str], files: Iterable[str], wanted: Callable[[os.stat_result], bool], depth: int
) -> int:
    changed = sum(_tighten_file(name, above, wanted) for name in files)
    for name in folders:
        try:
            folder = os.open(name, _FOLDER, dir_fd=above)
        except OSError:  # a link, or gone meanwhile
            continue
        try:
            changed += _close(folder, os.fstat(folder))
            entries = list(os.scandir(folder))
            inner = [one.name for one in entries if depth < _DEEPEST and one.is_dir(follow_symlinks=False)]
            plain = [one.name for one in entries if one.is_file(follow_symlinks=False)]
            changed += _tighten_in(folder, inner, plain, wanted, depth + 1)
        finally:
            os.close(folder)
    return changed


def _tighten_file(name: str, folder: int, wanted: Callable[[os.stat_result], bool]) -> int:
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(info.st_mode) or not info.st_mode & _OTHERS or not wanted(info):
            return 0
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return 0
    try:
        now = os.fstat(file)
        return _close(file, now) if (now.st_dev, now.st_ino) == (info.st_dev, info.st_ino) else 0
    finally:
        os.close(file)


def _close(descriptor: int, info: os.stat_result) -> int:
    """Take the rights of others from what is open, if it is ours; returns how many were changed."""
    if info.st_uid != os.geteuid() or not info.st_mode & _OTHERS:
        return 0
    os.fchmod(descriptor, stat.S_IMODE(info.st_mode) & ~_OTHERS)
    return 1


def _is_shared(found: os.stat_result) -> bool:
    """Whether a folder is shared on purpose: by its group, as set-gid says, or by all, as /tmp is."""
    return bool(found.st_mode & stat.S_ISGID and found.st_mode & 0o070) or bool(found.st_mode & stat.S_ISVTX)


def _open_to(home: Path, found: os.stat_result) -> str:
    if _is_shared(found):
        who = "every user of this machine" if found.st_mode & 0o007 else f"the group {_group(found.st_gid)}"
        return f"STUDIO_HOME {home} is shared with {who}, who can read all of it (chmod g-s,go-rwx {home} ends that)"
    if found.st_uid != os.geteuid():
        return f"STUDIO_HOME {home} belongs to {user_name(found.st_uid)}, who can read and change all that is in it"
    return ""


def user_name(number: int) -> str:
    """The name of a user, or "user 1234" where it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)

"""The locks in a job's folder, under which its labels are changed, it goes on or it is removed.

Somebody else may remove the job while one waits for them. The library of locks makes the folder again for its file, and
what were written there would be told as done, to a job that nobody sees and whose name is taken.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from studio.errors import InputError
from studio.locks import locked


class GoneError(InputError):
    """The job was removed meanwhile."""


@contextlib.contextmanager
def job_locked(folder: Path, name: str, what: str) -> Iterator[None]:
    """Hold a lock in a job's folder.

    Args:
        folder: the job's.
        name: of the lock's file.
        what: cannot be done while somebody else holds it, as the beginning of a sentence.

    Raises:
        GoneError: the job is not there any more.
        HeldError: somebody keeps the lock.
    """
    if not folder.is_dir():
        raise _gone(folder)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / name, what))
        except FileNotFoundError:  # removed between two tries
            raise _gone(folder) from None
        if not os.path.lexists(folder / "state.json"):
            with contextlib.suppress(OSError):  # ours alone; whatever else lies there stays
                (folder / name).unlink()
                folder.rmdir()
            raise _gone(folder)
        yield


def _gone(folder: Path) -> GoneError:
    return GoneError(f"the job '{folder.name}' has been removed meanwhile", fix="'studio jobs list' shows the jobs")

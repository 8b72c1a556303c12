"""What fetching anything from the Hugging Face Hub has in common: ids, progress by bytes on the disk, error sentences.

Light to import. Used by `models.catalog.hub` (checkpoints) and `data.files.hubfetch` (sets of rows); a token comes from
the environment or from `hf auth login`, through huggingface_hub, and is never read, kept or shown here.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from studio.errors import InputError, StudioError
from studio.models.catalog.hubrefused import gated, refused, unknown_token

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SPARE_BYTES = 500_000_000
_NO_NETWORK = (errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH)
_NAME = r"[A-Za-z0-9][\w.-]{0,95}"
_ID = re.compile(f"{_NAME}/{_NAME}")
_ONE_NAME = re.compile(_NAME)
OnBytes = Callable[[float, float], None]
Aim = Literal["download", "look up", "search for", "upload to"]


def is_hub_id(text: str, owner: bool = True) -> bool:
    """Whether `text` has the form of a Hub id: org/name; without `owner` also name alone, as old data sets have it."""
    known = _ID.fullmatch(text) or (None if owner else _ONE_NAME.fullmatch(text))
    return known is not None and ".." not in text and "--" not in text


@dataclass(frozen=True)
class Asked:
    """What was asked of the Hub, for the sentences about it.

    Attributes:
        name: the id.
        revision: branch, tag or commit.
        kind: "model" or "data set".
        where: the option that named it.
        where_revision: the option that named its revision.
        otherwise: what can be used without a network.
        aim: what the Hub was asked for.
    """

    name: str
    revision: str
    kind: str
    where: str
    where_revision: str
    otherwise: str
    aim: Aim = "download"

    @property
    def page(self) -> str:
        """Address of its page."""
        return f"https://huggingface.co/{'datasets/' if self.kind == 'data set' else ''}{self.name}"


def endpoint() -> str | None:
    """Address of the Hub where it is not the usual one: a mirror's. Read at each call, as huggingface_hub does not."""
    return os.environ.get("HF_ENDPOINT") or None


def shown_endpoint() -> str:
    """Address of the Hub without the name and password that a mirror's may hold, since logs and reports show it."""
    return re.sub(r"//[^/]*@", "//", endpoint() or "https://huggingface.co").rstrip("/")


def hub_api() -> HfApi:
    """What asks the Hub."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint())


def require_hub_id(name: str, where: str = "") -> str:
    """Return the id of a model on the Hub.

    Raises:
        InputError: it is not of the form org/name.
    """
    if not is_hub_id(name):
        raise InputError(f"'{name:.80}' is not a Hub id", where=where, fix="Give it in the form org/name")
    return name


def bytes_in(folder: Path) -> int:
    """Bytes of all files, those of an unfinished download too; files may vanish while we look."""
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            path = Path(parent) / file
            try:
                total += 0 if path.is_symlink() else path.stat().st_size
            except FileNotFoundError:
                continue
    return total


def require_space(name: str, missing: float, folder: Path) -> None:
    """Refuse to fetch what does not fit on the disk.

    Args:
        name: what is to be fetched, for the message.
        missing: bytes still to be downloaded.
        folder: an existing one on the disk in question.

    Raises:
        StudioError: fewer than `missing` bytes and some to spare are free.
    """
    free = shutil.disk_usage(folder).free
    if missing + SPARE_BYTES > free:
        raise StudioError(
            f"{name} needs {missing / 1e9:.1f} GB more disk space, but only {free / 1e9:.1f} GB are free",
            where=str(folder),
            fix="Free some space, or set STUDIO_HOME to a folder on another disk",
        )


def _plainly(chain: list[BaseException]) -> str:
    """What went wrong with a connection, in words where there are some."""
    if any(isinstance(e, ConnectionRefusedError) for e in chain):
        return "connection refused"
    if any(isinstance(e, TimeoutError) or "Timeout" in type(e).__name__ for e in chain):
        return "no answer in time"
    return type(chain[-1]).__name__


@contextmanager
def counted_bytes(folder: Path, total: float, on_progress: OnBytes) -> Iterator[None]:
    """Tell, from a second thread, how many bytes `folder` holds of `total` while the block runs.

    Args:
        folder: where the download writes, partial files included.
        total: bytes expected; never exceeded in what is told.
        on_progress: called about three times a second with (bytes so far, total), in the second thread.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.3):
            on_progress(min(bytes_in(folder), total), total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def sentence(error: Exception, asked: Asked) -> StudioError:
    """Say what a failed request means. Anything not known here is named by its class."""
    from huggingface_hub import errors

    if isinstance(error, StudioError):
        return error
    name, where = asked.name, asked.where
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    answered = next((found for e in chain if (found := getattr(e, "response", None)) is not None), None)
    status = getattr(answered, "status_code", None)
    if (wrong := unknown_token(status, where)) is not None:
        return wrong
    if any(isinstance(e, errors.GatedRepoError) for e in chain):
        return gated(name, asked.page, getattr(answered, "headers", {}).get("X-Error-Message", ""), where)
    if any(isinstance(e, errors.RevisionNotFoundError) for e in chain):
        return InputError(
            f"{name} has no revision '{asked.revision}'", where=asked.where_revision,
            fix="Use main, or a branch, tag or commit",
        )  # fmt: skip
    if any(isinstance(e, errors.RepositoryNotFoundError) for e in chain) or status == 404:
        return InputError(
            f"the Hub has no {asked.kind} {name} that you can access", where=where,
            fix=f"Check the spelling (org/name); for a private {asked.kind} set HF_TOKEN to a token with access to it",
        )  # fmt: skip
    if status in (401, 403):
        return refused(name, asked.page, status, where)
    if any(isinstance(e, OSError) and e.errno == 28 for e in chain):
        return StudioError(
            f"the disk was full before {name} was complete", where=where,
            fix="Free some space and start again (the download resumes), or set STUDIO_HOME to another disk",
        )  # fmt: skip
    if any(isinstance(e, errors.OfflineModeIsEnabled) for e in chain) and asked.aim == "upload to":
        return StudioError(
            f"HF_HUB_OFFLINE forbids uploading to {name}", where=where, fix=f"Unset it, or {asked.otherwise}"
        )
    if any(isinstance(e, errors.OfflineModeIsEnabled) for e in chain):
        return StudioError(
            f"{name} is not on this machine and HF_HUB_OFFLINE forbids downloading it", where=where,
            fix=f"Unset HF_HUB_OFFLINE, or {asked.otherwise}",
        )  # fmt: skip
    place = shown_endpoint().removeprefix("https://")
    if any(isinstance(e, socket.gaierror) or getattr(e, "errno", None) in _NO_NETWORK for e in chain):
        return StudioError(
            f"could not {asked.aim} {name}: no network, {place} was not found", where=where,
            fix=f"Check the network or proxy (HTTPS_PROXY) and try again, or {asked.otherwise}",
        )  # fmt: skip
    detail = f"status {status}" if status else _plainly(chain)
    known = {"download": "; the download resumes", "upload to": "; what was sent is not sent again"}
    resumes = known.get(asked.aim, "")
    return StudioError(
        f"could not {asked.aim} {name}: {place} did not respond properly ({detail})", where=where,
        fix=f"Check the network or proxy (HTTPS_PROXY) and try again{resumes}. Without a network, {asked.otherwise}",
    )  # fmt: skip

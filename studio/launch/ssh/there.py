"""What the studio there does for the one that sent the run: `python -m studio.launch.ssh.there OPERATION`.

One JSON object comes on standard input, one goes to standard output as the last line; an error is an object, too. Each
call ends at once, and each may be made again: nothing here depends on a connection that lasts.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.config.load import build
from studio.data.worker.client import DataWorker
from studio.errors import InputError, StudioError
from studio.jobs import JobFolder, ensure_supervisor, request_stop, resume
from studio.jobs.store.events import read_lines
from studio.jobs.store.folder import create_job
from studio.jobs.store.logs import lines_around
from studio.jobs.store.state import read_state
from studio.launch.ssh.parcel import PARCEL, digest_of
from studio.private import begin
from studio.reach import open_in
from studio.settings import Settings, read_settings

_STATE = ("status", "reason", "fix", "change", "exit_code", "attempt", "device")
#: Bytes of the log in one answer.
LOG_BYTES = 256 * 1024
#: Files that come as events, log or state, or that only the job's own machine needs.
NOT_COPIED = ("job.yaml", "state.json", "events.jsonl", "log.txt", "stop", "labels.json", "work")


def settle(settings: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """Say which parcels are here whole; those that have just arrived are compared with their SHA-256 first.

    Args:
        settings: of the home here.
        given: `parcels`, SHA-256 by name of the folder.
    """
    files = settings.home.parent / "files"
    absent = []
    for digest in given["parcels"]:
        target, arrived = files / digest, files / f"{digest}{PARCEL}"
        if target.is_dir():
            continue
        if arrived.is_dir() and digest_of(arrived) == digest:
            arrived.rename(target)
            continue
        absent.append(digest)
    return {"absent": absent}


def unpack(settings: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """Take a parcel out of the tar archive on standard input, where there is no rsync."""
    arrived = settings.home.parent / "files" / f"{given['parcel']}{PARCEL}"
    shutil.rmtree(arrived, ignore_errors=True)
    arrived.mkdir(parents=True)
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        archive.extractall(arrived, filter="data")
    return {}


def start(settings: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """Check the run on this machine and queue it under the id that it has there, once.

    Args:
        settings: of the home here.
        given: `id`, `name` and `config` of the job.

    Raises:
        InputError, StudioError: the run cannot be done here.
    """
    from studio.train.preflight import check

    target = settings.jobs / given["id"]
    if (target / "state.json").exists():
        ensure_supervisor(settings)
        return {"warnings": []}
    config = build(RunConfig, given["config"], "job.yaml")
    with contextlib.closing(DataWorker(settings)) as worker:
        checked = check(config, settings, worker, fetch=True)
    settings.jobs.mkdir(parents=True, exist_ok=True)
    # Made beside and renamed: whoever asks again, as after a broken connection, finds the run or can begin it.
    with tempfile.TemporaryDirectory(prefix=".making-", dir=settings.home) as making:
        made = create_job(Path(making), "train", given["name"], checked.config.model_dump(mode="json"))
        try:
            made.path.rename(target)
        except OSError:
            if not (target / "state.json").exists():
                raise
    ensure_supervisor(settings)
    return {"warnings": checked.warnings, "line": checked.plan.line()}


def look(settings: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """Say how the job is: its state, what is new of its events and log, and which files it has.

    Args:
        settings: of the home here.
        given: `id`, and the bytes of `events` and `log` that are known.
    """
    job = _job(settings, given)
    found = seen(job, given)
    if not found["final"]:
        ensure_supervisor(settings)  # it may have been killed, and somebody must see to the job's end
    return found


def seen(job: JobFolder, given: dict[str, Any]) -> dict[str, Any]:
    """Say how a job's folder is, as `look`."""
    state = read_state(job.state_path)  # before the events: of a job that is over, all of them are there
    lines, events = read_lines(job.events_path, given["events"])
    log, size = _log(job, given["log"])
    shown = ""
    if state.line:
        _, around = lines_around(job.log_path, state.line, 0, 0)
        shown = around[0] if around else ""
    return {
        "state": {name: getattr(state, name) for name in _STATE},
        "final": state.final, "line": shown, "now": time.time(),
        "events": [line.decode("utf-8", errors="replace") for line in lines], "events_at": events,
        "log": log, "log_at": size, "files": _files(job.path), "environment": job.environment(),
        "folder": str(job.path), "stopping": job.stop_path.exists(),
    }  # fmt: skip


def stop(settings: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """Ask the job to stop; `now` does not wait for the step."""
    request_stop(_job(settings, given), now=bool(given["now"]))
    ensure_supervisor(settings)
    return {}


def go_on(settings: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """Let a job that ended early go on from its last checkpoint; one that goes on already is left alone.

    Raises:
        InputError: it is done, or left no checkpoint.
    """
    job = _job(settings, given)
    if job.state().attempt > given["attempt"]:  # asked before, and the answer was lost
        return {}
    return {"step": resume(settings, job).step}


def send(settings: Settings, given: dict[str, Any]) -> None:
    """Write files of the job to standard output as a tar archive; one that is gone since is left out."""
    job = _job(settings, given)
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        for name in given["paths"]:
            with contextlib.suppress(FileNotFoundError):
                archive.add(job.path / name, arcname=name, recursive=False)


def _job(settings: Settings, given: dict[str, Any]) -> JobFolder:
    job = JobFolder(settings.jobs / given["id"])
    if not job.state_path.exists():
        raise InputError(
            f"the run {given['id']} no longer exists there", where=str(settings.jobs), fix="Start it again as a new run"
        )
    return job


def _log(job: JobFolder, at: int) -> tuple[str, int]:
    try:
        with open_in(job.path, job.log_path.name) as file:
            file.seek(at)
            data = file.read(LOG_BYTES)
    except (FileNotFoundError, InputError):
        return "", at
    return data.decode("utf-8", errors="replace"), at + len(data)


def _files(folder: Path) -> list[list[Any]]:
    """Path, size and time in whole seconds of each file that is to come back."""
    found: list[list[Any]] = []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if inner.parts[0] in NOT_COPIED or any(part.startswith(".") for part in inner.parts):
            continue
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink():
                stat = path.stat()
                found.append([inner.as_posix(), stat.st_size, int(stat.st_mtime)])
    return found


OPERATIONS: dict[str, Callable[[Settings, dict[str, Any]], dict[str, Any] | None]] = {
    "settle": settle, "start": start, "look": look, "stop": stop, "resume": go_on, "send": send,
}  # fmt: skip


def main() -> int:
    """Do one operation; the exit status is 0 where the answer is no error."""
    begin()
    operation = sys.argv[1]
    try:
        settings = read_settings()
        if operation == "unpack":  # its standard input is the archive
            answer = unpack(settings, {"parcel": sys.argv[2]})
        else:
            made = OPERATIONS[operation](settings, json.loads(sys.stdin.buffer.read() or b"{}"))
            if made is None:
                return 0
            answer = made
    except StudioError as error:
        _answer({"error": {**error.as_dict(), "exit_code": error.exit_code}})
        return error.exit_code
    except OSError as error:
        print(f"{error}", file=sys.stderr)
        said = {
            "what": (error.strerror or str(error)).lower(),
            "where": str(error.filename or ""),
            "fix": "Check the disk",
        }
        _answer({"error": {**said, "exit_code": 1}})
        return 1
    _answer(answer)
    return 0


def _answer(value: dict[str, Any]) -> None:
    """On a line of its own, whatever the login shell has printed."""
    print(f"\n{json.dumps(value, default=str)}")


if __name__ == "__main__":
    raise SystemExit(main())

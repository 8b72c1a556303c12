"""The one process of a home that starts queued jobs, one on each free device, and sees to their end.

It is started by whoever submits a job, lives in a session of its own, holds the home's lock, and leaves when
nothing is to be done. If it is killed, the jobs go on: the next one finds them again by process id and start
time. It never writes the state of a job whose worker lives.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import Timeout

from studio.errors import InputError, StudioError
from studio.jobs.actions.client import supervisor_lock, supervisor_record, wanted_ahead
from studio.jobs.actions.queue import in_line, queue_lock, tell_held
from studio.jobs.run import stopping
from studio.jobs.run.devices import ANY, NOWHERE, Device, assign, list_devices, wanted_device
from studio.jobs.run.diagnosis import diagnose, from_exception
from studio.jobs.run.leftovers import kill_all
from studio.jobs.run.notify import expect_end, tell_end
from studio.jobs.run.starting import Launch, Starter, worker_command
from studio.jobs.run.stopping import Stops, may_go_on
from studio.jobs.store.events import EventWriter
from studio.jobs.store.files import RESERVE, links_to_write, size_of, write_json, write_reserve
from studio.jobs.store.finding import list_jobs
from studio.jobs.store.folder import JobFolder
from studio.jobs.store.state import ACTIVE, JobState, own_identity, write_state
from studio.jobs.views.index import JobIndex
from studio.jobs.views.progress import LIBRARIES
from studio.locks import PATIENCE, HeldError, make_lock
from studio.private import begin
from studio.settings import Settings, read_settings

POLL_SECONDS = 0.25
IDLE_SECONDS = 10.0
# A worker writes its state within a moment; one that has not after this long never began.
START_SECONDS = 60.0
# How long a start waits for the lock of the line, and how long a list of devices is good.
LOCK_SECONDS = 1.0
DEVICE_SECONDS = 30.0
# A job that runs elsewhere is followed again by a new process, at most so often.
FOLLOWED_AGAIN = 100


class Supervisor:
    """Starts the first job in line for which a device is free, and finishes the records of dead ones."""

    def __init__(
        self,
        settings: Settings,
        command: Callable[[JobFolder], list[str]] = worker_command,
        devices: Callable[[Settings], list[Device]] = list_devices,
    ) -> None:
        self.settings, self._list_devices = settings, devices
        self._devices: list[Device] = []
        self._listed = float("-inf")
        self._wanted: dict[str, tuple[tuple[int, int], str]] = {}  # which job.yaml was read, and the device it asks for
        self._starter = Starter(settings, command)
        self._children: dict[str, Launch] = {}
        self._stops = Stops()
        self._index = JobIndex(settings.jobs)
        self._began: dict[str, float] = {}  # monotonic time at which a job without a process was first seen
        self._held: float | None = None  # since when the lock of the line was not to be had, in monotonic seconds
        self._told: set[str] = set()  # jobs that were told why they wait
        self._noted: set[tuple[str, int | None]] = set()  # jobs and errors that the log has

    def step(self) -> bool:
        """Look once at every unfinished job; return True while there is one, or may be one soon."""
        queued: list[JobFolder] = []
        taken: list[str] = []
        stuck = False
        for job in self._index.look()[0]:
            try:
                self._look_at(job, queued, taken)
            except OSError as error:  # of its folder: the other jobs have theirs
                self._note(job, error)
                stuck = True
        if queued:
            line = in_line(queued, self.settings.home)
            able = assign([(job.id, self._asks_for(job)) for job in line], self._known_devices(), taken)
            for job in line:
                if job.id in able:
                    try:
                        self._start(job)
                    except OSError as error:
                        self._note(job, error)
        ahead = wanted_ahead(self.settings.home)
        if ahead and not taken:
            self._starter.get_ready(self._known_devices())
        return bool(taken or queued or ahead or stuck)

    def _look_at(self, job: JobFolder, queued: list[JobFolder], taken: list[str]) -> None:
        """See to one job: bury it, press its stop, or note that it waits or that its device is taken."""
        state = job.state()
        if state.final and not self._closes_down(job):
            self._forget(job)
        elif state.final or (state.status == "queued" and self._closes_down(job)):  # maybe resumed already
            taken.append(state.device)
        elif state.status == "queued" and job.stop_path.exists():
            again = state.attempt > 1
            fix = may_go_on(job) if again and self._asks_for(job) == NOWHERE else ""
            self._close(job, "stopped", f"it was stopped before it {'resumed' if again else 'started'}", fix=fix)
        elif state.status == "queued":
            queued.append(job)
        elif self._is_gone(job, state):
            self._bury(job)
        else:
            taken.append(state.device)
            self._press_stop(job, state)

    def _closes_down(self, job: JobFolder) -> bool:
        """Whether a job that is over, or waits to go on, still has a process; it is ended if that lasts."""
        child = self._children.get(job.id)
        if child is None or not child.runs():
            return False
        if time.monotonic() - self._began.setdefault(job.id, time.monotonic()) > stopping.TERM_SECONDS:
            kill_all(job.path, child.pid)
        return True

    def _note(self, job: JobFolder, error: OSError) -> None:
        """Say in the log, once, why nothing can be done for a job."""
        if (job.id, error.errno) not in self._noted:
            self._noted.add((job.id, error.errno))
            print(f"{time.strftime('%H:%M:%S')}  {job.id}: {error}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Keep nothing ready any more; what runs goes on."""
        self._starter.close()

    def _start(self, job: JobFolder) -> None:
        try:
            launch = self._launched(job)
        except StudioError as error:
            return self._close(job, "failed", error.what, fix=error.fix)
        except OSError as error:
            found = from_exception(error)
            return self._close(job, "failed", found.reason, fix=found.fix)
        if launch is not None and launch.waiting:
            _tell(job, "phase", phase=LIBRARIES, state="begin", done=0, total=None, unit="")

    def _launched(self, job: JobFolder) -> Launch | None:
        """Begin a job's process; None where it does not wait any more, or has no device."""
        device = self._claim(job)
        if device is None:
            return None
        if links := links_to_write(job.path):
            raise StudioError(
                f"its folder has a link where it would write: {', '.join(links)}",
                fix="Replace the link with a file or folder, or start the job again",
            )
        self._began.pop(job.id, None)
        expect_end(self.settings, job)
        launch = self._children[job.id] = self._starter.start(job, device, self._asks_for(job))
        return launch

    def _claim(self, job: JobFolder) -> Device | None:
        """Make a waiting job a starting one, if it still waits and a device for it is still free.

        Under the lock of the line, where nobody else starts a job or changes one that waits.
        """
        try:
            with queue_lock(self.settings.home, LOCK_SECONDS):
                self._held = None
                state = job.state()
                if state.status != "queued" or job.stop_path.exists():
                    return None
                taken = self._taken()
                device = assign([(job.id, self._asks_for(job))], self._known_devices(), taken).get(job.id)
                if device is not None:
                    log = size_of(job.log_path)
                    now = {"started": time.time(), "device": device.name, "log_start": log}
                    write_state(job.state_path, state.with_(status="starting", **now))
                return device
        except HeldError as error:  # somebody changes the line just now: at the next look
            self._tell_held(job, error)
            return None

    def _taken(self) -> list[str]:
        """The devices of jobs that run, or whose processes are not gone yet."""
        found = []
        for job in self._index.look()[0]:
            with contextlib.suppress(OSError):  # of its folder, which says nothing of this one
                state = job.state()
                if (state.status in ACTIVE and not self._is_gone(job, state)) or self._closes_down(job):
                    found.append(state.device)
        return found

    def _tell_held(self, job: JobFolder, error: HeldError) -> None:
        """Say in a waiting job's events, once, who keeps it from starting, if that lasts."""
        now = time.monotonic()
        self._held = now - LOCK_SECONDS if self._held is None else self._held
        if now - self._held >= PATIENCE and job.id not in self._told:
            self._told.add(job.id)
            tell_held(job, error)

    def _known_devices(self) -> list[Device]:
        if time.monotonic() - self._listed > DEVICE_SECONDS:
            self._devices, self._listed = self._list_devices(self.settings), time.monotonic()
        return self._devices

    def _asks_for(self, job: JobFolder) -> str:
        """Which device a waiting job asks for; its job.yaml is read again once it was changed."""
        written = _written(job.path / "job.yaml")
        kept = self._wanted.get(job.id)
        if kept is None or kept[0] != written:
            try:
                asked = JobFolder(job.path).request
                kept = (written, NOWHERE if asked.elsewhere else wanted_device(asked.kind, asked.config))
            except StudioError:  # its start says what is wrong
                kept = (written, ANY)
            self._wanted[job.id] = kept
        return kept[1]

    def _is_gone(self, job: JobFolder, state: JobState) -> bool:
        child = self._children.get(job.id)
        if child is not None and child.runs():
            return False
        if child is not None and not child.lost:
            return True
        if state.pid is not None:
            return not state.alive()
        # Not by the time in the state: the computer's clock may have been moved since.
        return time.monotonic() - self._began.setdefault(job.id, time.monotonic()) > START_SECONDS

    def _bury(self, job: JobFolder) -> None:
        """Record the end of a job whose worker died without saying how it ended."""
        state = job.state()
        if state.final:  # written in the moment between our look and its death
            return self._forget(job)
        child = self._children.get(job.id)
        code = None if child is None else child.returncode
        kill_all(job.path, session=state.pid)  # whom the worker left behind
        elsewhere = self._asks_for(job) == NOWHERE
        if job.stop_path.exists():
            if elsewhere:
                said = f"it was killed before it was {'stopped there' if job.machine else 'cancelled at the service'}"
                return self._close(job, "stopped", said, code, may_go_on(job))
            return self._close(job, "stopped", "it was killed, so its last step was not saved", code)
        if elsewhere and state.attempt <= FOLLOWED_AGAIN:
            write_state(
                job.state_path, JobState(status="queued", created=state.created, attempt=state.attempt + 1)
            )  # fmt: skip
            self._children.pop(job.id, None)
            self._stops.forget(job.id)
            self._began.pop(job.id, None)
            return
        found = diagnose(code, job.log_path, job.environment(), start=state.log_start)
        status = "lost" if code is None else "failed"
        return self._close(job, status, found.reason, code, found.fix, change=found.change, line=found.line)

    def _close(
        self, job: JobFolder, status: str, reason: str, code: int | None = None, fix: str = "", **more: Any
    ) -> None:
        end = {"status": status, "reason": reason, "fix": fix, "exit_code": code, "finished": time.time(), **more}
        (job.path / RESERVE).unlink(missing_ok=True)
        try:
            write_state(job.state_path, job.state().with_(**end))
        except OSError:  # the disk is full: the reason has to be told nevertheless
            (self.settings.home / RESERVE).unlink(missing_ok=True)
            write_state(job.state_path, job.state().with_(**end))
        _tell(job, "done", status=status, reason=reason, fix=fix)
        self._forget(job)

    def _forget(self, job: JobFolder) -> None:
        if self._closes_down(job):
            return
        if job.id in self._children or job.id in self._stops:
            kill_all(job.path, session=job.state().pid)
        self._children.pop(job.id, None)
        self._stops.forget(job.id)
        self._began.pop(job.id, None)
        self._index.rest(job.id)
        tell_end(self.settings, job)

    def _press_stop(self, job: JobFolder, state: JobState) -> None:
        """Go on with a stop that was asked for."""
        asked = job.asked_stop()
        if asked is not None and job.id in self._children and self._children[job.id].waiting:
            del self._children[job.id]
            return self._close(job, "stopped", "it was stopped before it started")
        if asked is not None and state.pid is not None and state.alive():
            self._stops.go_on(job, state.pid, at_once=bool(asked.get("now")))
        return None


def _tell(job: JobFolder, kind: str, **fields: Any) -> None:
    with contextlib.suppress(InputError):  # a link in the place of the events: the state tells the end too
        writer = EventWriter(job.events_path)
        writer.write(kind, **fields)
        writer.close()


def _written(path: Path) -> tuple[int, int]:
    """When a file was written, and its number: it is replaced by another one on each change."""
    try:
        found = path.stat()
        return found.st_mtime_ns, found.st_ino
    except FileNotFoundError:
        return 0, 0


def supervise(settings: Settings) -> None:
    """Run until there has been nothing to do for a while; return at once if another one runs."""
    lock, record = make_lock(supervisor_lock(settings.home)), supervisor_record(settings.home)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return
    _write_record(record)
    supervisor = Supervisor(settings)
    last_work = time.monotonic()
    with contextlib.suppress(OSError):
        write_reserve(settings.home)
    while True:
        if _step(supervisor):
            last_work = time.monotonic()
        elif time.monotonic() - last_work > IDLE_SECONDS:
            record.unlink(missing_ok=True)
            supervisor.close()
            lock.release()
            # Whoever submitted just before the release saw the lock held and relied on us: look once more.
            if all(job.state().final for job in list_jobs(settings.jobs)):
                return
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return
            _write_record(record)
            last_work = time.monotonic()
        time.sleep(POLL_SECONDS)


def _write_record(record: Path) -> None:
    """Say which process holds the lock; where the disk is full its command line says it."""
    pid, start = own_identity()
    with contextlib.suppress(OSError):
        write_json(record, {"pid": pid, "start": start})


def _step(supervisor: Supervisor) -> bool:
    """Look once; a disk that is full or broken is no reason to leave the jobs alone."""
    try:
        return supervisor.step()
    except OSError as error:
        with contextlib.suppress(OSError):  # the log lies on the same disk
            print(f"{time.strftime('%H:%M:%S')}  {error}", file=sys.stderr, flush=True)
        return True


def main() -> int:
    """`python -m studio.jobs.run.supervisor`: supervise STUDIO_HOME."""
    begin()
    settings = read_settings()
    Path(settings.jobs).mkdir(parents=True, exist_ok=True)
    supervise(settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

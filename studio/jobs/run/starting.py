"""How a job's process comes into being: from a warm one where that saves its imports, on its own otherwise."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

from studio.jobs.run.devices import CPU, Device, environment_of
from studio.jobs.run.leftovers import MARK
from studio.jobs.run.warm import Forked, Warm
from studio.jobs.store.folder import JobFolder
from studio.processes import child_environment, module_command, module_of
from studio.reach import append_in
from studio.settings import Settings

# Packages that are not called as their kind of job: `studio.openai` would be taken for the client of that name.
MODULES: dict[str, str] = {"openai": "remote"}
# What a kind of job spends its first seconds on.
LIBRARIES: dict[str, str] = {
    "train": "studio.train.worker", "evaluate": "studio.evaluate.worker", "export": "studio.evaluate.worker",
}  # fmt: skip

# How long a job waits for the imports of the warm process; a slow disk takes a minute.
WARM_SECONDS = 120.0
# Libraries are imported ahead where more than this is free.
FREE_BYTES = 3e9

Process = subprocess.Popen[bytes]


def worker_command(job: JobFolder) -> list[str]:
    """The command line of a job's process."""
    kind = job.request.kind
    if job.request.place is not None:
        return module_command("studio.launch", str(job.path))
    return module_command(f"studio.{MODULES.get(kind, kind)}", str(job.path))


class Launch:
    """A job's process as the supervisor that began it sees it.

    Attributes:
        waiting: whether it has not begun, since the warm process is still importing.
        lost: whether nobody will tell how it ends; then only its state tells whether it lives.
    """

    def __init__(self, cold: Callable[[], Process], warm: Warm | None = None, fork: Callable[[], Forked] | None = None):
        """Begin it, or wait for the warm process.

        Args:
            cold: starts it on its own.
            warm: whom it may come from.
            fork: makes it of that one.

        Raises:
            OSError: no process can be started, or its log not be written.
        """
        self._cold, self._warm, self._fork = cold, warm, fork
        self._asked = time.monotonic()
        self._process: Process | Forked | None = None
        self.waiting, self.lost = True, False
        self._begin()

    def poll(self) -> int | None:
        """Return its exit status; None while it runs or waits."""
        if self.waiting:
            try:
                self._begin()
            except OSError:
                self.waiting, self.lost = False, True
        if self._process is None:
            return None
        code = self._process.poll()
        self.lost = isinstance(self._process, Forked) and self._process.lost
        return code

    def runs(self) -> bool:
        """Whether it waits or runs, as far as its parent knows."""
        return self.poll() is None and not self.lost

    def _begin(self) -> None:
        warm = self._warm
        if warm is not None and self._fork is not None and not warm.gone:
            if not warm.ready and time.monotonic() - self._asked < WARM_SECONDS:
                return
            if warm.ready:
                with contextlib.suppress(OSError):
                    self._process = self._fork()
        self._process = self._process or self._cold()
        self.waiting = False

    @property
    def pid(self) -> int | None:
        """Its number; None until it has begun."""
        return None if self._process is None else self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status as last polled."""
        return None if self._process is None else self._process.returncode


class Starter:
    """Begins the jobs of one home. Where only the processor computes, their libraries are imported once for all."""

    def __init__(self, settings: Settings, command: Callable[[JobFolder], list[str]]) -> None:
        self.settings, self._command = settings, command
        self._warm: Warm | None = None

    def start(self, job: JobFolder, device: Device, wanted: str) -> Launch:
        """Begin a job.

        Args:
            job: its output goes to its log.
            device: where it computes.
            wanted: the device that it asks for.

        Raises:
            StudioError: its command cannot be told.
            OSError: no process can be started, or the log not be written.
        """
        command = self._command(job)
        own = {MARK: str(job.path), **environment_of(device, wanted)}

        def cold() -> Process:
            with append_in(job.path, job.log_path.name) as log:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=job.path,
                    env=self._environment() | own,
                )  # fmt: skip

        kind = job.request.kind
        called = module_of(command)
        if not _is_plain(device) or kind not in LIBRARIES or command != worker_command(job) or called is None:
            return Launch(cold)
        warm = self._warm_for(kind)

        def fork() -> Forked:
            with append_in(job.path, job.log_path.name) as log:
                return warm.start(*called, log, job.path, own)

        return Launch(cold, warm, fork)

    def get_ready(self, devices: list[Device]) -> None:
        """Import what a training needs, where the next one could come from a warm process and memory is plentiful."""
        if self._warm is not None or not all(map(_is_plain, devices)):
            return
        if psutil.virtual_memory().available > FREE_BYTES:
            with contextlib.suppress(OSError):
                self._warm_for("train")

    def close(self) -> None:
        """Let the warm process go."""
        if self._warm is not None:
            self._warm.close()
            self._warm = None

    def _warm_for(self, kind: str) -> Warm:
        if self._warm is None or self._warm.gone:
            with append_in(self.settings.home, "supervisor.log") as log:
                self._warm = Warm.launch([LIBRARIES[kind]], log, self.settings.home, self._environment())
        return self._warm

    def _environment(self) -> dict[str, Any]:
        own = {"STUDIO_HOME": str(self.settings.home), "STUDIO_WEBHOOK": ""}
        return {"PYTHONUNBUFFERED": "1", **child_environment(**own)}


def _is_plain(device: Device) -> bool:
    """Whether jobs on a device may come from a warm process.

    What that has imported may have looked for GPUs, and has seen how many threads it may have: only a processor that
    each job has to itself leaves nothing to say about either.
    """
    return device.name == CPU and not device.environment and sys.platform == "linux"

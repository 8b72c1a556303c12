"""A process that has imported what many jobs need, and becomes any of them at once. Linux only.

torch, transformers, PEFT and TRL take six seconds of processor time to import, and 350 MB. Here one process imports
them once and then forks: a child has them within some milliseconds, and shares that memory as long as it only reads.
It has used neither threads nor a GPU, which no fork would survive, and it only ever imports, so no job sees anything of
another one.

The owner talks to it over a socket that keeps messages apart: a request is JSON with the file for the output beside
it; what comes back is `{"ready"}`, `{"id", "pid"}` and, once it is over, `{"id", "code"}`. When the owner is gone it
ends; its children go on.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import math
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from studio.models.catalog.quiet import apply_environment, quiet_imports
from studio.processes import module_command

# How often a warm process with children asks whether one of them is over.
REAP_SECONDS = 0.05
LARGEST = 1 << 16  # bytes of a message
# Jobs that run steps of theirs as processes, which want the same libraries.
ASKS_ON = {"studio.export"}


class Forked:
    """One child of a warm process, as its owner sees it; like a subprocess.Popen as far as it goes.

    Attributes:
        pid: None until it has begun.
        returncode: as that of subprocess.Popen; None while it runs.
    """

    def __init__(self, parent: Warm) -> None:
        self._parent = parent
        self.pid: int | None = None
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended; None while it runs, and for ever once it is `lost`."""
        self._parent.look()
        return self.returncode

    @property
    def lost(self) -> bool:
        """Whether nobody will tell how it ends, since the warm process is gone."""
        return self.returncode is None and self._parent.gone

    def begun(self) -> bool:
        """Wait until it has begun; False where it never will."""
        while self.pid is None and not self._parent.gone:
            self._parent.look(1.0)
        return self.pid is not None

    def wait(self, seconds: float | None = None) -> int:
        """Return how it ended, and wait for that. One that is lost is killed, and counts as that.

        Raises:
            subprocess.TimeoutExpired: it did not end in so many seconds.
        """
        end = math.inf if seconds is None else time.monotonic() + seconds
        while (code := self.poll()) is None:
            if self.lost:
                self.kill()
                return -signal.SIGKILL
            if (left := end - time.monotonic()) <= 0:
                raise subprocess.TimeoutExpired("a forked process", seconds or 0.0)
            self._parent.look(min(1.0, left))
        return code

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None and self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Warm:
    """A warm process, as its owner sees it."""

    def __init__(self, channel: socket.socket, environment: Mapping[str, str], ready: bool = False) -> None:
        """Take the owner's end of the channel; `launch` and `beside` make the process."""
        channel.setblocking(False)
        self._environment = dict(environment)
        self._channel, self._ready, self._gone = channel, ready, False
        self._children: dict[int, Forked] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def launch(cls, modules: Sequence[str], log: IO[bytes], cwd: Path, environment: Mapping[str, str]) -> Warm:
        """Start one, in a session of its own; it is not waited for.

        Args:
            modules: what it imports.
            log: where its own output goes.
            cwd: folder that it starts in.
            environment: its own, which its children inherit.

        Raises:
            OSError: no process can be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made = cls(ours, environment)
        with theirs:
            made._process = subprocess.Popen(
                module_command("studio.jobs.run.warm", str(theirs.fileno()), *modules),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd, env=dict(environment),
                start_new_session=True, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        return made

    @classmethod
    def beside(cls) -> Warm:
        """Leave a copy of this process beside it, which belongs to the same session and ends with it.

        Raises:
            OSError: no process can be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            ours.close()
            with theirs:
                _become(serve(theirs))
            raise SystemExit
        theirs.close()
        return cls(ours, os.environ, ready=True)

    def start(
        self, module: str, arguments: Sequence[str], log: IO[bytes], cwd: Path, environment: Mapping[str, str],
        *, session: bool = True,
    ) -> Forked:  # fmt: skip
        """Become `python -m MODULE ARGUMENTS`.

        Args:
            module: what is run as `__main__`.
            arguments: of its command line.
            log: where its output goes.
            cwd: folder that it starts in.
            environment: added to that of the warm process; only what differs is sent.
            session: whether it leads a session of its own.

        Raises:
            OSError: the warm process is gone, and nothing was started.
        """
        child, number = Forked(self), len(self._children)
        changed = {name: value for name, value in environment.items() if self._environment.get(name) != value}
        asked = {
            "id": number, "module": module, "arguments": [*arguments], "cwd": str(cwd),
            "environment": changed, "session": session,
        }  # fmt: skip
        socket.send_fds(self._channel, [json.dumps(asked).encode()], [log.fileno()])
        self._children[number] = child
        return child

    @property
    def ready(self) -> bool:
        """Whether it has imported what it is for."""
        self.look()
        return self._ready

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        self.look()
        return self._gone

    def look(self, seconds: float = 0.0) -> None:
        """Take in what it has said; wait at most so long for something."""
        if seconds and not self._gone:
            select.select([self._channel], [], [], seconds)
        while not self._gone:
            try:
                said = self._channel.recv(LARGEST)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if said:
                self._hear(json.loads(said))
            else:
                self._gone = True
                if self._process is not None:
                    self._process.poll()

    def _hear(self, said: dict[str, Any]) -> None:
        if "ready" in said:
            self._ready = True
            return
        child = self._children[said["id"]]
        child.pid, child.returncode = said["pid"], said.get("code")

    def close(self) -> None:
        """Let it end; what it has begun goes on."""
        self._channel.close()
        self._gone = True


# The warm process beside this one, if it came from one and may need others (`Warm.beside`).
here: Warm | None = None


def serve(channel: socket.socket) -> dict[str, Any] | None:
    """Fork for each request until the owner is gone.

    Args:
        channel: to the owner.

    Returns:
        in a child what it is to become; None in the warm process once its owner is gone.
    """
    children: dict[int, int] = {}
    while True:
        try:
            if select.select([channel], [], [], REAP_SECONDS if children else None)[0]:
                text, files, _, _ = socket.recv_fds(channel, LARGEST, 1)
                if not text:
                    return None
                asked: dict[str, Any] = json.loads(text)
                pid = os.fork()
                if pid == 0:
                    channel.close()
                    _settle(asked, files[0])
                    return asked
                os.close(files[0])
                children[pid] = asked["id"]
                _say(channel, id=asked["id"], pid=pid)
            for pid in list(children):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    _say(channel, id=children.pop(pid), pid=pid, code=os.waitstatus_to_exitcode(status))
        except (BrokenPipeError, ConnectionResetError):
            return None


def _say(channel: socket.socket, **values: Any) -> None:
    channel.send(json.dumps(values).encode())


def _settle(asked: dict[str, Any], log: int) -> None:
    """Make a fresh child what a process of its own would be: session, folder, output, environment, chance."""
    if asked["session"]:
        os.setsid()
    os.chdir(asked["cwd"])
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    os.close(log)
    os.environ.update(asked["environment"])
    apply_environment()
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(asked["module"])  # what `top` shows; the system keeps 15 letters
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # Python's own generator does so by itself


def _become(asked: dict[str, Any] | None) -> None:
    """Run what a child was asked for; what ends it is its SystemExit."""
    global here
    if asked is None:
        return
    if asked["module"] in ASKS_ON:
        here = Warm.beside()
    sys.argv = [asked["module"], *asked["arguments"]]
    runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)


def main() -> None:
    """`python -m studio.jobs.run.warm SOCKET MODULE…`: import, then fork on request."""
    quiet_imports()
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # or each child's first collection would write to all of that memory
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        _say(channel, ready=True)
        asked = serve(channel)
    _become(asked)


if __name__ == "__main__":
    from studio.jobs.run import warm  # not this `__main__`, so that `here` is where others look for it

    warm.main()

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

import gc
import importlib
import json
import os
import runpy
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from studio.models.catalog.quiet import quiet_imports
from studio.processes import module_command

# How often a warm process with children asks whether one of them is over.
REAP_SECONDS = 0.05
LARGEST = 1 << 16  # bytes of a message


class Forked:
    """One child of a warm process, as its owner sees it.

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


class Warm:
    """A warm process, as its owner sees it."""

    def __init__(
        self, modules: Sequence[str], log: IO[bytes] | int, cwd: Path, environment: Mapping[str, str]
    ) -> None:  # fmt: skip
        """Start it; it is not waited for.

        Args:
            modules: what it imports.
            log: where its own output goes.
            cwd: folder that it starts in.
            environment: its own, which its children inherit.

        Raises:
            OSError: no process can be started.
        """
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                module_command("studio.jobs.run.warm", str(theirs.fileno()), *modules),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd, env=dict(environment),
                start_new_session=True, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        self._children: dict[int, Forked] = {}
        self._ready = self._gone = False

    def start(
        self, module: str, arguments: Sequence[str], log: IO[bytes], cwd: Path, environment: Mapping[str, str]
    ) -> Forked:  # fmt: skip
        """Become `python -m MODULE ARGUMENTS` in a session of its own.

        Args:
            module: what is run as `__main__`.
            arguments: of its command line.
            log: where its output goes.
            cwd: folder that it starts in.
            environment: added to that of the warm process.

        Raises:
            OSError: the warm process is gone, and nothing was started.
        """
        child = Forked(self)
        asked = {
            "id": len(self._children), "module": module, "arguments": [*arguments], "cwd": str(cwd),
            "environment": dict(environment),
        }  # fmt: skip
        socket.send_fds(self._channel, [json.dumps(asked).encode()], [log.fileno()])
        self._children[asked["id"]] = child
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

    def look(self) -> None:
        """Take in what it has said; never waits."""
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
                self._process.poll()

    def _hear(self, said: dict[str, Any]) -> None:
        if "ready" in said:
            self._ready = True
            return
        child = self._children[said["id"]]
        child.pid, child.returncode = said.get("pid", child.pid), said.get("code")

    def close(self) -> None:
        """Let it end; what it has begun goes on."""
        self._channel.close()
        self._gone = True


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
    os.setsid()
    os.chdir(asked["cwd"])
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    os.close(log)
    os.environ.update(asked["environment"])
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # Python's own generator does so by itself


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
    if asked is not None:
        sys.argv = [asked["module"], *asked["arguments"]]
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

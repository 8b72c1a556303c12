"""Starts, shares and ends chat servers: one process for each loaded target.

The memory of a model is freed by ending its process, the one way that always works. Light: the web process uses it.
A server ends by itself when it is idle or when the process that started it is gone, so nothing is left behind by a
crash here.
"""

from __future__ import annotations

import atexit
import json
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from studio.chat.client import ChatHandle
from studio.chat.target import Target
from studio.errors import InputError, StoppedError, StudioError
from studio.jobs.store.logs import read_tail
from studio.jobs.store.state import own_identity, process_start
from studio.processes import child_environment, module_command
from studio.remote.client import find_key
from studio.settings import Settings

OnPhase = Callable[[str, float], None]
"""Called a few times a second while a model loads: phase, seconds since the start. Its exception stops the load."""

LOAD_SECONDS = 900.0  # a model that takes longer is taken for stuck
TERM_SECONDS = 5.0  # from SIGTERM to SIGKILL
_POLL_SECONDS = 0.1
_KEY_VARIABLE = "STUDIO_CHAT_KEY"


@dataclass(frozen=True)
class Loaded:
    """A line of the list of loaded models: `memory` is the process's resident bytes, `seconds` its age."""

    target: Target
    handle: ChatHandle
    memory: int
    seconds: float


@dataclass
class _Server:
    process: subprocess.Popen[bytes]
    log: Path
    ready: Path
    loaded_as: tuple[object, ...]
    started: float
    handle: ChatHandle | None = None
    ended: bool = False


class ChatManager:
    """The chat servers that this process started. Safe to use from several threads.

    Args:
        settings: the folder for logs, and the idle time.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._guard = threading.Lock()  # of the two dicts; never held while waiting for a process
        self._opening: dict[Target, threading.Lock] = {}
        self._servers: dict[Target, _Server] = {}
        atexit.register(self.close_all)

    def open(self, target: Target, on_phase: OnPhase | None = None, timeout: float = LOAD_SECONDS) -> ChatHandle:
        """Load a target, or return the server that has it loaded. Blocks until it answers.

        A server whose weights changed on disk since (the run was trained on) is replaced.

        Args:
            target: what to load.
            on_phase: told where the loading is.
            timeout: seconds after which loading is given up.

        Raises:
            InputError: the target cannot be loaded; the sentence says why.
            StudioError: the server died or did not get ready.
            StoppedError: it was closed meanwhile.
        """
        if target.kind == "remote":  # nothing to load: the service has it
            return ChatHandle(target.base_url, find_key(), target.models, 0, dict(target.there))
        with self._lock_of(target):
            wanted = target.loaded_as()
            with self._guard:
                server = self._servers.get(target)
            if server and server.handle and _lives(server) and server.loaded_as == wanted:
                return server.handle
            if server:
                self._end(target, server)
            return self._start(target, wanted, on_phase, timeout)

    def close(self, target: Target) -> None:
        """Unload a target or stop its loading; its memory is free when this returns. Unknown targets are ignored."""
        with self._guard:
            server = self._servers.get(target)
        if server:
            self._end(target, server)

    def close_all(self) -> None:
        """Unload everything; also stops what is just loading."""
        with self._guard:
            servers = list(self._servers.items())
        for _, server in servers:  # all get their signal before the first is waited for
            server.ended = True
            _signal(server.process, signal.SIGTERM)
        for target, server in servers:
            self._end(target, server)

    def loaded(self) -> list[Loaded]:
        """List what is loaded now, with its memory; servers that ended by themselves are dropped."""
        with self._guard:
            servers = list(self._servers.items())
        found = []
        for target, server in servers:
            if server.handle is None:
                continue
            try:
                memory = psutil.Process(server.process.pid).memory_info().rss
            except psutil.Error:
                memory = 0
            if _lives(server):
                found.append(Loaded(target, server.handle, memory, time.monotonic() - server.started))
            else:
                self._end(target, server)
        return found

    def _lock_of(self, target: Target) -> threading.Lock:
        with self._guard:
            return self._opening.setdefault(target, threading.Lock())

    def _start(
        self, target: Target, loaded_as: tuple[object, ...], on_phase: OnPhase | None, timeout: float
    ) -> ChatHandle:
        folder = self._settings.temporary
        folder.mkdir(parents=True, exist_ok=True)
        name = f"chat-{secrets.token_hex(6)}"
        log, ready = folder / f"{name}.log", folder / f"{name}.json"
        key = secrets.token_urlsafe(32)
        pid, born = own_identity()
        command = [
            *module_command("studio.chat.server", *target.arguments()),
            *("--ready", str(ready), "--parent", str(pid), "--parent-started", repr(born)),
            *("--idle", str(self._settings.chat_idle_seconds)),
        ]
        environment = child_environment(**{_KEY_VARIABLE: key})
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, cwd=folder, env=environment,
            )  # fmt: skip
        server = _Server(process, log, ready, loaded_as, time.monotonic())
        with self._guard:
            self._servers[target] = server
        try:
            server.handle = self._wait(target, server, key, on_phase, timeout)
        except BaseException:
            self._end(target, server, keep_log=True)
            raise
        return server.handle

    def _wait(self, target: Target, server: _Server, key: str, on_phase: OnPhase | None, timeout: float) -> ChatHandle:
        while True:
            seconds = time.monotonic() - server.started
            code = server.process.poll()
            if server.ended:
                raise StoppedError("loading was stopped", where=target.name)
            if code is not None:
                raise _death(target, server, code)
            if server.ready.exists():
                facts = json.loads(server.ready.read_text())
                models = tuple(facts["models"])
                return ChatHandle(f"http://127.0.0.1:{facts['port']}/v1", key, models, facts["pid"])
            if seconds > timeout:
                raise StudioError(
                    f"the model was not ready within {timeout:g} s", where=target.name, fix=f"See {server.log}"
                )
            if on_phase:
                on_phase(_phase(server.log), seconds)
            time.sleep(_POLL_SECONDS)

    def _end(self, target: Target, server: _Server, keep_log: bool = False) -> None:
        """SIGTERM, wait, SIGKILL; the process is gone when this returns."""
        server.ended = True
        with self._guard:
            if self._servers.get(target) is server:
                del self._servers[target]
        _signal(server.process, signal.SIGTERM)
        try:
            server.process.wait(TERM_SECONDS)
        except subprocess.TimeoutExpired:
            _signal(server.process, signal.SIGKILL)
            server.process.wait()
        server.ready.unlink(missing_ok=True)
        if not keep_log:
            server.log.unlink(missing_ok=True)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a child of ours; poll() first, so that a pid that was given to someone else is never hit."""
    if process.poll() is None:
        process.send_signal(number)


def _lives(server: _Server) -> bool:
    """Whether the process runs. While its threads are ending it is a zombie that cannot be waited for yet."""
    return server.process.poll() is None and process_start(server.process.pid) is not None


def _phase(log: Path) -> str:
    """The last phase that the server wrote, such as "loading the model"."""
    lines = [line for line in read_tail(log).text.splitlines() if line.startswith("chat: ")]
    return lines[-1].removeprefix("chat: ") if lines else "starting"


def _death(target: Target, server: _Server, code: int) -> StudioError:
    """The error for a server that ended before it was ready."""
    lines = [line for line in read_tail(server.log).text.splitlines() if line.startswith("error: ")]
    if lines:
        sentence = lines[-1].removeprefix("error: ")
        if code == InputError.exit_code:
            return InputError(sentence)
        return StudioError(
            f"the model could not be loaded: {sentence}", where=target.name, fix=f"The details are in {server.log}"
        )
    if code == -signal.SIGKILL:
        return StudioError(
            "the system ended the chat server while the model was loading, most likely because memory ran out",
            where=target.name,
            fix="Unload other models or wait until no run is training",
        )
    return StudioError(
        f"the chat server ended while the model was loading (exit code {code})",
        where=target.name,
        fix=f"The details are in {server.log}",
    )

"""Another machine, by the system's `ssh`: commands, files, and what went wrong as a sentence.

Whatever ssh would ask (a password, an unknown host key) is an error instead: it runs in batch mode, and host keys are
checked as the person's configuration says. All commands share one connection while it lasts.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from studio.errors import InputError, StudioError
from studio.launch.ssh.address import Address

# Seconds: to sign in, and after which a silent connection counts as broken.
CONNECT, SILENCE = 15, 15
#: How ssh ends when it was ssh that failed, and not the command there.
_OWN_FAILURE = 255
_TOLD = 2000


class BrokenError(StudioError):
    """The machine could not be reached just now, which says nothing of what runs there."""


class UnknownHostError(InputError):
    """The name of the machine means nothing here: it is wrong, or this machine has no network."""


class Machine:
    """A machine that is reached by ssh; used as a context manager, which closes the connection.

    Args:
        address: where it is.
        where: the option that named it, for errors.
    """

    def __init__(self, address: Address, where: str = "--to") -> None:
        self.address, self._where = address, where
        ssh = shutil.which("ssh")
        if ssh is None:
            raise InputError("the program ssh is missing here", where=where, fix="Install OpenSSH's client")
        # A socket's path may have 107 characters: below /tmp, wherever the home is.
        self._sockets = tempfile.mkdtemp(prefix="studio-ssh-", dir="/tmp" if Path("/tmp").is_dir() else None)
        self.ssh = [
            ssh, "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT}", "-o", f"ServerAliveInterval={SILENCE // 3}",
            "-o", "ServerAliveCountMax=3", "-o", "ControlMaster=auto", "-o", f"ControlPath={self._sockets}/%C",
            "-o", "ControlPersist=60", "-o", "ForwardX11=no", "-T",
        ]  # fmt: skip
        if address.port:
            self.ssh += ["-p", str(address.port)]
        if address.user:
            self.ssh += ["-l", address.user]

    @property
    def shown(self) -> str:
        """Its name, for sentences."""
        return self.address.shown

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what runs there goes on."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                [*self.ssh, "-O", "exit", "--", self.address.host],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=5,
            )  # fmt: skip
        shutil.rmtree(self._sockets, ignore_errors=True)

    def run(
        self,
        command: str,
        *,
        given: bytes | IO[bytes] = b"",
        seconds: float = 120,
        output: IO[bytes] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> tuple[int, bytes, str]:
        """Run a command line of a POSIX shell there.

        Args:
            command: its parts quoted.
            given: its standard input, as bytes or as an open file.
            seconds: after which the connection counts as broken.
            output: where its standard output goes; None returns it.
            meanwhile: called now and then; an exception of it ends the command here.

        Returns:
            exit status, standard output (empty with `output`) and the end of the standard error.

        Raises:
            BrokenError: the machine cannot be reached now.
            InputError, StudioError: it can never be reached like this: unknown host, key refused, host key changed.
        """
        with contextlib.ExitStack() as files:
            # Files and not pipes: ssh's shared connection lives on and would hold a pipe open.
            errors = files.enter_context(tempfile.TemporaryFile())
            out = output or files.enter_context(tempfile.TemporaryFile())
            source: Any = given
            if isinstance(given, bytes):
                source = files.enter_context(tempfile.TemporaryFile())
                source.write(given)
                source.seek(0)
            process = subprocess.Popen(
                [*self.ssh, "--", self.address.host, command], stdin=source, stdout=out, stderr=errors
            )  # fmt: skip
            code = wait_for(process, seconds, meanwhile)
            text = _end_of(errors)
            if code is None:
                raise BrokenError(f"{self.shown} does not respond", where=self._where, fix="Check the network")
            if code == _OWN_FAILURE:
                raise explained(text, self.address, self._where)
            if output is not None:
                return code, b"", text
            out.seek(0)
            return code, out.read(), text

    def rsync_shell(self) -> str:
        """The value of rsync's `-e`, so that it uses the same connection."""
        return shlex.join(self.ssh)

    def rsync_place(self, folder: str) -> str:
        """A folder there as rsync writes it."""
        host = self.address.host
        return f"{f'[{host}]' if ':' in host else host}:{folder.rstrip('/')}/"


def wait_for(process: subprocess.Popen[bytes], seconds: float, meanwhile: Callable[[], None]) -> int | None:
    """Wait for a process's end; None where it was ended after `seconds`.

    Args:
        process: that was started.
        seconds: it may take.
        meanwhile: called now and then; its exception ends the process and is passed on.
    """
    end = time.monotonic() + seconds
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(0.1)
            meanwhile()
            if time.monotonic() > end:
                return None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def explained(text: str, address: Address, where: str = "--to") -> StudioError:
    """What ssh wrote when it failed, as a sentence of ours.

    Args:
        text: its standard error.
        address: of the machine.
        where: the option, for the error.
    """
    by_hand = f"Try: ssh {f'-p {address.port} ' if address.port else ''}{address.shown}"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in text:
        return InputError(
            f"the host key of {address.host} is not the one that is known, so this may be another machine", where=where,
            fix=f"Ask who runs it; if the change is right, remove the old key with ssh-keygen -R, then: {by_hand[5:]}",
        )  # fmt: skip
    if "Host key verification failed" in text or "No ED25519 host key is known" in text:
        return InputError(
            f"the host key of {address.host} is not known here yet", where=where,
            fix=f"{by_hand}, compare the key with the machine's, and confirm it once",
        )  # fmt: skip
    if "Could not resolve hostname" in text:
        return UnknownHostError(f"there is no host '{address.host}'", where=where, fix="Check the name and the network")
    if "Permission denied" in text or "Too many authentication failures" in text:
        return InputError(
            f"{address.host} refused your key{f' for {address.user}' if address.user else ''}", where=where,
            fix=f"Put a public key of yours into ~/.ssh/authorized_keys there, or load it with ssh-add. {by_hand}",
        )  # fmt: skip
    if "Bad configuration option" in text or "terminating," in text:
        said = text.strip().splitlines()[0] if text.strip() else "its configuration is wrong"
        return InputError(f"ssh cannot be used: {said}", where=where, fix="Correct ~/.ssh/config")
    lines = [line for line in text.strip().splitlines() if line.strip()]
    said = lines[-1].strip() if lines else "the connection ended"
    return BrokenError(f"{address.shown} cannot be reached ({said})", where=where, fix=by_hand)


def _end_of(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TOLD))
    return file.read().decode("utf-8", errors="replace")

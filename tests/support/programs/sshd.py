"""A real sshd on 127.0.0.1 with keys, configuration and HOME of its own; a wrapper on PATH tells the client."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.support.ports import free_port

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None, reason="sshd or ssh is missing: apt-get install openssh-server"
)
_PRIVILEGE = Path("/run/sshd")


class Sshd:
    """An sshd that signs a user in by a key of its own.

    Args:
        folder: empty; keys, configuration and the home there are put into it.
        user: who is signed in, with the home that this user has; "" for this one, with another home.
        home: of that user.
    """

    def __init__(self, folder: Path, user: str = "", home: Path | None = None) -> None:
        self.folder, self.port, self.user = folder, free_port(), user
        self.home = home or folder / "home there"  # a blank: paths must be quoted
        self.bin = folder / "bin"
        for one in (self.home, self.bin):
            one.mkdir(parents=True, exist_ok=True)
        for key in ("host", "user"):
            self.make_key(key)
        shutil.copy(folder / "user.pub", folder / "authorized_keys")
        self.know_host()
        known = "" if user else f'"HOME={self.home}" '
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
            f"StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            f'AuthorizedKeysFile {folder}/authorized_keys\nSetEnv {known}"OMP_NUM_THREADS=1"\n'
        )
        (folder / "ssh_config").write_text(
            f"Host *\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n"
        )
        wrapper = self.bin / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(str(shutil.which("ssh")))} -F {folder}/ssh_config "$@"\n')
        wrapper.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Its address without a folder."""
        return f"ssh://{f'{self.user}@' if self.user else ''}127.0.0.1:{self.port}"

    def make_key(self, name: str) -> None:
        """Make a key pair, in place of an older one."""
        for ending in ("", ".pub"):
            (self.folder / f"{name}{ending}").unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    def know_host(self) -> None:
        """Let the client know the host key that there is now."""
        key = (self.folder / "host.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key}")

    def set_environment(self, **more: str) -> None:
        """Give sessions that begin after the next start more of an environment."""
        config = self.folder / "sshd_config"
        told = " ".join(f'"{name}={value}"' for name, value in more.items())
        config.write_text(config.read_text().replace("SetEnv ", f"SetEnv {told} "))

    def start(self) -> None:
        """Start it, and wait until it listens."""
        assert SSHD is not None
        if os.geteuid() == 0 and not _PRIVILEGE.is_dir():
            _PRIVILEGE.mkdir(mode=0o755, parents=True)
        with (self.folder / "sshd.log").open("ab") as log:
            command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None, (self.folder / "sshd.log").read_text()
            time.sleep(0.05)
        raise AssertionError("sshd does not listen")

    def stop(self) -> None:
        """End it and every connection that it has; what was started through it goes on."""
        if self._process is None:
            return
        sessions = psutil.Process(self._process.pid).children(recursive=True)
        for one in sessions:
            if "sshd" in one.name():
                one.kill()
        self._process.kill()
        self._process.wait()
        self._process = None

    def python(self, checkout: Path, executable: str) -> Path:
        """A Python there that has the studio of this checkout.

        Args:
            checkout: folder with the package.
            executable: the Python that has its libraries.
        """
        path = self.folder / "python there"
        path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(checkout))} exec {shlex.quote(executable)} "$@"\n')
        path.chmod(0o755)
        return path

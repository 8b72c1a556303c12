"""Whose a loopback connection is: asked of the real kernel, both ways, for every form of the address."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from studio.ui.server import owner
from studio.ui.server.owner import Address, Owner, Owners, by_netlink, by_proc

SOMEBODY = 12345
FORMS = [
    ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::ffff:127.0.0.1", "127.0.0.1"),
    ("::ffff:127.0.0.1", "::ffff:127.0.0.1"), ("127.0.0.1", "::ffff:127.0.0.1"),
]  # fmt: skip
CONNECT = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
one = socket.socket(socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET)
one.connect((sys.argv[2], int(sys.argv[3])))
sys.stdin.read(1)
one.close()
print("closed", flush=True)
sys.stdin.read(1)
"""
Ask = Callable[[Address, Address], Owner | None]


def family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def listen(stack: ExitStack, host: str) -> socket.socket:
    listener = stack.enter_context(socket.socket(family(host)))
    try:
        listener.bind((host, 0))
    except OSError:
        pytest.skip(f"no {host} here")
    listener.listen(128)
    return listener


def ends(accepted: socket.socket) -> tuple[Address, Address]:
    return accepted.getpeername()[:2], accepted.getsockname()[:2]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize("ask", [by_netlink, by_proc])
@pytest.mark.parametrize(("here", "there"), FORMS)
def test_the_user_of_a_connection(ask: Ask, here: str, there: str) -> None:
    with ExitStack() as stack:
        listener = listen(stack, here)
        command = [sys.executable, "-c", CONNECT, str(SOMEBODY), there, str(listener.getsockname()[1])]
        child = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        accepted = stack.enter_context(listener.accept()[0])
        assert child.stdin is not None and child.stdout is not None
        found = ask(*ends(accepted))
        assert found is not None and found.uid == SOMEBODY and found.inode > 0
        assert Owners().uid(*ends(accepted)) == SOMEBODY
        child.stdin.write(b"x")
        child.stdin.flush()
        child.stdout.readline()
        # Closed, and told as root's by some kernels: nobody's.
        late = ask(*ends(accepted))
        assert late is None or late.inode == 0
        assert Owners().uid(*ends(accepted)) is None
        child.kill()


@pytest.mark.parametrize("ask", [by_netlink, by_proc])
def test_of_no_connection_nothing_is_told(ask: Ask) -> None:
    with ExitStack() as stack:
        listener = listen(stack, "127.0.0.1")
        port = listener.getsockname()[1]
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        own, other = client.getsockname(), client.getpeername()
        found = ask(own, other)
        assert found == (os.geteuid(), os.fstat(client.fileno()).st_ino)
        assert ask((own[0], own[1] ^ 1), other) is None and ask(own, (other[0], 1)) is None
        assert ask(("127.0.0.1", port), ("127.0.0.1", 1)) is None, "a listener is no connection"


def test_a_socket_that_is_closed_between_two_looks_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([Owner(0, 7), Owner(0, 0), Owner(0, 7), Owner(0, 7), Owner(0, 7), None])
    owners = Owners()
    owners._ask = lambda _client, _server: next(answers)
    ours = ("127.0.0.1", 1), ("127.0.0.1", 2)
    assert [owners.uid(*ours) for _ in range(3)] == [None, 0, None]


def test_what_does_not_answer_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_client: Address, _server: Address) -> Owner | None:
        raise OSError(93, "no such protocol")

    def finds_nothing(_client: Address, _server: Address) -> Owner | None:
        return None

    for netlink, proc, tells in ((fails, by_proc, True), (by_netlink, fails, True), (fails, finds_nothing, False)):
        monkeypatch.setattr(owner, "by_netlink", netlink)
        monkeypatch.setattr(owner, "by_proc", proc)
        assert Owners().tell is tells
    assert Owners().uid(("127.0.0.1", 1), ("127.0.0.1", 2)) is None


def test_a_question_is_quick_among_many_sockets() -> None:
    with ExitStack() as stack:
        listener = listen(stack, "127.0.0.1")
        for _ in range(300):
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            stack.enter_context(listener.accept()[0])
        began = time.perf_counter()
        for _ in range(100):
            assert by_netlink(client.getsockname(), client.getpeername()) is not None
        assert (time.perf_counter() - began) / 100 < 0.01

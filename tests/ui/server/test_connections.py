"""Slow connections, and those of other users, against the page as it is served; all from this machine."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from studio.ui.server import connections
from tests.ui.server.test_app import ROOT, free_port, start, wait_until_up

ATTACKERS = 1100
MEMORY_BYTES = 400e6
NOBODY, SOMEBODY = 65534, 12345
HEAD = b"POST /api/jobs/x/stop HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A page with few descriptors at first, as most systems give."""
    port = free_port()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    process = start(tmp_path_factory.mktemp("connections") / "home", port)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 2 * ATTACKERS:
        pytest.skip(f"{hard} descriptors are too few for {ATTACKERS} attackers")
    try:
        wait_until_up(process, port)
        yield process, port
    finally:
        process.terminate()
        process.wait(15)


def get(port: int, path: str = "/api/jobs") -> tuple[int, float]:
    """Status and seconds of a request over a connection of its own."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, time.monotonic() - began


def send_nothing(_port: int) -> bytes:
    return b""


def half_a_head(port: int) -> bytes:
    return HEAD % port + b"x-a: "


def half_a_body(port: int) -> bytes:
    return HEAD % port + b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{"


def half_a_body_of_a_refused_request(port: int) -> bytes:
    return HEAD % port + b"origin: http://evil.example\r\ncontent-length: 100000\r\n\r\n{"


def open_by_peer(sockets: list[socket.socket]) -> int:
    """How many of them the server has not closed; answers are read and thrown away."""
    poll = select.poll()
    for one in sockets:
        poll.register(one, select.POLLIN)
    left = {one.fileno(): one for one in sockets}
    for number, _ in poll.poll(0):
        with contextlib.suppress(BlockingIOError):
            try:
                while left[number].recv(65536):
                    pass
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise
            del left[number]
    return len(left)


@pytest.mark.long
@pytest.mark.parametrize("message", [send_nothing, half_a_head, half_a_body, half_a_body_of_a_refused_request])
@pytest.mark.parametrize("dripping", [False, True])
def test_a_thousand_slow_requests_lock_nobody_out(
    page: tuple[subprocess.Popen[str], int], message: Callable[[int], bytes], dripping: bool
) -> None:
    """Others are answered within a second while it lasts, and they are gone in the time that a request has."""
    process, port = page
    web = psutil.Process(process.pid)
    slowest, sockets = 0.0, []
    try:
        for number in range(ATTACKERS):
            one = socket.create_connection(("127.0.0.1", port), timeout=20)
            one.setblocking(False)
            with contextlib.suppress(OSError):
                one.send(message(port))
            sockets.append(one)
            if number % 100 == 99:
                status, seconds = get(port)
                assert status == 200
                slowest = max(slowest, seconds)
        end = time.monotonic() + connections.HEAD_SECONDS + 3  # so many are hurried, bodies too
        while (left := open_by_peer(sockets)) and time.monotonic() < end:
            if dripping:
                for one in sockets:
                    with contextlib.suppress(OSError):
                        one.send(b"a")
            status, seconds = get(port)
            assert status == 200
            slowest = max(slowest, seconds)
            time.sleep(0.3)
        assert left == 0
        assert web.num_fds() < 500 and web.memory_info().rss < MEMORY_BYTES
        print(f"\n{message.__name__}: slowest answer to others {slowest:.2f} s, {web.memory_info().rss / 1e6:.0f} MB")
        assert slowest < 1 or os.getloadavg()[0] > 4  # a busy machine is slow without any attack
    finally:
        for one in sockets:
            one.close()


@pytest.mark.long
def test_a_slow_upload_and_a_slow_reader_are_served(page: tuple[subprocess.Popen[str], int]) -> None:
    """Both take longer than a stuck request may, and another one is attacked meanwhile."""
    _, port = page
    size, seconds = 6000, connections.BODY_SECONDS + 6
    boundary = b"x" * 20
    part = b"--" + boundary + b'\r\ncontent-disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
    ending = b"\r\n--" + boundary + b"--\r\n"
    up = socket.create_connection(("127.0.0.1", port), timeout=40)
    up.sendall(
        b"POST /gradio_api/upload HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: multipart/form-data; boundary=%s\r\n"
        b"content-length: %d\r\n\r\n%s" % (port, boundary, len(part) + size + len(ending), part)
    )
    down = socket.create_connection(("127.0.0.1", port), timeout=40)
    down.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    down.sendall(b"GET /studio/plotly.min.js HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nconnection: close\r\n\r\n" % port)
    stream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    stream.request("GET", "/gradio_api/heartbeat/tests")
    events = stream.getresponse()
    attack = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections.MANY_UNFINISHED + 20)]
    got = b""
    for _ in range(100):
        up.sendall(b"a" * (size // 100))
        got += down.recv(2000)
        time.sleep(seconds / 100)
    up.sendall(ending)
    assert b"200 OK" in up.recv(65536)
    while more := down.recv(1 << 20):
        got += more
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"200 OK" in head and f"content-length: {len(body)}".encode() in head.lower()
    assert events.status == 200 and b"data" in events.fp.readline() + events.fp.readline()
    for one in (up, down, *attack):
        one.close()
    stream.close()


@pytest.mark.long
def test_who_reads_nothing_gives_way_to_others(page: tuple[subprocess.Popen[str], int]) -> None:
    """More readers than there are places, none of which reads."""
    process, port = page
    ask = b"GET /studio/plotly.min.js HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n\r\n" % port
    sockets = []
    try:
        for _ in range(connections.MOST + 50):
            one = socket.create_connection(("127.0.0.1", port), timeout=20)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with contextlib.suppress(OSError):
                one.sendall(ask)
            sockets.append(one)
        time.sleep(connections.STUCK_SECONDS + 1)
        for _ in range(5):
            with contextlib.suppress(ConnectionError):  # the first look only begins to tell who is stuck
                get(port)
        time.sleep(connections.STUCK_SECONDS + 1)
        assert [get(port)[0] for _ in range(5)] == [200] * 5
        assert psutil.Process(process.pid).memory_info().rss < MEMORY_BYTES
    finally:
        for one in sockets:
            one.close()


ASK = """
import encodings.idna, os, socket, sys
user, port = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([]); os.setgid(user); os.setuid(user)
host = sys.argv[3]
one = socket.create_connection((host, port), timeout=20)
one.sendall(b"GET /api/jobs HTTP/1.1\\r\\nhost: 127.0.0.1:%d\\r\\nconnection: close\\r\\n\\r\\n" % port)
answer = b""
while more := one.recv(65536):
    answer += more
sys.stdout.write(answer.decode())
"""


def ask_as(user: int, port: int, host: str = "127.0.0.1") -> str:
    """The answer that a process of this user gets."""
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-c", ASK, str(user), str(port), host], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@as_root
def test_another_user_of_the_machine_gets_nothing(page: tuple[subprocess.Popen[str], int]) -> None:
    port = page[1]
    for user in (NOBODY, SOMEBODY):
        answer = ask_as(user, port)
        assert answer.startswith("HTTP/1.1 403") and "STUDIO_PASSWORD" in answer and "STUDIO_TOKEN=1" in answer
    for _ in range(2):
        assert ask_as(0, port).startswith("HTTP/1.1 200")
    # One that sends and is gone at once leaves a socket that the system tells as root's.
    assert "403" in ask_as(NOBODY, port)


SERVE = """
import os, sys
import encodings.idna, functools, socket, uvicorn, uvicorn.loops.asyncio, uvicorn.server
from studio.settings import read_settings
from studio.ui.server.connections import Connection, Door
from studio.ui.server.gate import Gate
from studio.ui.server.owner import Owners

# Only now: Python itself may lie where this user may not read.
os.setgroups([]); os.setgid({user}); os.setuid({user})

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"served"}})

settings = read_settings()
protocol = functools.partial(Connection, door=Door(Owners()))
six = ":" in "{host}"  # uvicorn itself would not take an IPv4 address in this form
listener = socket.create_server(
    ("{host}", settings.port), family=socket.AF_INET6 if six else socket.AF_INET, dualstack_ipv6=six
)
config = uvicorn.Config(Gate(app, settings), http=protocol, lifespan="off", log_level="error")
uvicorn.Server(config).run(sockets=[listener])
"""


@as_root
@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_the_page_of_a_user_is_served_to_it_and_to_root(tmp_path: Path, host: str) -> None:
    port = free_port()
    env = {**os.environ, "STUDIO_HOME": str(tmp_path), "STUDIO_PORT": str(port)}
    code = SERVE.format(user=SOMEBODY, host=host)
    process = subprocess.Popen([sys.executable, "-c", code], env=env, cwd=ROOT)
    try:
        wait_until_up(process, port)
        answers = {user: ask_as(user, port) for user in (SOMEBODY, 0, NOBODY, SOMEBODY + 1)}
        assert {user: answer[9:12] for user, answer in answers.items()} == {
            SOMEBODY: "200", 0: "200", NOBODY: "403", SOMEBODY + 1: "403",
        }  # fmt: skip
    finally:
        process.terminate()
        process.wait(15)


def test_places_are_kept_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_raise_descriptors", lambda: 512)
    assert connections.Door().most == 512 - connections.KEPT_DESCRIPTORS
    monkeypatch.setattr(connections, "_raise_descriptors", lambda: 100_000)
    assert connections.Door().most == connections.MOST


def test_a_place_is_another_machines_address() -> None:
    places = [connections._place((address, 1)) for address in ("127.0.0.1", "::1", "::ffff:127.0.0.2", "10.0.0.1")]
    assert places == ["", "", "", "10.0.0.1"] and connections._place(("::ffff:10.0.0.1", 1)) == "10.0.0.1"
    assert connections._place(("2001:db8::1", 1)) == "2001:db8::1" and connections._place(None) == ""


@pytest.mark.long
def test_a_crowd_of_viewers_keeps_its_connections(page: tuple[subprocess.Popen[str], int]) -> None:
    """A hundred browsers with three open connections each, asking over and over: none is cut."""
    port, failures = page[1], []
    crowd = [http.client.HTTPConnection("127.0.0.1", port, timeout=20) for _ in range(300)]

    def look(some: list[http.client.HTTPConnection]) -> None:
        try:
            for _ in range(3):
                for one in some:
                    one.request("GET", "/api/device")
                    assert one.getresponse().read()
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=look, args=(crowd[start::10],)) for start in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in crowd:
        one.close()
    assert failures == []

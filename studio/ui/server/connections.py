"""Connections of the page: how long one may take to ask, how many there may be, and whose they are.

uvicorn waits for ever for the rest of a request, so a thousand half-sent ones would take all descriptors. Here a head
has some seconds, a body must go on arriving, and where places run out those that are waited for give way, the longest
first. Answers are never timed: a stream lives for hours, and a slow reader is a reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import resource
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from studio.ui.server.owner import Address, Owners

HEAD_SECONDS = 5.0
# A body brings at least so many bytes in so many seconds: a hole of 20 s is longer than a network on the move makes.
BODY_SECONDS, BODY_BYTES = 20.0, 1024
# More than so many unfinished requests at a time are no slow networks: then, and a while after, they have less time.
MANY_UNFINISHED, HURRIED_SECONDS, HURRY_LASTS = 64, 4.0, 30.0
MOST_UNFINISHED = 256
MOST = 1000  # connections; 100 viewers' browsers hold 600 at most
MOST_EACH = 128  # of another machine
# For everything that is not a connection: jobs' files, uploads, pipes to workers.
KEPT_DESCRIPTORS, WANTED_DESCRIPTORS = 300, 4096
STUCK_SECONDS = 5.0
SWEEP_SECONDS = 0.5
# Who gives way first where places run out. What is being answered and moves never does.
_GIVES_WAY = {"head": 0, "rest": 0, "idle": 1, "body": 2, "answer": 3}


class Peer:
    """Who is at the other end of a connection; the request finds it in `scope["state"]["peer"]`."""

    def __init__(self, connection: Connection, owners: Owners | None) -> None:
        self._connection, self._owners = connection, owners
        self._ours: bool | None = None

    def is_ours(self) -> bool:
        """Whether the connection is of our own user or of root, asked once; True where the system does not tell."""
        if self._ours is None:
            self._ours = self._owners is None or self._ask(self._owners)
        return self._ours

    def cut(self) -> None:
        """End the connection at once."""
        self._connection.transport.abort()

    def _ask(self, owners: Owners) -> bool:
        client, server = self._connection.client, self._connection.server
        if not owners.tell:
            return True
        if client is None or server is None or server[1] is None:
            return False
        return owners.uid(client, (server[0], server[1])) in (0, os.geteuid())


class Door:
    """All connections of one server, and the rules for them.

    Args:
        owners: looks up whose a connection is; None where nobody is refused for it.
        most: connections at a time; by default what the descriptors allow, MOST at most.
    """

    def __init__(self, owners: Owners | None = None, most: int | None = None) -> None:
        self.owners = owners
        self.most = most if most is not None else min(MOST, max(64, _raise_descriptors() - KEPT_DESCRIPTORS))
        self._inside: set[Connection] = set()
        self._hurry_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, one: Connection) -> None:
        """Take a new connection in; one that is waited for may have to go, or this one."""
        self._inside.add(one)
        if self._timer is None:
            self._timer = one.loop.call_later(SWEEP_SECONDS, self._sweep, one.loop)
        now = one.loop.time()
        near = [other for other in self._inside if other.place == one.place] if one.place else []
        if len(near) > MOST_EACH:
            self._make_room(near, one, now)
        elif len(self._inside) > self.most:
            self._make_room(list(self._inside), one, now)
        elif len(self._inside) > MOST_UNFINISHED:
            for phases in (("head", "rest"), ("body",)):
                waiting = [other for other in self._inside if other.phase() in phases]
                if len(waiting) > MOST_UNFINISHED:
                    self._make_room(waiting, one, now)

    def leave(self, one: Connection) -> None:
        """Forget a connection."""
        self._inside.discard(one)

    def _make_room(self, among: list[Connection], new: Connection, now: float) -> None:
        """End the connection that can be missed most; the new one where all others are at work."""
        can_go = [other for other in among if other is not new and other.can_go(now)]
        gone = min(can_go, key=lambda other: (_GIVES_WAY[other.phase()], other.worth(now)), default=new)
        self.leave(gone)
        gone.transport.abort()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        unfinished = [one for one in self._inside if one.phase() in ("head", "rest", "body")]
        if len(unfinished) > MANY_UNFINISHED:
            self._hurry_until = now + HURRY_LASTS
        hurried = now < self._hurry_until
        for one in unfinished:
            if one.is_late(now, hurried):
                self.leave(one)
                one.transport.abort()
        self._timer = loop.call_later(SWEEP_SECONDS, self._sweep, loop) if self._inside else None


class Connection(H11Protocol):
    """uvicorn's connection that knows what it is waiting for, and since when.

    Attributes:
        since: time of the loop at which its phase began; of a body, from when its bytes are counted.
        place: address of another machine, "" for this one.
    """

    def __init__(self, *args: Any, door: Door, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.door = door
        self.since, self.place = 0.0, ""
        self._got = self._counted = self._unsent = 0
        self._body = (0.0, 0)  # when it began, and what had come before
        self._moved = 0.0  # when bytes last went out, as far as it was looked at

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "peer": Peer(self, self.door.owners)}
        self.place = _place(self.client)
        self.since = self.loop.time()
        found = transport.get_extra_info("socket")
        if found is not None:
            with contextlib.suppress(OSError):  # who vanished without a word is noticed in the end
                found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free its place."""
        self.door.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note what came; the first byte after a pause begins a new request."""
        before = self.phase()
        self._got += len(data)
        if before == "idle":
            self.since = self.loop.time()
        super().data_received(data)
        if before != "body" and self.phase() == "body":
            self._begin_body()
            self._body = (self.since, self._got)

    def on_response_complete(self) -> None:
        """What is left of a body that nobody reads has little time."""
        self.since = self.loop.time()
        super().on_response_complete()
        if self.phase() == "body":  # the next request came along with this one
            self._begin_body()
            self._body = (self.since, self._got)

    def phase(self) -> str:
        """One of "head", "body", "answer", "rest" (of a body that was answered without being read) and "idle"."""
        if self.cycle is None:
            return "head"
        if not self.cycle.response_complete:
            return "body" if self.cycle.more_body else "answer"
        if self.conn.their_state is h11.SEND_BODY:
            return "rest"
        return "head" if self.timeout_keep_alive_task is None else "idle"

    def is_late(self, now: float, hurried: bool) -> bool:
        """Whether the rest of the request should have come by now."""
        if self.phase() != "body":
            return now - self.since > (HURRIED_SECONDS if hurried else HEAD_SECONDS)
        patience = HURRIED_SECONDS if hurried else BODY_SECONDS
        if self.flow.read_paused:  # we are the slow ones
            self._begin_body()
        if now - self.since <= patience:
            return False
        late = self._got - self._counted < BODY_BYTES * patience / BODY_SECONDS
        self._begin_body()
        return late

    def can_go(self, now: float) -> bool:
        """Whether it may give way where places are needed: what is being answered, only when it does not move."""
        if self.phase() != "answer":
            return True
        unsent = self.transport.get_write_buffer_size()
        if not self.flow.write_paused or unsent != self._unsent:
            self._moved, self._unsent = now, unsent
        return now - self._moved > STUCK_SECONDS

    def worth(self, now: float) -> float:
        """How much would be lost, among those in the same phase: bodies by their speed, others by their age."""
        if self.phase() == "body":
            begun, got = self._body
            return (self._got - got + BODY_BYTES) / max(now - begun, 0.1)
        return self._moved if self.phase() == "answer" else self.since

    def _begin_body(self) -> None:
        self.since, self._counted = self.loop.time(), self._got


def _place(client: Address | None) -> str:
    """Another machine's address; "" for this one, whose users and tunnels all come from the same."""
    try:
        found = ipaddress.ip_address(client[0].partition("%")[0]) if client else None
    except ValueError:
        return ""
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return "" if found is None or (mapped or found).is_loopback else str(mapped or found)


def _raise_descriptors() -> int:
    """Ask for more descriptors, as far as the system lets us; returns how many there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(WANTED_DESCRIPTORS, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return WANTED_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

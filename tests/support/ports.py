"""Ports for the servers that tests start: a range for each worker, so that none takes another's before it is used."""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator

_FIRST, _EACH = 20_000, 2_000  # below the ports that the system gives to clients


def _range() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = range(_FIRST + worker * _EACH, _FIRST + (worker + 1) * _EACH)
    return itertools.cycle(random.sample(ports, len(ports)))


_ports = _range()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that no other test gets for long."""
    for port in _ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("unreachable: the ports go round")

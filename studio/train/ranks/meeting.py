"""Where the launchers of several machines meet: a store of torch's at the first one, which listens at one address only.

Where it listens and a token are in a file of the shared folder that only its owner reads. torch's own c10d rendezvous
numbers machines as it likes, unpickles what comes to an open port, and says of a machine that never came that there
was a timeout: so this one is registered with torch's launcher in its place. The network must be trusted all the same.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch.distributed import DistError, PrefixStore, TCPStore
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

from studio.errors import InputError, StoppedError, StudioError
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import read_json, write_json
from studio.jobs.store.logs import read_tail
from studio.train.ranks import machines
from studio.train.ranks.ends import FOLDER
from studio.train.ranks.machines import Asked

# In the folder of the ranks; with a dot, so that it is not taken along when a job's folder is copied.
FILE = ".meeting.json"
LOOK_SECONDS = 0.5
_REACH_SECONDS = 5.0
# Longer than anything of the launchers takes once all of them are there.
_STORE_SECONDS = 60.0
_QUOTED = 300  # letters of a sentence from another machine
TORCHRUN = "--to torchrun"


class Meeting(RendezvousHandler):
    """One machine's side of it; what is said is JSON under a key.

    Args:
        number: of this machine, from 0.
        nodes: machines of the run.
        host, port: at which the first one listens.
        token: that only the machines of this run know.
        store: connected with it.
    """

    def __init__(self, number: int, nodes: int, host: str, port: int, token: str, store: TCPStore) -> None:
        self.number, self.nodes, self.host, self.port = number, nodes, host, port
        self.name = f"studio-{token}"
        self._token, self._raw, self._store = token, store, PrefixStore(token, store)

    def register(self) -> str:
        """Make torch's launcher use it; returns the name under which it does."""
        rendezvous_handler_registry.register(self.name, lambda parameters: self)
        return self.name

    def again(self) -> Meeting:
        """Another connection, for another thread.

        Raises:
            DistError: the first machine does not answer.
        """
        made = object.__new__(Meeting)
        made.__dict__.update(self.__dict__)
        made._raw = _connected(self.host, self.port)
        made._store = PrefixStore(self._token, made._raw)
        return made

    def say(self, key: str, value: Any) -> None:
        """Say something to all.

        Args:
            key: what it is about.
            value: of JSON.

        Raises:
            DistError: the first machine does not answer.
        """
        self._store.set(key, json.dumps(value))

    def hear(self, key: str) -> Any:
        """What was said last; None for nothing. Raises as `say`."""
        return json.loads(self._store.get(key)) if self._store.check([key]) else None

    def claim(self) -> bool:
        """Whether this is the first launcher that comes as this machine. Raises as `say`."""
        return bool(self._store.add(f"claim/{self.number}", 1) == 1)

    # What torch's launcher asks.

    def get_backend(self) -> str:
        """Name under which torch knows it."""
        return self.name

    @property
    def use_agent_store(self) -> bool:
        """The ranks meet there, too."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """Everybody is here already."""
        found = RendezvousStoreInfo(self.host, self.port)
        return RendezvousInfo(PrefixStore("launchers", self._store), self.number, self.nodes, found)

    def is_closed(self) -> bool:
        """Never: it is for one start."""
        return False

    def set_closed(self) -> None:
        """Nothing to do."""

    def num_nodes_waiting(self) -> int:
        """Nobody comes later."""
        return 0

    def get_run_id(self) -> str:
        """Name of this start."""
        return self.name

    def shutdown(self) -> bool:
        """It ends with the process of the first machine."""
        return True


@contextlib.contextmanager
def called(context: JobContext, nodes: int) -> Iterator[Meeting]:
    """Call the other machines together from the first one, and wait until all of them are there.

    Args:
        context: of the job.
        nodes: machines of the run.

    Raises:
        InputError, StudioError: the address or port cannot be had; a machine cannot compute the run, or does not come.
        StoppedError: a stop was asked for meanwhile.
    """
    job, asked = context.job.path, machines.read_asked(context.job.path)
    host = asked.host or machines.own_address()
    listening = _listening(host, asked.port)
    port, token = int(listening.getsockname()[1]), secrets.token_hex(16)
    store = TCPStore(
        host, port, None, True, timeout=timedelta(seconds=_STORE_SECONDS), wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )  # fmt: skip
    meeting = Meeting(0, nodes, host, port, token, store)
    end: dict[str, Any] = {"refused": "the first machine has ended"}
    try:
        meeting.say("open", True)
        write_json(job / FOLDER / FILE, {"host": host, "port": port, "token": token})
        _wait_for_all(context, meeting, asked)
        meeting.say("answer", {})
        yield meeting
        end = {}
    except StudioError as error:
        end = {"refused": error.sentence, "stopped": isinstance(error, StoppedError)}
        raise
    finally:
        # Also for those who come now that nobody listens any more.
        write_json(job / FOLDER / FILE, {"over": {**end, "start": token}})
        with contextlib.suppress(DistError):
            if meeting.hear("answer") is None:
                meeting.say("answer", end)
            meeting.say("over", end)
            time.sleep(2 * LOOK_SECONDS)  # the store goes with this process, and the others are to hear it


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(1024)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        have = ", ".join(machines.addresses())
        raise InputError(
            f"the first machine cannot listen at {host}, port {port or 'any'} ({reason})", where=TORCHRUN,
            fix=f"Launch it on the machine with that address (here: {have}), or name another port: --with port=0",
        ) from error  # fmt: skip
    return made


def _wait_for_all(context: JobContext, meeting: Meeting, asked: Asked) -> None:
    job, ours = context.job.path, machines.versions()
    absent = set(range(1, meeting.nodes))
    lines = {one: machines.joining_line(job, one, context.settings.home) for one in absent}
    if asked.by_hand:
        for one, line in lines.items():
            context.notice("info", f"start machine {one} of this run with", line)
    end = time.monotonic() + asked.wait
    with context.phase("waiting for machines", meeting.nodes, "machines") as phase:
        while absent:
            context.check_stop()
            for one in sorted(absent):
                hello = meeting.hear(f"hello/{one}")
                if hello is not None:
                    _require_able(one, hello, ours)
                    absent.remove(one)
                    context.log(f"machine {one} has joined: {str(hello.get('machine'))[:_QUOTED]}")
            phase.set(meeting.nodes - len(absent))
            if absent and time.monotonic() > end:
                raise _absent(job, min(absent), meeting, asked, lines)
            time.sleep(LOOK_SECONDS if absent else 0)


def _require_able(number: int, hello: dict[str, Any], ours: dict[str, Any]) -> None:
    who = f"machine {number} ({str(hello.get('machine'))[:_QUOTED]})"
    if differs := machines.difference(hello.get("versions") or {}, ours):
        raise StudioError(f"{who} {differs[:_QUOTED]}", fix="Install the same version on all machines")
    if hello.get("problem"):
        raise StudioError(f"{who} cannot compute it: {str(hello['problem'])[:_QUOTED]}")


def _absent(job: Path, number: int, meeting: Meeting, asked: Asked, lines: dict[int, str]) -> StudioError:
    log = machines.log_of_machine(job, number)
    said = [line for line in read_tail(log).text.splitlines() if line.strip()] if log.exists() else []
    word = f"; it says: {said[-1].strip()[:_QUOTED]}" if said else ""
    fix = f"Start it there: {lines[number]}" if asked.by_hand else "See slurm.log in the job's folder"
    return StudioError(
        f"machine {number} of {meeting.nodes} did not connect to {meeting.host}, port {meeting.port}, within "
        f"{asked.wait:g} seconds{word}",
        fix=fix,
    )


def joined(job: Path, number: int, nodes: int, problem: str, log: Callable[[str], None]) -> Meeting:
    """Come to the first machine as another one, and wait until all are there.

    Args:
        job: the job's folder.
        number: of this machine, from 1.
        nodes: machines of the run.
        problem: why this one cannot compute its part; "" if it can.
        log: is told what happens.

    Raises:
        StudioError: the first machine cannot be reached, or the run does not begin.
    """
    asked = machines.read_asked(job)
    end = time.monotonic() + asked.wait
    reason, told, place = "it has not begun", "", ""
    before = _over(job)  # of a start that this machine was not for
    while time.monotonic() < end:
        found, over = _place(job), _over(job)
        if over != before:
            _require_begun(over, number)
        if found is not None:
            place = f"{found[0]}, port {found[1]}"
            reason = _unreachable(found[0], found[1])
            if not reason:
                try:
                    return _come(number, nodes, found, problem, end, log)
                except DistError:
                    reason = "it went away"
        if reason != told:
            log(f"waiting for the first machine{f' at {place}' if place else ''}: {reason}")
            told = reason
        time.sleep(LOOK_SECONDS)
    at = f" at {place}" if place else ""
    raise StudioError(
        f"the first machine cannot be reached{at} from here: {reason}", where=f"machine {number}",
        fix="Open that port between the machines, or launch the run with another address: --with host=ADDRESS"
        if place else "Start the run on the first machine; both must see the same STUDIO_HOME",
    )  # fmt: skip


def _place(job: Path) -> tuple[str, int, str] | None:
    """Where the first machine listens, and the token; None while it does not say so."""
    try:
        found = read_json(job / FOLDER / FILE)
        return str(found["host"]), int(found["port"]), str(found["token"])
    except (ValueError, KeyError, TypeError):
        return None


def _over(job: Path) -> dict[str, Any]:
    """How the last start ended, as its first machine says; empty where it says nothing."""
    try:
        found = read_json(job / FOLDER / FILE)["over"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _unreachable(host: str, port: int) -> str:
    """Why a port cannot be reached; "" if it can. Without a word of torch, which would print where it stood."""
    try:
        socket.create_connection((host, port), timeout=_REACH_SECONDS).close()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _connected(host: str, port: int) -> TCPStore:
    return TCPStore(
        host, port, None, False, timeout=timedelta(seconds=_STORE_SECONDS), wait_for_workers=False
    )  # fmt: skip


def _come(
    number: int, nodes: int, found: tuple[str, int, str], problem: str, end: float, log: Callable[[str], None]
) -> Meeting:  # fmt: skip
    host, port, token = found
    meeting = Meeting(number, nodes, host, port, token, _connected(host, port))
    if meeting.hear("open") is None:
        raise DistError("another store")
    if not meeting.claim():
        raise InputError(
            f"another launcher has already joined as machine {number}", where=f"machine {number}",
            fix="End one of them, or give this one its own number",
        )  # fmt: skip
    meeting.say(
        f"hello/{number}", {"machine": socket.gethostname(), "versions": machines.versions(), "problem": problem}
    )
    log(f"connected to the first machine at {host}, port {port}")
    while (answer := meeting.hear("answer")) is None:
        if time.monotonic() > end + _STORE_SECONDS:
            raise StudioError("the run cannot start", where=f"machine {number}", fix="Look at the run's log")
        time.sleep(LOOK_SECONDS)
    _require_begun(answer, number)
    return meeting


def _require_begun(answer: dict[str, Any], number: int) -> None:
    """Raise what the first machine says of a run that does not begin, or is over."""
    if "refused" in answer:
        kind = StoppedError if answer.get("stopped") else StudioError
        raise kind(f"the run cannot start: {answer['refused']}", where=f"machine {number}")

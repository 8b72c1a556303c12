"""Sessions: what stands for a person who has signed in, in two parts of which neither is of use alone.

A browser sends the cookie to every port of this machine, and lets every port write it. So the page keeps a second part,
its key, in its own storage (which belongs to one port) and sends it as a header. Both are random; the home keeps hashes
only, in one file that all web processes and the command line share, so a session outlives a restart of the page and
ends everywhere at once: by signing out, by its time, or with the password that it was given for.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from studio.jobs.store.files import write_json
from studio.settings import Settings, browser_secret
from studio.ui.server.login import Logins

GRACE_SECONDS = 60.0  # requests that were on their way with the older ones
LOCK_SECONDS = 5.0
MOST_EACH = 100  # sessions of one name: signing in once more ends the oldest
LINK_SECONDS = 12 * 3600.0
_FILE = "sessions.json"


class Pair(NamedTuple):
    """Both parts of a session, as the browser gets them; `until` in Unix seconds."""

    cookie: str
    key: str
    until: float


class SessionFile:
    """What the home knows of sessions and of links that open one: `{"sessions": {...}, "links": {...}}`."""

    def __init__(self, home: Path) -> None:
        self.path = home / _FILE
        self._stamp: tuple[int, int, int] | None = None
        self._found: dict[str, dict[str, Any]] = {"sessions": {}, "links": {}}
        self._lock = threading.Lock()

    def read(self) -> dict[str, dict[str, Any]]:
        """What is in the file now; read again only when it was written."""
        stamp: tuple[int, int, int] | None
        try:
            about = self.path.stat()
            stamp = (about.st_mtime_ns, about.st_ino, about.st_size)
        except OSError:
            stamp = None
        if stamp != self._stamp:
            self._found, self._stamp = _load(self.path), stamp
        return self._found

    def change(self, work: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
        """Let `work` change sessions and links, and write what has not ended.

        Raises:
            OSError: the file cannot be written; a copy in memory holds until this process ends.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a full disk: what follows says so
                stack.enter_context(FileLock(self.path.with_name(f".{_FILE}.lock"), timeout=LOCK_SECONDS, mode=0o600))
            self.read()
            found: dict[str, dict[str, Any]] = json.loads(json.dumps(self._found))
            work(found["sessions"], found["links"])
            now = time.time()
            found["sessions"] = {name: one for name, one in found["sessions"].items() if one["until"] > now}
            found["links"] = {name: until for name, until in found["links"].items() if until > now}
            self._found = found
            write_json(self.path, found)

    def end_all(self, name: str | None = None) -> int:
        """End the sessions of this name, of everybody by default; returns how many."""
        ended = [one for one, about in self.read()["sessions"].items() if name is None or about["name"] == name]

        def end(sessions: dict[str, Any], _links: dict[str, Any]) -> None:
            for one in [one for one, about in sessions.items() if name is None or about["name"] == name]:
                del sessions[one]

        self.change(end)
        return len(ended)

    def new_link(self, alone: bool = False) -> str:
        """Return a code that opens one session, once; `alone` ends those that were given before."""
        code = secrets.token_urlsafe(24)

        def add(_sessions: dict[str, Any], links: dict[str, Any]) -> None:
            if alone:
                links.clear()
            links[_hash(code)] = time.time() + LINK_SECONDS

        self.change(add)
        return code

    def take_link(self, code: str) -> bool:
        """Whether this code opens a session; it does so once."""
        taken = False
        if _hash(code) not in self.read()["links"]:
            return False

        def take(_sessions: dict[str, Any], links: dict[str, Any]) -> None:
            nonlocal taken
            taken = links.pop(_hash(code), 0.0) > time.time()

        self.change(take)
        return taken


class Sessions:
    """Begins, finds, renews and ends sessions.

    A session is kept as `{"name", "until", "mark", "parts", "renewed", "grace"}`: `mark` binds it to the password,
    `parts` are the hashes of cookie and key, newest first, and the second of them counts until `grace` (None: until the
    first was seen, because its answer may have been lost on the way).
    """

    def __init__(self, settings: Settings, logins: Logins) -> None:
        self.file = SessionFile(settings.home)
        self._logins = logins
        self._seconds = settings.session_hours * 3600
        self._secret = browser_secret(settings).encode()

    def begin(self, name: str) -> Pair:
        """Return both parts of a new session.

        It is always a new one: what a browser sent before counts for nothing, so no other port can choose it.
        """
        one = secrets.token_urlsafe(9)
        pair, hashes = _pair(one, time.time() + self._seconds)

        def add(sessions: dict[str, Any], _links: dict[str, Any]) -> None:
            sessions[one] = {
                "name": name, "until": pair.until, "mark": self._mark(name), "parts": [hashes],
                "renewed": time.time(), "grace": None,
            }  # fmt: skip
            own = [other for other, about in sessions.items() if about["name"] == name]
            for other in own[:-MOST_EACH]:
                del sessions[other]

        with contextlib.suppress(OSError):  # a full disk locks nobody out: the session ends with this process
            self.file.change(add)
        return pair

    def find(self, cookies: Iterable[str], key: str) -> str | None:
        """The session that this key and one of these cookies are the parts of; None where there is none.

        All cookies of the name are looked at: another port can add one, which must neither open nor hide a session.
        """
        one = key.partition(".")[0]
        about = self._alive(one)
        if about is None:
            return None
        parts = self._parts(about)
        held = [number for number, (_, known) in enumerate(parts) if _same(key, known)]
        sent = [number for number, (known, _) in enumerate(parts) for cookie in cookies if _same(cookie, known)]
        if not held or not sent:
            return None
        if len(about["parts"]) > 1 and about["grace"] is None and held == [0] and 0 in sent:
            self._change_one(one, lambda found: found.update(grace=time.time() + GRACE_SECONDS))
        return one

    def knows(self, cookies: Iterable[str]) -> str | None:
        """The session of one of these cookies: enough for what is the same for everybody, and for nothing else."""
        for cookie in cookies:
            one = cookie.partition(".")[0]
            about = self._alive(one)
            if about is not None and any(_same(cookie, known) for known, _ in self._parts(about)):
                return one
        return None

    def lives(self, one: str) -> bool:
        """Whether this session has not ended."""
        return self._alive(one) is not None

    def renew(self, one: str) -> Pair | None:
        """Return new parts with the same end; None right after the last time, when another tab has done it."""
        about = self._alive(one)
        if about is None or time.time() - about["renewed"] < GRACE_SECONDS:
            return None
        pair, hashes = _pair(one, about["until"])
        self._change_one(
            one,
            lambda found: found.update(parts=[hashes, found["parts"][0]], renewed=time.time(), grace=None),
        )
        return pair

    def end(self, one: str, everywhere: bool = False) -> None:
        """Sign out: this session, or all of its name, end now, with every copy and after a restart.

        Raises:
            OSError: it could not be written, so it holds only until this process ends.
        """
        about = self._alive(one)
        if about is None:
            return
        if everywhere:
            self.file.end_all(about["name"])
        else:
            self.file.change(lambda sessions, _links: sessions.pop(one, None) and None)

    def _alive(self, one: str) -> dict[str, Any] | None:
        about = self.file.read()["sessions"].get(one)
        if about is None or about["until"] <= time.time() or about["mark"] != self._mark(about["name"]):
            return None
        return dict(about)

    def _parts(self, about: dict[str, Any]) -> list[list[str]]:
        over = about["grace"] is not None and about["grace"] <= time.time()
        return list(about["parts"][:1] if over else about["parts"])

    def _mark(self, name: str) -> str | None:
        """What ties a session to the password of its name; None, which no session has, for a name not let in."""
        credential = self._logins.credential(name)
        if credential is None:
            return None
        return hmac.new(self._secret, b"session\0" + credential.encode(), hashlib.sha256).hexdigest()

    def _change_one(self, one: str, work: Callable[[dict[str, Any]], None]) -> None:
        def change(sessions: dict[str, Any], _links: dict[str, Any]) -> None:
            if one in sessions:
                work(sessions[one])

        with contextlib.suppress(OSError):  # it holds in memory
            self.file.change(change)


class Downloads:
    """Addresses that open one download, once, for who holds the session's cookie: a link can send no header."""

    SECONDS, MOST = 60.0, 1000

    def __init__(self) -> None:
        self._links: dict[str, tuple[float, str, str]] = {}

    def make(self, session: str, address: str) -> str:
        """Return the code for this address (path and query)."""
        now = time.monotonic()
        self._links = {code: about for code, about in self._links.items() if about[0] > now}
        while len(self._links) >= self.MOST:
            self._links.pop(next(iter(self._links)))
        code = secrets.token_urlsafe(24)
        self._links[code] = (now + self.SECONDS, session, address)
        return code

    def take(self, code: str, session: str, address: str) -> bool:
        """Whether this code is for this address and session; it is used up in any case.

        Args:
            code: from the link; unknown and expired ones are False.
            session: of whoever follows the link.
            address: on this server, path and query.
        """
        until, owner, wanted = self._links.pop(code, (0.0, "", ""))
        return until > time.monotonic() and owner == session and wanted == address


def _pair(one: str, until: float) -> tuple[Pair, list[str]]:
    pair = Pair(f"{one}.{secrets.token_urlsafe(24)}", f"{one}.{secrets.token_urlsafe(24)}", until)
    return pair, [_hash(pair.cookie), _hash(pair.key)]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(_hash(given), known)


def _load(path: Path) -> dict[str, dict[str, Any]]:
    """What the file says; nothing of one that is damaged, so that everybody signs in again."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, encoding="utf-8") as file:
            found = json.load(file)
        links = {str(code): float(until) for code, until in found["links"].items()}
        return {"sessions": {str(one): _record(about) for one, about in found["sessions"].items()}, "links": links}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {"sessions": {}, "links": {}}


def _record(about: dict[str, Any]) -> dict[str, Any]:
    grace = about["grace"]
    return {
        "name": str(about["name"]), "until": float(about["until"]), "mark": str(about["mark"]),
        "parts": [[str(cookie), str(key)] for cookie, key in about["parts"]], "renewed": float(about["renewed"]),
        "grace": None if grace is None else float(grace),
    }  # fmt: skip

"""Who may sign in, how often one may guess, and the session that follows: all that the gate knows of passwords.

One password for all (STUDIO_PASSWORD), or names with scrypt hashes in a file (STUDIO_LOGIN_FILE). A session is a
signed cookie with an end: nothing is kept of it until somebody signs out, so it outlives a restart of the page. It
ends at once when the password it was given for changes. It does not know what a person may do: everything.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import os
import re
import secrets
import threading
import time
from pathlib import Path

from studio.errors import InputError
from studio.jobs.files import write_json
from studio.settings import Settings, browser_secret

LEAST_PASSWORD = 8
SESSION_SECONDS = 7 * 24 * 3600.0
GUESS_SECONDS = 60.0
GUESSES_EACH = 5  # wrong passwords that one address may send in GUESS_SECONDS
GUESSES_ALL = 30  # and all addresses together
# n, r and p of scrypt: 32 MB and about a fifth of a second for each try (RFC 7914; OWASP's second row).
_COST = (2**15, 8, 3)
_NAME = re.compile(r"[\w.@-]{1,64}", re.ASCII)
_SIGNED_OUT = "signed-out.json"


def hash_password(password: str, salt: bytes | None = None, cost: tuple[int, int, int] = _COST) -> str:
    """Return `scrypt$n$r$p$salt$hash` of a password, the last two in base64.

    Args:
        password: as it was typed.
        salt: 16 random bytes by default.
        cost: n, r and p of scrypt; memory is 128·n·r bytes.
    """
    n, r, p = cost
    salt = secrets.token_bytes(16) if salt is None else salt
    made = hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=32)
    return "$".join(["scrypt", str(n), str(r), str(p), *(base64.b64encode(part).decode() for part in (salt, made))])


def fits(password: str, hashed: str) -> bool:
    """Whether a password has this hash (of `hash_password`), compared in constant time."""
    _, n, r, p, salt, _ = hashed.split("$")
    again = hash_password(password, base64.b64decode(salt), (int(n), int(r), int(p)))
    return hmac.compare_digest(again.encode(), hashed.encode())


def require_strong(password: str, where: str) -> None:
    """Refuse a password that is too short.

    Raises:
        InputError: it has fewer than LEAST_PASSWORD characters.
    """
    if len(password) < LEAST_PASSWORD:
        raise InputError(
            f"a password of {len(password)} characters can be guessed",
            where=where,
            fix=f"Use at least {LEAST_PASSWORD} characters",
        )


def require_login_name(name: str) -> None:
    """Refuse a name that a login file cannot hold.

    Raises:
        InputError: it is empty, too long, or has other characters.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"'{name}' cannot be a name", where="--user", fix="Use letters, digits and . @ _ -, 64 at most"
        )


def read_logins(path: Path) -> dict[str, str]:
    """Return name → hash of a login file: lines `name:hash`; empty lines and those with # are left out.

    Raises:
        InputError: it is missing, others may read it, has no login, or a line is not one.
    """
    try:
        text, mode = path.read_text(encoding="utf-8"), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "the login file cannot be read", where=str(path), fix="Make it with 'studio password --file'"
        ) from error
    if mode & 0o077:
        raise InputError("other users may read the login file", where=str(path), fix=f"Run: chmod 600 '{path}'")
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.strip().partition(":")
        if not _NAME.fullmatch(name) or name in found or not _is_hash(hashed):
            raise InputError(
                "this is no login, or its name is there already", where=f"{path}, line {number}",
                fix="A line is NAME:HASH, as 'studio password' prints it",
            )  # fmt: skip
        found[name] = hashed
    if not found:
        raise InputError("the login file is empty", where=str(path), fix="Add a line with 'studio password --file'")
    return found


class Logins:
    """Names and passwords that are let in.

    Raises:
        InputError: the login file cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._password = settings.password
        self._hashes = read_logins(settings.login_file) if settings.login_file is not None else {}
        # A name that is not there costs the same time as one that is.
        self._nobody = hash_password(secrets.token_hex(8)) if self._hashes else ""
        self._busy = threading.Lock()  # one scrypt at a time: each takes 32 MB

    @property
    def named(self) -> bool:
        """Whether a name is asked for too."""
        return bool(self._hashes)

    def check(self, name: str, password: str) -> bool:
        """Whether this name may come in with this password; takes the same time whatever is wrong."""
        if self._password is not None:
            given, wanted = (hashlib.sha256(text.encode()).digest() for text in (password, self._password))
            return hmac.compare_digest(given, wanted)
        with self._busy:
            right = fits(password, self._hashes.get(name, self._nobody))
        return right and name in self._hashes

    def credential(self, name: str) -> str | None:
        """What a session of this name depends on: password or hash; None for a name that is not let in."""
        if self._password is not None:
            return self._password if name == "" else None
        return self._hashes.get(name)


class Guesses:
    """Counts wrong passwords: few from each address, not many from all together."""

    def __init__(self) -> None:
        self._wrong: list[tuple[float, str]] = []

    def take(self, address: str) -> tuple[float, str] | None:
        """Count a guess as wrong until `right` takes it back; None when there were too many.

        Counted before it is checked, so that many at a time are not more than one after the other.
        """
        now, who = time.monotonic(), _network(address)
        self._wrong = [(at, other) for at, other in self._wrong if now - at < GUESS_SECONDS]
        own = sum(other == who for _, other in self._wrong)
        if own >= GUESSES_EACH or len(self._wrong) >= GUESSES_ALL:
            return None
        self._wrong.append((now, who))
        return now, who

    def right(self, guess: tuple[float, str]) -> None:
        """This guess was right."""
        self._wrong = [one for one in self._wrong if one != guess]


class Sessions:
    """Makes and checks the cookie's value: name, end (Unix seconds), a random part, and a signature over them."""

    def __init__(self, settings: Settings, logins: Logins) -> None:
        self._logins = logins
        self._secret = browser_secret(settings).encode()
        self._path = settings.home / _SIGNED_OUT
        self._lock = threading.Lock()
        self._signed_out = _read_ends(self._path)

    def begin(self, name: str) -> str:
        """Return the cookie of a new session."""
        head = f"{_code(name)}.{int(time.time() + SESSION_SECONDS)}.{secrets.token_urlsafe(16)}"
        return f"{head}.{self._sign(head, name)}"

    def holds(self, cookie: str) -> bool:
        """Whether this is a session of ours that has not ended and was not signed out."""
        return self._read(cookie) is not None

    def end(self, cookie: str) -> None:
        """Sign out: the cookie is of no use from now on, also where it was copied to and after a restart."""
        found = self._read(cookie)
        if found is None:
            return
        random, until = found
        with self._lock:
            now = time.time()
            self._signed_out = {one: end for one, end in self._signed_out.items() if end > now} | {random: until}
            write_json(self._path, self._signed_out)

    def _read(self, cookie: str) -> tuple[str, float] | None:
        head, _, signature = cookie.rpartition(".")
        code, _, rest = head.partition(".")
        until, _, random = rest.partition(".")
        name = _decode(code)
        if name is None or self._logins.credential(name) is None:
            return None
        if not hmac.compare_digest(self._sign(head, name).encode(), signature.encode()):
            return None
        # Signed by us, so it is a number.
        return None if float(until) <= time.time() or random in self._signed_out else (random, float(until))

    def _sign(self, head: str, name: str) -> str:
        key = hmac.digest(self._secret, b"session\0" + str(self._logins.credential(name)).encode(), "sha256")
        return hmac.new(key, head.encode(), hashlib.sha256).hexdigest()


def write_login(path: Path, name: str, hashed: str) -> bool:
    """Put a login into a file that only its owner can read; True when the name had one before, which is replaced.

    Raises:
        InputError: the file is there and is no login file.
    """
    known = path.exists() and name in read_logins(path)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    lines = [f"{name}:{hashed}" if line.strip().startswith(f"{name}:") else line for line in lines]
    lines += [] if known else [f"{name}:{hashed}"]
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    os.replace(partial, path)
    return known


def _is_hash(text: str) -> bool:
    parts = text.split("$")
    try:
        n, r, p = (int(part) for part in parts[1:4])
        salt, made = (base64.b64decode(part, validate=True) for part in parts[4:])
    except (ValueError, binascii.Error):
        return False
    small = 2 <= n <= 2**20 and n & (n - 1) == 0 and 1 <= r <= 32 and 1 <= p <= 16
    return parts[0] == "scrypt" and small and len(salt) >= 8 and len(made) == 32


def _network(address: str) -> str:
    """The address itself; of IPv6 the first half, since one connection has all of the second."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address


def _code(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _decode(code: str) -> str | None:
    try:
        return base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)).decode()
    except (ValueError, binascii.Error):
        return None


def _read_ends(path: Path) -> dict[str, float]:
    try:
        return {str(key): float(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}

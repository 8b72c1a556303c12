"""Who may sign in and how often one may guess: all that the page knows of passwords.

One password for all (STUDIO_PASSWORD), names with scrypt hashes in a file (STUDIO_LOGIN_FILE), or a link that opens one
session (STUDIO_TOKEN=1). What follows a right one is in `sessions`. It does not know what a person may do: everything.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import threading
import time
from pathlib import Path

from studio.errors import InputError
from studio.settings import Settings

LEAST_PASSWORD = 8
GUESS_SECONDS = 60.0
GUESSES_EACH = 5  # wrong passwords that one address may send in GUESS_SECONDS
GUESSES_ALL = 30  # and all addresses together
# n, r and p of scrypt: 32 MB and about a fifth of a second for each try (RFC 7914; OWASP's second row).
_COST = (2**15, 8, 3)
_NAME = re.compile(r"[\w.@-]{1,64}", re.ASCII)


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
            f"a password of {len(password)} characters is too short",
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
            f"'{name}' is not a valid name", where="--user", fix="Use letters, digits and . @ _ -, 64 at most"
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
                "not a login, or its name occurs twice", where=f"{path}, line {number}",
                fix="A line is NAME:HASH, as 'studio password' prints it",
            )  # fmt: skip
        found[name] = hashed
    if not found:
        raise InputError("the login file is empty", where=str(path), fix="Add a line with 'studio password --file'")
    return found


class Logins:
    """Names and passwords that are let in.

    Attributes:
        by_link: no password is: a link opens a session without a name.

    Raises:
        InputError: the login file cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.by_link = settings.link
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
        if not self._hashes:
            return False
        with self._busy:
            right = fits(password, self._hashes.get(name, self._nobody))
        return right and name in self._hashes

    def credential(self, name: str) -> str | None:
        """What a session of this name depends on: password or hash; None for a name that is not let in."""
        if self._password is not None or self.by_link:
            return (self._password or "by link") if name == "" else None
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


def write_login(path: Path, name: str, hashed: str) -> bool:
    """Put a login into a file that only its owner can read; True when the name had one before, which is replaced.

    Args:
        path: created with mode 0600 where it is missing.
        name: of the person; a colon is not allowed.
        hashed: from the password hasher, never the password.

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

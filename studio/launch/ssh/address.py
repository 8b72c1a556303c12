"""ssh://[user@]host[:port][/folder], taken apart and checked before any program sees it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from studio.errors import InputError

SCHEME = "ssh://"
#: Below the home there, where an address names no folder.
FOLDER = ".finetune-studio-launch"
_FORM = "ssh://[user@]host[:port][/folder]"
# Also what keeps a name from being read as an option of ssh.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]*")


@dataclass(frozen=True)
class Address:
    """Where a machine is, and the folder on it.

    Attributes:
        host: a name, an address, or a `Host` of ~/.ssh/config.
        user: to sign in as; "" leaves it to ssh.
        port: None leaves it to ssh.
        folder: absolute, or relative to the home there.
    """

    host: str
    user: str = ""
    port: int | None = None
    folder: str = FOLDER

    @property
    def shown(self) -> str:
        """The machine without the folder, for a list: user@host."""
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def text(self) -> str:
        """The whole address, as it is typed."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        place = f"{self.user}@{host}" if self.user else host
        folder = "" if self.folder == FOLDER else self.folder if self.folder.startswith("/") else f"/~/{self.folder}"
        folder = re.sub(r"[%?#]", lambda sign: quote(sign[0]), folder)  # it is taken apart again
        return f"{SCHEME}{place}{f':{self.port}' if self.port else ''}{folder}"


def parse_address(text: str, where: str = "--to") -> Address:
    """Take an address apart; /~/name is a folder below the home there.

    Args:
        text: as it was typed.
        where: the option, for errors.

    Raises:
        InputError: it is none.
    """
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _wrong(text, where) from error
    # urlsplit writes hosts in lower case; a name of ~/.ssh/config is told from another one by its case.
    at = parts.netloc.lower().rfind(host)
    host = parts.netloc[at : at + len(host)] if host and at >= 0 else host
    if parts.password is not None:
        raise InputError(
            "the address holds a password, which the studio never uses", where=where,
            fix="Let a key or an agent sign you in, and write ssh://user@host",
        )  # fmt: skip
    user, folder = unquote(parts.username or ""), unquote(parts.path).rstrip("/")
    if parts.scheme != "ssh" or parts.query or parts.fragment or not _HOST.fullmatch(host):
        raise _wrong(text, where)
    if user and not _USER.fullmatch(user):
        raise _wrong(text, where)
    if any(ord(letter) < 32 for letter in folder) or "/../" in f"{folder}/":
        raise InputError(f"'{folder}' is not a folder's path", where=where, fix=f"Write it as {_FORM}")
    folder = folder.removeprefix("/~/") if folder.startswith("/~/") else folder
    return Address(host, user, port, folder or FOLDER)


def _wrong(text: str, where: str) -> InputError:
    return InputError(f"'{text}' is not the address of a machine", where=where, fix=f"Write it as {_FORM}")

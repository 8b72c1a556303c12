"""Which names a page may read: below a root, none of the studio's own secrets, nothing that is a secret anywhere.

It looks at names and at the numbers of files, and opens nothing; `reach` does, and asks here before.
"""

from __future__ import annotations

import contextlib
import os
from functools import lru_cache
from pathlib import Path

from studio.private import OWN_FILES
from studio.settings import Settings

# What may lie in a folder that somebody put into STUDIO_ROOTS, and is no data in any.
_SECRET_FOLDERS = {".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".password-store"}
_SECRET_FILES = {
    ".env", ".netrc", "_netrc", ".pypirc", ".npmrc", ".git-credentials", ".pgpass", ".my.cnf",
    "browser.secret", "signed-out.json",  # another home's
}  # fmt: skip
_SECRET_ENDINGS = (".env", ".pem", ".key", ".p12", ".pfx", ".kdbx")


def may_be_named(real: Path, settings: Settings) -> bool:
    """Whether a page may read what has this name, its links resolved."""
    roots = [pinned(root) for root in (settings.home, *settings.roots)]
    below = [root for root in roots if real.is_relative_to(root)]
    if not below:
        return False
    home = pinned(settings.home)
    if real.is_relative_to(home):
        inner = [part.casefold() for part in real.relative_to(home).parts]
        top = inner[0] if inner else ""
        if top in (settings.temporary.name, settings.secrets.name) or (len(inner) == 1 and _is_own(top)):
            return False
    # By the widest root: a folder of keys in it is one also where somebody named that folder as a root of its own.
    parts = [part.casefold() for part in real.relative_to(min(below, key=lambda root: len(root.parts))).parts]
    return not (
        _SECRET_FOLDERS.intersection(parts)
        or (parts and (parts[-1] in _SECRET_FILES or parts[-1].startswith(".env.")))
        or (parts and parts[-1].endswith(_SECRET_ENDINGS))
    )


def _is_own(name: str) -> bool:
    """Whether the studio keeps a file of that name in its home: locks, records, secrets."""
    written = (".browser.secret", ".sessions.json", ".reserve")
    return name in OWN_FILES or name.endswith(".lock") or name.startswith(written)


def never_read(settings: Settings) -> set[tuple[int, int]]:
    """Device and number of what no page reads under whatever name: secrets, what browsers send."""
    paths = [settings.home / name for name in ("browser.secret", "signed-out.json", "sessions.json")]
    paths += [settings.temporary, settings.secrets, *_hub_tokens()]
    paths += [settings.login_file] if settings.login_file is not None else []
    with contextlib.suppress(OSError):
        paths += [Path(entry.path) for entry in os.scandir(settings.secrets)]
    found = set()
    for path in paths:
        with contextlib.suppress(OSError):
            found.add(identity(path.stat()))
    return found


def _hub_tokens() -> list[Path]:
    """Where huggingface_hub keeps the tokens of whoever has signed in there."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    return [Path(os.environ.get("HF_TOKEN_PATH") or home / "token"), home / "stored_tokens"]


def identity(info: os.stat_result) -> tuple[int, int]:
    """What a file is under every name: its device and number."""
    return info.st_dev, info.st_ino


@lru_cache(maxsize=64)
def pinned(root: Path) -> Path:
    """A root with its links resolved, once: a link that takes its place later leads nowhere."""
    return root.resolve()

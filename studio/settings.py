"""Where the studio lives and listens: the only module that reads STUDIO_* from the environment.

Nothing here is about a run; that is `studio.config`. Values are read on each call, so a test or a second
process with another environment never sees a stale copy.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from studio.errors import InputError

_PACKAGE = Path(__file__).resolve().parent
# A checkout keeps these beside the package, a built wheel inside it (pyproject.toml, force-include).
_SHIPPED = _PACKAGE.parent if (_PACKAGE.parent / "assets").is_dir() else _PACKAGE
_DEVICE = re.compile(r"(cpu|cuda:\d+)(?:\*([1-9]\d?))?")
ASSETS = _SHIPPED / "assets"
PRESETS = _SHIPPED / "presets"
DOCS = _SHIPPED / "docs"
# The second is the older name of the first; as "1" it asks for a link instead.
PASSWORD_VARIABLES = ("STUDIO_PASSWORD", "STUDIO_TOKEN")
_BY_LINK = "1"


@dataclass(frozen=True)
class Settings:
    """The studio's own settings.

    Attributes:
        home: folder of everything a person makes or downloads (jobs, models, exports).
        host: address the page listens on; only loopback addresses are allowed without a password.
        port: port of the page.
        roots: folders (besides `home`) from which the page may read data and models.
        password: of the page; None without one (`login_file` may still ask for names and passwords).
        chat_idle_seconds: a loaded chat model that nobody used for this long is unloaded.
        devices: names of the devices that jobs may use, each with how many jobs it takes at once; empty for those
            that are found.
        webhook: address that is told of every job's end; it may hold a secret, so it is never shown or kept.
        login_file: names with hashes of their passwords (`studio password`); None without one.
        link: whether the page is opened by a link that the studio prints, in place of a password.
        session_hours: hours after which a person signs in again.
        vllm_python: the Python that has vLLM, for exports that are tried with it; None: `vllm` on PATH.
        llama_server: llama.cpp's server, likewise; None: `llama-server` on PATH.
        ahead: whether the page has the libraries imported before a training is started.
    """

    home: Path
    host: str
    port: int
    roots: tuple[Path, ...]
    password: str | None
    chat_idle_seconds: float
    devices: tuple[tuple[str, int], ...] = ()
    webhook: str | None = field(default=None, repr=False)
    login_file: Path | None = None
    link: bool = False
    session_hours: float = 12.0
    vllm_python: Path | None = None
    llama_server: Path | None = None
    ahead: bool = True

    @property
    def asks(self) -> bool:
        """Whether the page asks who is there; otherwise it serves the user who started it, on this machine."""
        return self.password is not None or self.login_file is not None or self.link

    @property
    def jobs(self) -> Path:
        """Folder of the job folders."""
        return self.home / "jobs"

    @property
    def models(self) -> Path:
        """Folder of prepared and downloaded checkpoints."""
        return self.home / "models"

    @property
    def datasets(self) -> Path:
        """Folder of sets of rows fetched from the Hub."""
        return self.home / "datasets"

    @property
    def uploads(self) -> Path:
        """Folder of data files that came through the page."""
        return self.home / "uploads"

    @property
    def tokens(self) -> Path:
        """Folder of rows as tokens; what is missing there is made again."""
        return self.home / "cache" / "tokens"

    @property
    def temporary(self) -> Path:
        """Folder of files that may be removed when no studio process runs."""
        return self.home / "tmp"

    @property
    def secrets(self) -> Path:
        """Folder of what signs sessions and the like; the page can name nothing in it (`reach`)."""
        return self.home / "secrets"


def read_settings() -> Settings:
    """Read STUDIO_HOME, _HOST, _PORT, _ROOTS, _PASSWORD, _TOKEN, _LOGIN_FILE, _SESSION_HOURS, _CHAT_IDLE, and so on.

    Raises:
        InputError: a value cannot be used.
    """
    env = os.environ
    home = studio_home()
    extra = [Path(part).expanduser().resolve() for part in env.get("STUDIO_ROOTS", "").split(os.pathsep) if part]
    return Settings(
        home=home,
        host=env.get("STUDIO_HOST") or "127.0.0.1",
        port=_port(env.get("STUDIO_PORT") or "7860"),
        roots=(home.resolve(), ASSETS, *extra),
        password=_password(env),
        chat_idle_seconds=_above_zero(env.get("STUDIO_CHAT_IDLE") or "600", "STUDIO_CHAT_IDLE", "seconds"),
        devices=_devices(env.get("STUDIO_DEVICES", "")),
        webhook=_webhook(env.get("STUDIO_WEBHOOK") or ""),
        login_file=Path(env["STUDIO_LOGIN_FILE"]).expanduser().absolute() if env.get("STUDIO_LOGIN_FILE") else None,
        link=env.get("STUDIO_TOKEN") == _BY_LINK,
        session_hours=_above_zero(env.get("STUDIO_SESSION_HOURS") or "12", "STUDIO_SESSION_HOURS", "hours"),
        vllm_python=_program(env.get("STUDIO_VLLM_PYTHON", "")),
        llama_server=_program(env.get("STUDIO_LLAMA_SERVER", "")),
        ahead=_switch(env.get("STUDIO_AHEAD", "1"), "STUDIO_AHEAD"),
    )


def studio_home() -> Path:
    """The home that the environment says, which need not exist."""
    return Path(os.environ.get("STUDIO_HOME") or "~/.finetune-studio").expanduser().absolute()


def forget_password() -> None:
    """Take the page's password out of this process's environment, which every job, its code and its log would get."""
    for name in PASSWORD_VARIABLES:
        os.environ.pop(name, None)


def browser_secret(settings: Settings) -> str:
    """Return the secret of this home that signs what the browser keeps, making it once.

    It lies where only the owner reads and no page can name it, so a restarted server still understands its pages. That
    of an older version, which lay in the home itself, is taken along.
    """
    path, older = settings.secrets / "browser.secret", settings.home / "browser.secret"
    if not path.exists():
        settings.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = older.read_text() if older.is_file() and not older.is_symlink() else secrets.token_hex(32)
        descriptor, name = tempfile.mkstemp(dir=settings.secrets, prefix=".browser.secret.")  # for its owner only
        with os.fdopen(descriptor, "w") as file:
            file.write(secret)
        # Whole or not there: a second web process that starts now must never sign with half of it.
        try:
            os.link(name, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            os.replace(name, path)
        Path(name).unlink(missing_ok=True)
    older.unlink(missing_ok=True)
    return path.read_text()


def _password(env: Mapping[str, str]) -> str | None:
    by_link = env.get("STUDIO_TOKEN") == _BY_LINK
    found = {env[name] for name in PASSWORD_VARIABLES if env.get(name) and not (by_link and name == "STUDIO_TOKEN")}
    if by_link and (found or env.get("STUDIO_LOGIN_FILE")):
        raise InputError(
            "a sign-in link cannot be combined with a password or a login file",
            where="STUDIO_TOKEN",
            fix="Unset STUDIO_TOKEN, or the other one",
        )
    if len(found) > 1:
        raise InputError(
            "STUDIO_PASSWORD and its older name STUDIO_TOKEN differ", where="STUDIO_PASSWORD", fix="Unset STUDIO_TOKEN"
        )
    if found and env.get("STUDIO_LOGIN_FILE"):
        raise InputError(
            "both a password and a login file are set",
            where="STUDIO_LOGIN_FILE",
            fix="Set one of them and unset the other",
        )
    return next(iter(found), None)


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise InputError(f"'{text}' is not a port", where="STUDIO_PORT", fix="Give a number from 1 to 65535")
    return int(text)


def _above_zero(text: str, where: str, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < math.inf:
        raise InputError(f"'{text}' is not a number of {unit}", where=where, fix="Give a number above 0")
    return value


def _devices(text: str) -> tuple[tuple[str, int], ...]:
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _DEVICE.fullmatch(part)
        if match is None:
            raise InputError(
                f"'{part}' is not a device",
                where="STUDIO_DEVICES",
                fix="Name them like cuda:0,cuda:1 or cpu, with *2 behind one that takes two jobs at once",
            )
        found[match[1]] = int(match[2] or 1)
    return tuple(found.items())


def _switch(text: str, where: str) -> bool:
    if text not in ("", "0", "1"):
        raise InputError(f"'{text}' is neither 1 nor 0", where=where, fix="Give 1 for yes, 0 for no")
    return text != "0"


def _program(text: str) -> Path | None:
    # Not resolved: the Python of a virtual environment is a link, and finds its packages by where that lies.
    return Path(text).expanduser().absolute() if text else None


def _webhook(text: str) -> str | None:
    if not text:
        return None
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that are none
        sound = False
    if not sound:
        # The address is not repeated: it may hold a secret.
        raise InputError(
            "this is not an address that can be posted to",
            where="STUDIO_WEBHOOK",
            fix="Give one with http:// or https://",
        )
    return text

"""The service, through the official `openai` client: key, address, sentences for its errors, and patience with outages.

The key comes from OPENAI_API_KEY or the system's keyring, is held in memory only, and is sent to no other address than
the one that was asked for. The client's own retries are off: what changes something is never repeated before the
service was asked whether the first time had arrived (`sending`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from studio.errors import InputError, StudioError
from studio.reach import page

if TYPE_CHECKING:
    import openai

T = TypeVar("T")
OFFICIAL = "https://api.openai.com/v1"
KEY, ADDRESS = "OPENAI_API_KEY", "OPENAI_BASE_URL"
KEYRING = ("finetune-studio", "openai")
# Seconds between tries while the service does not answer: doubled from the first to the last.
FIRST_WAIT, LAST_WAIT = 1.0, 60.0
# So long a service may ask for with Retry-After.
LONGEST_WAIT = 600.0
TIMEOUT = 120.0
_LONGEST_TEXT = 1000
_OTHER = "what answers there is not a service of OpenAI's API"


def address_of(given: str | None) -> str:
    """Return the address to use.

    Args:
        given: in the configuration; None for that of the environment.

    Raises:
        InputError: it is none, would send the key unencrypted, or a page may not choose it.
    """
    usual = (os.environ.get(ADDRESS) or OFFICIAL).rstrip("/")
    found = (given or usual).rstrip("/")
    try:
        parts = urlsplit(found)
        host, sound = parts.hostname or "", parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        host, sound = "", False
    if not sound or not host or "@" in parts.netloc or parts.query:
        raise InputError("this is not the address of a service", where="base_url", fix=f"Give one such as {OFFICIAL}")
    if parts.scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
        raise InputError("the key would be sent unencrypted", where="base_url", fix="Give an address with https://")
    if page() is not None and found not in (usual, OFFICIAL):
        raise InputError(
            "the key is sent to this address, so it cannot be chosen in the page", where="base_url",
            fix=f"Set {ADDRESS} where the studio is started",
        )  # fmt: skip
    return found


def find_key() -> str:
    """Return the key.

    Raises:
        InputError: there is none, or the keyring does not give it.
    """
    if key := os.environ.get(KEY, "").strip():
        return key
    if find_spec("keyring") is None:
        raise InputError("there is no key for the service", where=KEY, fix=_KEY_FIX)
    try:
        import keyring  # it chooses its backend now, which may fail

        found = str(keyring.get_password(*KEYRING) or "").strip()
    except Exception as error:  # every system's keyring has errors of its own
        raise _not_read(error) from error
    if not found:
        raise InputError("there is no key for the service", where=KEY, fix=_KEY_FIX)
    return found


def _not_read(error: Exception) -> InputError:
    """What a failing keyring means; by names, since the package may be what failed."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "NoKeyringError" in kinds:
        what = f"there is no key for the service: {KEY} is not set, and this system has no keyring"
        return InputError(what, where=KEY, fix=f"Set {KEY} where the studio is started")
    if "KeyringLocked" in kinds:
        return InputError(
            "the system's keyring is locked, so the key cannot be read", where=KEY,
            fix=f"Unlock it, or set {KEY} where the studio is started",
        )  # fmt: skip
    return InputError(f"the system's keyring cannot be read ({type(error).__name__})", where=KEY, fix=_KEY_FIX)


_KEY_FIX = (
    f"Set {KEY} where the studio is started (a running supervisor keeps its environment until its jobs are done), or "
    f"with the package keyring: keyring set {' '.join(KEYRING)}"
)


def connect(base_url: str) -> openai.OpenAI:
    """Return a client.

    Raises:
        InputError: there is no key.
    """
    import openai

    checked = openai.DefaultHttpxClient(event_hooks={"response": [_require_object]})
    return openai.OpenAI(
        base_url=base_url, api_key=find_key(), max_retries=0, timeout=TIMEOUT, http_client=checked
    )  # fmt: skip


def _require_object(response: Any) -> None:
    """Refuse what is no answer of this API, as a proxy's page: the client would give its text for an object.

    Args:
        response: of httpx.

    Raises:
        openai.APIConnectionError: it is none.
    """
    import openai

    if not response.is_success or response.headers.get("content-type", "").startswith("text/event-stream"):
        return
    try:
        sound = isinstance(json.loads(response.read()), dict)
    except ValueError:
        sound = False
    if not sound:
        raise openai.APIConnectionError(message=_OTHER, request=response.request)


@contextmanager
def said_plainly(what: str) -> Iterator[None]:
    """Turn the client's errors into sentences.

    Args:
        what: was tried, as after "could not".
    """
    import openai

    try:
        yield
    except openai.APIError as error:
        raise sentence(error, what) from error


def sentence(error: openai.APIError, what: str) -> StudioError:
    """An error of the client as one of ours.

    Args:
        error: of the client.
        what: was tried, as after "could not".
    """
    import openai

    if error.message == _OTHER:
        return StudioError(f"could not {what}: {_OTHER}", fix=f"Check the address ({ADDRESS}) and the connection")
    if isinstance(error, openai.APIConnectionError):
        return StudioError(f"could not {what}: the service cannot be reached", fix="Check the connection")
    status = error.status_code if isinstance(error, openai.APIStatusError) else 0
    if status == 401:  # its text repeats part of the key
        return InputError(f"could not {what}: the service refused the key", where=KEY, fix=_KEY_FIX)
    text = f"could not {what}: {_message(error)}"
    if _code(error) == "insufficient_quota":
        return StudioError(text, fix="Add credit to the account, or raise its limit")
    if _code(error) == "training_not_available":
        return StudioError(text, fix="Train here instead, or with a service of the same API (base_url)")
    return InputError(text) if 400 <= status < 500 and status not in (408, 409, 429) else StudioError(text)


def is_missing(error: Exception) -> bool:
    """Whether the service has no such object."""
    import openai

    return isinstance(error, openai.NotFoundError)


def is_passing(error: Exception) -> bool:
    """Whether an error goes away by itself: an outage, a fault of the service, too many requests."""
    import openai

    if isinstance(error, openai.APIConnectionError):
        return True
    if not isinstance(error, openai.APIStatusError) or _code(error) == "insufficient_quota":
        return False
    return error.status_code >= 500 or error.status_code in (408, 409, 429)


def _message(error: openai.APIError) -> str:
    """The service's words on one line, without the key, which some services repeat."""
    body = error.body if isinstance(error.body, dict) else {}
    text = " ".join(str(body.get("message") or body.get("detail") or error.message).split())
    key = error.request.headers.get("authorization", "").removeprefix("Bearer ")
    text = text.replace(key, "…") if key else text
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} …"


def _code(error: openai.APIError) -> str:
    return str(getattr(error, "code", None) or "")


class Patience:
    """Asks again until the service answers: told once when it stops answering, and once when it does again.

    Args:
        tell: called with (level, text) for the person.
        check_stop: raises where the person asked to stop.
    """

    def __init__(self, tell: Callable[[str, str], None], check_stop: Callable[[], None]) -> None:
        self._tell, self._check_stop = tell, check_stop
        self._tries = 0
        self._since = 0.0

    def check(self) -> None:
        """Raise where the person asked to stop."""
        self._check_stop()

    def ask(self, what: str, call: Callable[[], T]) -> T:
        """Return what `call` returns, which changes nothing and may be repeated.

        Args:
            what: is tried, as after "could not".
            call: one request.

        Raises:
            StudioError: the service refuses it.
        """
        while True:
            found, answer = self.attempt(what, call)
            if found:
                assert answer is not None
                return answer

    def attempt(self, what: str, call: Callable[[], T]) -> tuple[bool, T | None]:
        """Try once; after an error that passes, wait and return (False, None).

        Args:
            what: is tried, as after "could not".
            call: one request.

        Raises:
            StudioError: the service refuses it.
        """
        import openai

        self._check_stop()
        try:
            answer = call()
        except openai.APIError as error:
            if not is_passing(error):
                raise sentence(error, what) from error
            self._wait(error)
            return False, None
        if self._tries > 1:  # one error that passed at once is nothing to tell
            self._tell("info", f"the service is responding again, after {time.monotonic() - self._since:.0f} s")
        self._tries = 0
        return True, answer

    def _wait(self, error: openai.APIError) -> None:
        self._tries += 1
        if self._tries == 1:
            self._since = time.monotonic()
        if self._tries == 2:
            self._tell("warning", f"{_why(error)}. The job continues there; the studio keeps asking until it responds")
        seconds = _asked_wait(error) or min(LAST_WAIT, FIRST_WAIT * 2 ** min(self._tries - 1, 10))
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._check_stop()
            time.sleep(min(0.2, left))


def _why(error: openai.APIError) -> str:
    status = getattr(error, "status_code", None)
    if error.message == _OTHER:
        return _OTHER
    if status == 429:
        return "the service takes no more requests for now"
    return "the service cannot be reached" if status is None else f"the service failed ({status})"


def _asked_wait(error: Any) -> float | None:
    """Seconds that the service asks to wait; None where it says nothing that can be used."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        seconds = float(headers.get("retry-after") or 0)
    except ValueError:
        return None
    return min(seconds, LONGEST_WAIT) if seconds > 0 else None

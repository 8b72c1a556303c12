"""How many tokens a row has at the service: counted with tiktoken, or estimated and said to be so.

tiktoken fetches its table of tokens (3.6 MB for o200k_base) from the network at the first use. The studio never does
that unasked: it counts where the table is in tiktoken's own cache (`TIKTOKEN_CACHE_DIR`) or in the home, where
`fetch_encoding` puts it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.settings import Settings

# Of the service's cookbook on counting: what a message and a row have beside their texts.
A_MESSAGE, A_NAME, A_ROW = 3, 1, 3
# About four characters of English are a token; each character of another script counts as one.
CHARACTERS = 4
_CACHE = "TIKTOKEN_CACHE_DIR"
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"


class Tokens:
    """Counts the tokens of texts and rows.

    Args:
        encoding: tiktoken's; None estimates.
    """

    def __init__(self, encoding: Any = None) -> None:
        self._encoding = encoding

    @property
    def exact(self) -> bool:
        """Whether they are counted."""
        return self._encoding is not None

    def text(self, text: str) -> int:
        """Tokens of a text; what looks like a control token in it is a text."""
        if self._encoding is not None:
            return len(self._encoding.encode(text, disallowed_special=()))
        ascii_letters = len(text.encode("ascii", "ignore"))
        return -(-ascii_letters // CHARACTERS) + len(text) - ascii_letters

    def messages(self, messages: list[dict[str, Any]]) -> int:
        """Tokens of messages, with what stands around each."""
        total = 0
        for message in messages:
            total += A_MESSAGE + A_NAME * ("name" in message)
            total += sum(self.text(_text(value)) for key, value in message.items() if key != "weight" and value)
        return total

    def row(self, row: dict[str, Any]) -> int:
        """Tokens of a row in the service's format; a pair counts with both answers."""
        asked: dict[str, Any] = row.get("input") or row
        tools = asked.get("tools")
        total = A_ROW + self.messages(asked["messages"]) + (self.text(_text(tools)) if tools else 0)
        return total + sum(self.messages(row.get(key) or []) for key in ("preferred_output", "non_preferred_output"))


def tokens_of(encoding: str, settings: Settings) -> Tokens:
    """Return what counts, where the table of an encoding is on this machine, or else what estimates.

    Args:
        encoding: tiktoken's name of it.
        settings: of the home, whose own table is looked at too.
    """
    for folder in _folders(settings):
        if (folder / _name(encoding)).is_file():
            with _cached_in(folder):
                return Tokens(_load(encoding))
    return Tokens()


def fetch_encoding(encoding: str, settings: Settings) -> Path:
    """Fetch the table of an encoding into the home.

    Args:
        encoding: tiktoken's name of it.
        settings: of the home.

    Raises:
        StudioError: it cannot be fetched.
    """
    folder = settings.home / "cache" / "tiktoken"
    with _cached_in(folder):
        try:
            _load(encoding)
        except Exception as error:  # requests' and urllib3's own, of which there are dozens
            raise StudioError(
                f"the table of tokens could not be fetched from {_ADDRESS.format(encoding).split('/')[2]}",
                where=encoding,
                fix="Check the connection; without it, tokens are estimated",
            ) from error
    return folder / _name(encoding)


def _load(encoding: str) -> Any:
    import tiktoken

    return tiktoken.get_encoding(encoding)


def _folders(settings: Settings) -> Iterator[Path]:
    own = os.environ.get(_CACHE) or os.environ.get("DATA_GYM_CACHE_DIR")
    yield Path(own) if own else Path(tempfile.gettempdir()) / "data-gym-cache"
    yield settings.home / "cache" / "tiktoken"


@contextmanager
def _cached_in(folder: Path) -> Iterator[None]:
    before = os.environ.get(_CACHE)
    os.environ[_CACHE] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(_CACHE)
        if before is not None:
            os.environ[_CACHE] = before


def _name(encoding: str) -> str:
    """What tiktoken calls the file in its cache."""
    return hashlib.sha1(_ADDRESS.format(encoding).encode(), usedforsecurity=False).hexdigest()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

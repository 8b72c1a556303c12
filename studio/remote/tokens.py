"""How many tokens a row has at the service: counted with tiktoken, or estimated and said to be so.

tiktoken fetches its table of tokens (3.6 MB for o200k_base) from the network at the first use. The studio never does
that unasked: it counts where the table is in tiktoken's own cache (`TIKTOKEN_CACHE_DIR`) or in the home, where
`fetch_encoding` puts it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.remote.rows import prompt_of
from studio.settings import Settings

# Of the service's cookbook on counting: what a message and a row have beside their texts.
A_MESSAGE, A_NAME, A_ROW = 3, 1, 3
# An image of low detail, and any other as if its sides had 1024 pixels: 85 tokens, and 170 for each of four tiles.
A_LOW_IMAGE, AN_IMAGE = 85, 765
# About four characters of English are a token; each character of another script counts as one.
CHARACTERS = 4
_CACHE = "TIKTOKEN_CACHE_DIR"
_ENVIRONMENT = threading.Lock()
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
            total += sum(
                self.text(_text(value)) for key, value in message.items()
                if key not in ("weight", "content") and value
            )  # fmt: skip
            total += self._content(message.get("content"))
            for image in images_of(message):
                total += A_LOW_IMAGE if image.get("detail") == "low" else AN_IMAGE
        return total

    def _content(self, content: Any) -> int:
        parts = content if isinstance(content, list) else [content]
        texts = (one.get("text") or one.get("refusal") if isinstance(one, dict) else one for one in parts)
        return sum(self.text(text) for text in texts if isinstance(text, str))

    def row(self, row: dict[str, Any]) -> int:
        """Tokens of a row in the service's format; a pair counts with both answers."""
        asked = prompt_of(row)
        tools = asked.get("tools")
        total = A_ROW + self.messages(asked["messages"]) + (self.text(_text(tools)) if tools else 0)
        answers = () if asked is row else ("preferred_output", "non_preferred_output")
        return total + sum(self.messages(row[key]) for key in answers)


def images_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The images of a message, each with its `url` and maybe its `detail`."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [one["image_url"] for one in parts if isinstance(one, dict) and isinstance(one.get("image_url"), dict)]


def tokens_of(encoding: str, settings: Settings) -> Tokens:
    """Return what counts, where the table of an encoding is on this machine, or else what estimates.

    Args:
        encoding: tiktoken's name of it.
        settings: of the home, whose own table is looked at too.
    """
    for folder in _folders(settings):
        if (folder / _name(encoding)).is_file():
            # A damaged table is fetched again by tiktoken, which may fail in dozens of ways; estimates do without.
            with _cached_in(folder), contextlib.suppress(Exception):
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


@contextlib.contextmanager
def _cached_in(folder: Path) -> Iterator[None]:
    with _ENVIRONMENT:  # two pages may check at once
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

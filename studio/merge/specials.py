"""Ids of special tokens in a child's configs: where it has another tokenizer than its first model, they are others.

config.json and generation_config.json name the tokens that begin, end and pad a text by their ids alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.export.gguf.checkpoint import read_object
from studio.merge.checks import tokens_of
from studio.models.inspect.tokenizerfiles import CONFIG

_ENDING, _EOS = "_token_id", "eos_token_id"


class Specials:
    """Ids of one model's tokens as another tokenizer has them, by the tokens' texts.

    Args:
        first: folder of the model whose configs are carried over, with its tokenizer.
        child: folder with the tokenizer of the child.

    Raises:
        StudioError: a tokenizer.json or tokenizer_config.json cannot be read.
    """

    def __init__(self, first: Path, child: Path) -> None:
        self._texts = {number: text for text, number in (tokens_of(first) or {}).items()}
        self._ids = tokens_of(child) or {}
        self._config = read_object(child / CONFIG) if (child / CONFIG).is_file() else {}

    def carried(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values of a config with the child's ids.

        An id whose token the child does not have becomes null, not absent: families have ids of their own that count
        where none is given. Without an end, an answer would never stop, so it is that of the child's tokenizer then.

        Args:
            values: of the first model's config.json or generation_config.json.
        """
        moved = {key: self._moved(key, value) for key, value in values.items() if key.endswith(_ENDING)}
        if moved.get(_EOS) is None and (own := self._own(_EOS)) is not None:
            moved[_EOS] = own
        return {**values, **moved}

    def _moved(self, key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [one for one in (self._moved(key, part) for part in value) if one is not None] or None
        if type(value) is not int:
            return None
        # A tokenizer of another form than tokenizer.json tells no texts; the child's knows its own of that role.
        return self._ids.get(self._texts.get(value, "")) if self._texts else self._own(key)

    def _own(self, key: str) -> int | None:
        """The id of the child's token for a role, such as eos_token_id; None where its tokenizer names none."""
        named = self._config.get(key.removesuffix("_id"))
        text = named.get("content") if isinstance(named, dict) else named
        return self._ids.get(text) if isinstance(text, str) else None

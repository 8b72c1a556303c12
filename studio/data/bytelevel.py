"""Tokenizers whose tokens are pieces of the text: then only the tokens at a span's borders have to be looked at.

A byte-level BPE (GPT-2, Radford et al. 2019: Llama 3, Qwen, DeepSeek, Mistral Nemo, SmolLM) cuts the bytes of a text
into tokens and leaves none out. Of a text in ASCII, where each byte is a character, every token therefore has
characters of its own, one behind the other. Which tokens a span holds can be asked of the Rust encoding then, without
a Python tuple for each token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from studio.data.overlay import IGNORED

# Normal forms leave ASCII as it is.
_HARMLESS = ("NFC", "NFKC", "NFD", "NFKD")


def other_characters(tokenizer: Any) -> re.Pattern[str] | None:
    """Return a pattern that finds the characters for which the above is not so; None if it is so for no text.

    Args:
        tokenizer: a transformers tokenizer with a fast backend.
    """
    from tokenizers.models import BPE

    backend = tokenizer.backend_tokenizer
    model, normalizer, cutter = backend.model, _parts(backend.normalizer), _parts(backend.pre_tokenizer)
    last = cutter[-1] if cutter else {}
    if (
        not isinstance(model, BPE) or model.dropout or model.byte_fallback
        or any(part["type"] not in _HARMLESS for part in normalizer)
        or last.get("type") != "ByteLevel" or any(part.get("add_prefix_space") for part in cutter)
        or any(part.get("behavior") == "Removed" for part in cutter)
    ):  # fmt: skip
        return None
    known = [chr(byte) for byte in range(128) if model.token_to_id(_letter(byte)) is not None]
    return re.compile(f"[^{re.escape(''.join(known))}]") if known else None


def lay_over_pieces(
    ids: Sequence[int], encoding: Any, spans: Sequence[tuple[int, int]]
) -> tuple[list[int], int] | None:
    """Lay character spans over the tokens of a text without any of the `other_characters`.

    Args:
        ids: (T,) token ids.
        encoding: the `tokenizers.Encoding` of the text.
        spans: (start, end) in characters, ascending, disjoint and not empty.

    Returns:
        labels and straddling as `overlay.lay_over` has them; None where a border lies in blanks that the tokenizer
        leaves out of the tokens' characters.
    """
    labels = [IGNORED] * len(ids)
    across = set()
    for left, right in spans:
        first, last = encoding.char_to_token(left), encoding.char_to_token(right - 1)
        if first is None or last is None or (left and encoding.char_to_token(left - 1) is None):
            return None
        if encoding.token_to_chars(first)[0] < left:
            across.add(first)
            first += 1
        if encoding.token_to_chars(last)[1] > right:
            across.add(last)
            last -= 1
        labels[first : last + 1] = ids[first : last + 1]
    return labels, len(across)


def _parts(component: Any) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, as tokenizer.json has them."""
    return [] if component is None else _flat(json.loads(component.__getstate__()))


def _flat(made: dict[str, Any]) -> list[dict[str, Any]]:
    if made["type"] != "Sequence":
        return [made]
    return [part for one in made.get("pretokenizers") or made.get("normalizers") or [] for part in _flat(one)]


def _letter(byte: int) -> str:
    """The letter that stands for a byte below 128 in a byte-level vocabulary (`bytes_to_unicode` of GPT-2)."""
    if 33 <= byte <= 126:
        return chr(byte)
    return chr(256 + byte) if byte < 33 else chr(256 + 33)

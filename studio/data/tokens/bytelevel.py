"""Tokenizers whose tokens are pieces of the text: then only the tokens at a span's borders have to be looked at.

A byte-level BPE (GPT-2, Radford et al. 2019: Llama 3, Qwen, DeepSeek, Mistral Nemo, SmolLM) cuts the bytes of a text
into tokens, one behind the other. Where it has a token for each byte it leaves none out; several tokens may share a
character. Which tokens a span holds can be asked of the Rust encoding then, without a Python tuple for each token.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from studio.data.masks.overlay import Runs, add_run

# Normal forms leave ASCII as it is.
_NORMAL_FORMS = ("NFC", "NFKC", "NFD", "NFKD")


@dataclass(frozen=True)
class Pieces:
    """For which texts the tokens of a tokenizer are pieces of the text.

    Attributes:
        missing: bytes for which it has no token; it would leave them out.
        ascii_only: whether other characters may be changed before they are cut.
    """

    missing: bytes
    ascii_only: bool

    def fit(self, text: str) -> bool:
        """Whether it is so for a text."""
        if self.ascii_only and not text.isascii():
            return False
        data = text.encode("utf-8", "surrogatepass")
        return not self.missing or len(data.translate(None, self.missing)) == len(data)


def pieces_of(tokenizer: Any) -> Pieces | None:
    """Return for which texts the tokens of a transformers tokenizer (fast backend) are pieces; None for none."""
    from tokenizers.models import BPE

    backend = tokenizer.backend_tokenizer
    model, normalizer, cutter = backend.model, _parts(backend.normalizer), _parts(backend.pre_tokenizer)
    last = cutter[-1] if cutter else {}
    if (
        not isinstance(model, BPE) or model.dropout or model.byte_fallback
        or any(part["type"] not in _NORMAL_FORMS for part in normalizer)
        or last.get("type") != "ByteLevel" or any(part.get("add_prefix_space") for part in cutter)
        or any(part.get("behavior") == "Removed" for part in cutter)
    ):  # fmt: skip
        return None
    missing = bytes(byte for byte, letter in enumerate(_letters()) if model.token_to_id(letter) is None)
    return Pieces(missing, ascii_only=bool(normalizer))


def lay_over_pieces(encoding: Any, spans: Sequence[tuple[int, int]]) -> tuple[Runs, int] | None:
    """Lay character spans over the tokens of a text that `Pieces.fit`.

    Args:
        encoding: the `tokenizers.Encoding` of the text.
        spans: (start, end) in characters, ascending, disjoint and not empty.

    Returns:
        trained and straddling as `overlay.lay_over` has them; None where a border lies in blanks that the tokenizer
        leaves out of the tokens' characters.
    """
    trained, tokens = array("i"), len(encoding)
    across = set()
    for left, right in spans:
        first, last = encoding.char_to_token(left), encoding.char_to_token(right - 1)
        if first is None or last is None or (left and encoding.char_to_token(left - 1) is None):
            return None
        if encoding.token_to_chars(first)[0] < left:
            across.add(first)
            first += 1
        while last + 1 < tokens and encoding.token_to_chars(last + 1)[0] < right:
            last += 1  # one more token of the span's last character
        if encoding.token_to_chars(last)[1] > right:
            across.add(last)
            last -= 1
        add_run(trained, first, last + 1)
    return trained, len(across)


def _parts(component: Any) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, as tokenizer.json has them."""
    return [] if component is None else _flat(json.loads(component.__getstate__()))


def _flat(made: dict[str, Any]) -> list[dict[str, Any]]:
    if made["type"] != "Sequence":
        return [made]
    return [part for one in made.get("pretokenizers") or made.get("normalizers") or [] for part in _flat(one)]


def _letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary (`bytes_to_unicode` of GPT-2)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = (chr(256 + number) for number in range(256))
    return [chr(byte) if byte in shown else next(hidden) for byte in range(256)]

"""tokenizer.model out of tokenizer.json, for a base model that came without it.

transformers 5 writes only the JSON, and llama.cpp's converter takes Gemma, Phi-3 and Llama 2 from the SentencePiece
file: without it it refuses them, or gives every piece the same score. The JSON has all that the file holds: a piece's
score is the rank of the merge that makes it. Whether the result cuts as the original does, the gate says.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_TAB_BYTE = "<0x09>"
UNREACHED = 1e6  # below every merge: pieces that no merge makes, single characters among them


def write_pieces(folder: Path) -> bool:
    """Write tokenizer.model into a folder that has none, where its tokenizer.json is one of SentencePiece's kind.

    Returns:
        Was it written?
    """
    source = folder / "tokenizer.json"
    if not source.is_file() or any(folder.glob("*.model*")):
        return False
    state = json.loads(source.read_text(encoding="utf-8"))
    if not is_sentencepiece(state):
        return False
    (folder / "tokenizer.model").write_bytes(_model(state))
    return True


def is_sentencepiece(state: dict[str, Any]) -> bool:
    """Does a tokenizer.json merge pieces with bytes to fall back on and "▁" for blanks, as SentencePiece's BPE does?"""
    model, before = state.get("model") or {}, json.dumps([state.get("normalizer"), state.get("pre_tokenizer")])
    return bool(
        model.get("type") == "BPE" and model.get("byte_fallback") and "\\u2581" in before and "<0x00>" in model["vocab"]
    )


def _model(state: dict[str, Any]) -> bytes:
    from sentencepiece import sentencepiece_model_pb2

    sentencepiece: Any = sentencepiece_model_pb2  # made when it is imported, so that no checker knows its names
    vocabulary: dict[str, int] = state["model"]["vocab"]
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(state["model"]["merges"]):
        ranks.setdefault("".join(merge) if isinstance(merge, list) else merge.replace(" ", "", 1), rank)
    added = {token["content"]: token for token in state["added_tokens"]}
    kinds = sentencepiece.ModelProto.SentencePiece
    model = sentencepiece.ModelProto()
    model.trainer_spec.model_type = sentencepiece.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.remove_extra_whitespaces = False
    for piece, number in sorted(vocabulary.items(), key=lambda entry: entry[1]):
        if piece == "\t" and _TAB_BYTE not in vocabulary:  # transformers spells this byte of Gemma's as what it is
            piece = _TAB_BYTE
        if piece == state["model"].get("unk_token"):
            kind = kinds.UNKNOWN
        elif _BYTE.fullmatch(piece):
            kind = kinds.BYTE
        elif piece in added:
            kind = kinds.CONTROL if added[piece]["special"] else kinds.USER_DEFINED
        else:
            kind = kinds.NORMAL
        model.pieces.add(piece=piece, score=-float(ranks.get(piece, UNREACHED + number)), type=kind)
    return bytes(model.SerializeToString())

"""What a GGUF says of itself: the base model's name, and the run's where no program reads a meaning into it.

llama.cpp looks into `general.name` to know how blanks around special tokens are treated (llama-vocab.cpp: "phi-3",
"phi3", "modern-bert"), and refuses a vocabulary that lacks the tokens it expects then. So the name is the base's only
where that gives what the tokenizer's own files say; a folder of any name must make the same tokens.
"""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path
from typing import Any

from studio.export.gguf.checkpoint import read_object
from studio.models.inspect.tokenizerfiles import CONFIG

# What llama.cpp's rule for Phi-3 needs in the vocabulary, and the tokens whose following blanks it keeps.
_NEEDED = ("</s>", "<unk>", "<s>", "<|endoftext|>")
_KEEPS_BLANKS = ("<unk>", "<s>", "<|endoftext|>")
_MEANS_PHI3 = re.compile(r"phi-?3", re.IGNORECASE)
_ADDS_START, _BOOL = b"tokenizer.ggml.add_bos_token", 7
_HEAD_BYTES = 64 * 1024 * 1024  # in which it stands: vocabularies come before the tensors
_MEANS_SOMETHING = re.compile(r"(phi)-?(3)|(modern)-(bert)", re.IGNORECASE)


def metadata(run: str, base: str, folder: Path, made: str = "fine-tuned") -> dict[str, Any]:
    """The converter's metadata overrides; None takes away what it would make of a folder's name.

    Args:
        run: the run's name.
        base: the base model's name, a Hub id or the path of a folder, of which the last part counts; empty if it was
            not recorded.
        folder: that the converter is given, with config.json and the tokenizer's files.
        made: how it was made, as a word.
    """
    config = read_object(folder / "config.json")
    name = re.split(r"[/\\]", base.rstrip("/\\"))[-1] or str(
        (config.get("architectures") or [config.get("model_type") or "model"])[0]
    )
    guessed = ("author", "version", "organization", "finetune", "basename")
    return {
        "general.name": safe_name(name, strips_like_phi3(added_tokens(folder))),
        **dict.fromkeys((f"general.{key}" for key in guessed), None),
        "general.description": f"{run}: {name}, {made} with Finetune Studio",
    }


def safe_name(name: str, phi3: bool) -> str:
    """A name near to `name` that makes llama.cpp apply its rule for Phi-3 exactly where `phi3` says so."""
    if phi3:
        return name if _MEANS_PHI3.search(name) else f"{name} (Phi-3)"
    return _MEANS_SOMETHING.sub(lambda found: " ".join(part for part in found.groups() if part), name)


def strips_like_phi3(tokens: dict[str, dict[str, Any]]) -> bool:
    """Would llama.cpp's rule for Phi-3 be nearer to these added tokens than no rule?

    Args:
        tokens: by their text, with `rstrip`: are blanks after them left out?
    """
    stripping = {text for text, token in tokens.items() if token.get("rstrip")}
    if not stripping or not all(text in tokens for text in _NEEDED):
        return False
    wrong = sum((text in stripping) != (text not in _KEEPS_BLANKS) for text in tokens)
    return wrong < len(stripping)


def added_tokens(folder: Path) -> dict[str, dict[str, Any]]:
    """A tokenizer's added tokens by their text, from whichever file has them."""
    if (folder / "tokenizer.json").is_file():
        found = read_object(folder / "tokenizer.json").get("added_tokens") or []
        return {str(token["content"]): token for token in found}
    config = read_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    return {str(token["content"]): token for token in (config.get("added_tokens_decoder") or {}).values()}


def put_no_start(file: Path) -> bool:
    """Let a GGUF say that nothing stands before a prompt; llama.cpp's server, Ollama and LM Studio go by that.

    A tokenizer can put a token before plain text that its chat template does not write: what was trained on
    conversations has never seen it.

    Args:
        file: that is changed, by one byte.

    Returns:
        Whether it said otherwise.
    """
    head = struct.pack("<Q", len(_ADDS_START)) + _ADDS_START + struct.pack("<I", _BOOL)
    with file.open("r+b") as raw, mmap.mmap(raw.fileno(), 0) as data:
        found = data.find(head, 0, _HEAD_BYTES)
        if found < 0 or not data[found + len(head)]:
            return False
        data[found + len(head)] = 0
    return True

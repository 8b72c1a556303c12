"""What a server has to know of how the trained model is talked to, read off its tokenizer and the run's own rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.config.model import ModelConfig
from studio.data.formats.answers import Example
from studio.export.proof.material import ComparedPrompt
from studio.export.serving.modelfile import SAMPLING
from studio.export.serving.turns import as_values, differing, taken_apart
from studio.foreign import read_json_file
from studio.models.inspect.shape import longest_context
from studio.reach import read_bytes

LICENSE_BYTES = 100_000
_ROLES = ("system", "user", "assistant")


def chat_facts(
    tokenizer: Any, prompts: Sequence[ComparedPrompt], examples: Sequence[Example], base: Path, end: str
) -> dict[str, Any]:
    """Return facts for `serving.modelfile`.

    Args:
        tokenizer: the run's.
        prompts: that were rendered with it.
        examples: rows of the run's data; [] where they cannot be read.
        base: folder of the base model.
        end: text that ends an answer.

    Returns:
        {"templated": has it a chat template?, "turns": as values, or None, "why": a sentence, where None,
        "compared": conversations, "blanks": names of those that differ by blanks around messages, "stops", "context",
        "sampling", "system": message that all rows have, "license"}.
    """
    told = [one for one in prompts if one.messages is not None and not one.rare]
    plain = [one for one in told if all(_plain(message) for message in one.messages or [])]
    turns, why = None, ""
    blanks: list[str] = []
    template = tokenizer.chat_template or ""
    if template:
        turns = taken_apart(
            lambda messages: str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)),
            tokenizer.bos_token or "",
            end.strip(),
        )
        if turns is None:
            why = "its chat template does more than put texts around messages"
        elif "strftime_now" in str(template):
            turns, why = None, "its chat template writes today's date"
        elif len(plain) < len(told):
            turns, why = None, "its rows have messages of tools, or parts that are no text"
        else:
            blanks, others = differing(turns, [(one.name, one.messages or [], one.text) for one in plain])
            if others:
                turns, why = None, f"its chat template treats some conversations in another way ({others[0]})"
    return {
        "templated": bool(template), "turns": as_values(turns), "why": why, "compared": len(told), "blanks": blanks,
        "stops": [end] if end else [],
        "context": longest_context(_read(base / "config.json"), ModelConfig()) or 0, "sampling": _sampling(base),
        "system": _same_system(examples), "license": _license(base),
    }  # fmt: skip


def _plain(message: dict[str, Any]) -> bool:
    return message["role"] in _ROLES and isinstance(message.get("content"), str)


def _same_system(examples: Sequence[Example]) -> str:
    said = {
        str(example.messages[0]["content"]) if example.messages and example.messages[0]["role"] == "system" else ""
        for example in examples
    }
    return said.pop() if len(said) == 1 else ""


def _sampling(base: Path) -> dict[str, float]:
    known = _read(base / "generation_config.json")
    if known.get("do_sample") is False:
        return {}
    return {
        name: known[name] for name in SAMPLING if isinstance(known.get(name), int | float) and known[name] is not True
    }


def _license(base: Path) -> str:
    paths = [base / name for name in ("LICENSE", "LICENSE.txt", "LICENSE.md")]
    path = next((one for one in paths if one.is_file() and one.stat().st_size <= LICENSE_BYTES), None)
    return read_bytes(path).decode("utf-8", "replace").replace("\r\n", "\n").strip() if path else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        value = read_json_file(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}

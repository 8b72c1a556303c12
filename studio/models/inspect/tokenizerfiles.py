"""The files that make a tokenizer, and whether two tokenizers are one.

transformers 5 reads every family's tokenizer and writes all of them in one form of its own, which neither llama.cpp's
converter nor the family's other programs read as before. So files are copied, byte for byte, and compared by what is
read from them; where one has to change, only the value that differs is written. Nothing here imports transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio.reach import read_bytes

TEMPLATE = "chat_template.jinja"
CONFIG = "tokenizer_config.json"
_NAMED_TEMPLATES = "additional_chat_templates"
_NAMES = (
    "tokenizer.json", CONFIG, "special_tokens_map.json", "added_tokens.json", TEMPLATE, "chat_template.json",
    "vocab.json", "vocab.txt", "merges.txt", "tekken.json", "tokenizer.jsonl",
)  # fmt: skip
_PATTERNS = ("*.model", "*.model.v*", "*.tiktoken", "*.spm", "*vocab*.txt", f"{_NAMED_TEMPLATES}/*.jinja")
# The roles that a tokenizer's configuration names a token for.
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def tokenizer_files(folder: Path) -> list[Path]:
    """The tokenizer's files in a model's folder, relative to it; Python code is none of them."""
    named = [Path(name) for name in _NAMES if (folder / name).is_file()]
    found = sorted({path for pattern in _PATTERNS for path in folder.glob(pattern) if path.is_file()})
    return list(dict.fromkeys([*named, *(path.relative_to(folder) for path in found)]))


def copy_tokenizer(source: Path, target: Path) -> None:
    """Make the tokenizer of `target` that of `source`: the same files with the same bytes, and no others."""
    for left in tokenizer_files(target):
        (target / left).unlink()
    for name in tokenizer_files(source):
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_bytes(read_bytes(source / name))


def same_files(one: Path, other: Path) -> bool:
    """Have two folders the same tokenizer files, to the byte?"""
    names = tokenizer_files(one)
    return names == tokenizer_files(other) and all(
        (one / name).stat().st_size == (other / name).stat().st_size
        and read_bytes(one / name) == read_bytes(other / name)
        for name in names
    )


def same_tokens(one: Any, other: Any) -> bool:
    """Do two fast tokenizers of transformers cut every text into the same ids?

    Compared are the vocabulary, every added token with its rules, and what is done to a text before and after; not
    the chat template and not which token ends or pads a text.
    """
    return _core(one) == _core(other)


def _core(tokenizer: Any) -> str:
    """What a tokenizer's serialization says after its truncation and padding, which the last call set and no file.

    It is compared as text: vocabularies are written in order, and reading 256,000 tokens back takes a second.
    """
    passing, found, core = str(tokenizer.backend_tokenizer.to_str()).partition(',"added_tokens":')
    if not found:
        raise ValueError(f"a tokenizer is serialized in an unknown order: {passing[:80]}")
    return core


def carry_settings(tokenizer: Any, read: Any, folder: Path) -> bool:
    """Write what the run set differently from the tokenizer's files: the chat template, and tokens for a role.

    Args:
        tokenizer: as the run used it.
        read: the same tokenizer as it is read from `folder`.
        folder: its files; each value is written where the file has it already, so that no two places contradict.

    Returns:
        Was anything written?
    """
    given = {role: getattr(tokenizer, role, None) for role in _ROLES}
    changed = {role: str(token) for role, token in given.items() if token and token != getattr(read, role, None)}
    templated = tokenizer.chat_template != read.chat_template
    if templated:
        write_template(tokenizer.chat_template, folder)
    if changed:
        for name in (CONFIG, "special_tokens_map.json"):
            if (folder / name).is_file() or name == CONFIG:
                _write(folder / name, _read(folder / name) | changed)
    return templated or bool(changed)


def write_template(template: str | dict[str, str] | None, folder: Path) -> None:
    """Make this the chat template of a folder's tokenizer; several by name, or None for none at all."""
    for stale in (folder / "chat_template.json", *folder.glob(f"{_NAMED_TEMPLATES}/*.jinja")):
        stale.unlink(missing_ok=True)
    config = _read(folder / CONFIG)
    several = (
        [{"name": name, "template": text} for name, text in template.items()] if isinstance(template, dict) else None
    )
    had = config.pop("chat_template", None) is not None
    if template is not None and (had or several):
        config["chat_template"] = several or template
    if had or several:
        _write(folder / CONFIG, config)
    if isinstance(template, str) and (not had or (folder / TEMPLATE).is_file()):
        (folder / TEMPLATE).write_text(template, encoding="utf-8")
    elif not isinstance(template, str):
        (folder / TEMPLATE).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return value


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

"""The folder that the converter is given: weights, and small files that carry no code.

The converter loads tokenizers with `trust_remote_code=True`. So it never sees the run's own folder but one made here,
which holds no Python file and no `auto_map`; with HF_HUB_OFFLINE set, no other code can be reached.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio.errors import InputError, StudioError
from studio.foreign import TOKENIZER, read_json_file
from studio.reach import read_bytes

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Copied from the run, or from the base model where the run has none: `save_pretrained` of transformers 5 drops
# tokenizer.model, without which Gemma, Phi-3 and others cannot be converted.
SMALL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "spiece.model", "tekken.json", "vocab.json",
    "merges.txt", "vocab.txt", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip


def is_checkpoint(folder: Path) -> bool:
    """True for a folder with a full set of weights."""
    return (folder / SINGLE).is_file() or (folder / INDEX).is_file()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order.

    Raises:
        InputError: there are none, or one that the index names is missing.
    """
    if (folder / INDEX).is_file():
        names = sorted(set(read_object(folder / INDEX)["weight_map"].values()))
    elif (folder / SINGLE).is_file():
        names = [SINGLE]
    else:
        raise InputError("there are no safetensors weights", where=str(folder), fix="Export a run that was completed")
    files = [folder / name for name in names]
    for file in files:
        if not file.is_file() or file.parent != folder:
            raise InputError(f"{file.name} is missing", where=str(folder), fix="Restore the file, or train again")
    return files


def weight_bytes(folder: Path) -> int:
    """Bytes of a checkpoint's weights."""
    return sum(file.stat().st_size for file in weight_files(folder))


def copy_small_files(first: Path, second: Path | None, target: Path) -> None:
    """Copy what is no weight: from `first`, or from `second` where `first` lacks it.

    A template or tokenizer in one file is never mixed with the other folder's half of it: vocab.json and the like are
    only taken from `second` when `first` has no tokenizer.json.
    """
    own_tokenizer = (first / "tokenizer.json").is_file()
    for name in SMALL_FILES:
        legacy = name in ("vocab.json", "merges.txt", "vocab.txt", "added_tokens.json", "special_tokens_map.json")
        own_template = name == "chat_template.jinja" and own_tokenizer
        folders = [first] if second is None or (own_tokenizer and (legacy or own_template)) else [first, second]
        source = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if source is None:
            continue
        if source.suffix == ".json" and name != "tokenizer.json":
            write_object(target / name, _without_code(read_object(source)))
        else:
            (target / name).write_bytes(read_bytes(source))


def link_checkpoint(source: Path, target: Path, base: Path | None) -> Path:
    """Make a folder that shows a full checkpoint to the converter; weights are linked, not copied."""
    target.mkdir()
    for file in weight_files(source):
        (target / file.name).symlink_to(file.resolve())
    if (source / INDEX).is_file():
        (target / INDEX).write_bytes(read_bytes(source / INDEX))
    copy_small_files(source, base, target)
    return target


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StudioError: it is missing or something else.
    """
    try:
        value = read_json_file(path, TOKENIZER)
    except (OSError, ValueError) as error:
        raise StudioError(f"it cannot be read: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise StudioError("it is not a JSON object", where=str(path))
    return value


def write_object(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_code(value: dict[str, Any]) -> dict[str, Any]:
    return {key: part for key, part in value.items() if key != "auto_map"}

"""The folder that the converter is given: weights, and small files that carry no code.

The converter loads tokenizers with `trust_remote_code=True`. So it never sees the run's own folder but one made here,
which holds no Python file and no `auto_map`; with HF_HUB_OFFLINE set, no other code can be reached.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio.errors import InputError, StudioError
from studio.export.gguf.pieces import write_pieces
from studio.foreign import TOKENIZER, read_json_file
from studio.models.inspect.tokenizerfiles import CONFIG, TEMPLATE, tokenizer_files
from studio.reach import read_bytes

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Those that checkpoints are exported in.
DTYPES = ("float32", "float16", "bfloat16")
# Beside weights and tokenizer: copied from the run, or from the base model where the run has none.
SMALL_FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json")


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
        raise InputError("there are no safetensors weights", where=str(folder), fix="Export a completed run")
    files = [folder / name for name in names]
    for file in files:
        if not file.is_file() or file.parent != folder:
            raise InputError(f"{file.name} is missing", where=str(folder), fix="Restore the file, or train again")
    return files


def weight_bytes(folder: Path) -> int:
    """Bytes of a checkpoint's weights."""
    return sum(file.stat().st_size for file in weight_files(folder))


def own_dtype(weights: Path) -> str:
    """Name of the dtype that a model's config.json names; float32 where it names none that is exported."""
    raw = read_object(weights / "config.json")
    own = str(raw.get("dtype") or raw.get("torch_dtype") or "float32")
    return own if own in DTYPES else "float32"


def copy_small_files(run: Path, base: Path | None, tokenizer: Path, target: Path, for_converter: bool = True) -> None:
    """Copy what is no weight, without anything that names code.

    Args:
        run: folder of the run's result.
        base: folder of the base model, for what the run lacks.
        tokenizer: folder of the tokenizer (`tokens.choose`); all of its files are taken, and no others but a
            tokenizer.model where the converter would miss it.
        target: an existing folder.
        for_converter: add what only the converter needs: a tokenizer.model that the base model came without.
    """
    for name in SMALL_FILES:
        source = next((one / name for one in (run, base) if one is not None and (one / name).is_file()), None)
        if source is not None:
            _copy(source, target / name)
    for path in tokenizer_files(tokenizer):
        # The converter would take a template from here that transformers, and so the training, does not read.
        if path.name != "chat_template.json":
            (target / path).parent.mkdir(exist_ok=True)
            _copy(tokenizer / path, target / path)
    if for_converter:
        write_pieces(target)
    if (target / TEMPLATE).is_file() and "chat_template" in (config := _config(target)):
        # Where the two differ, transformers believes the file of its own and the converter the other one.
        del config["chat_template"]
        write_object(target / CONFIG, config)


def _config(folder: Path) -> dict[str, Any]:
    return read_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}


def _copy(source: Path, target: Path) -> None:
    content = read_bytes(source)
    if source.suffix == ".json" and source.name != "tokenizer.json" and b'"auto_map"' in content:
        write_object(target, {key: part for key, part in read_object(source).items() if key != "auto_map"})
    else:
        target.write_bytes(content)


def link_checkpoint(source: Path, target: Path, base: Path | None, tokenizer: Path) -> Path:
    """Make a folder that shows a full checkpoint to the converter; weights are linked, not copied.

    Args:
        source: folder with the trained weights.
        target: created here; fails where it exists.
        base: of the model it was trained from, for config files that `source` lacks; None where there is none.
        tokenizer: folder whose tokenizer files are taken.
    """
    target.mkdir()
    for file in weight_files(source):
        (target / file.name).symlink_to(file.resolve())
    if (source / INDEX).is_file():
        (target / INDEX).write_bytes(read_bytes(source / INDEX))
    copy_small_files(source, base, tokenizer, target)
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

"""What lies in a checkpoint folder: `config.json`, the weight files, and the tensors that their headers list.

A safetensors header names every tensor with its shape, so a 140 GB checkpoint is read in a few hundred kilobytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import InputError
from studio.reach import opened, read_text

_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
# How transformers is told to read a folder: nothing from the network, and no pickled weights, which could run code.
SAFE: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
_HEADER_LIMIT = 100_000_000  # The format's own limit, in bytes.


@dataclass(frozen=True)
class Tensor:
    """One stored tensor: its name, safetensors dtype ("BF16") and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return self.size * _BYTES.get(self.dtype, 4)


def read_config(path: Path) -> dict[str, Any]:
    """Read `config.json` of a checkpoint folder.

    Raises:
        InputError: it is missing or not a JSON object.
    """
    file = path / "config.json"
    try:
        config = json.loads(read_text(file))
    except OSError as error:
        raise InputError(
            f"config.json cannot be read ({error.strerror})", where=str(path),
            fix="Give the folder of a Hugging Face checkpoint in model.path",
        ) from error  # fmt: skip
    except ValueError as error:
        raise InputError(
            f"config.json is not valid JSON ({error})", where=str(file), fix="Copy or download the model again"
        ) from error
    if not isinstance(config, dict):
        raise InputError("config.json is not a JSON object", where=str(file), fix="Copy or download the model again")
    return config


def weight_files(path: Path) -> list[Path]:
    """Return the safetensors files that transformers would load, in order; empty if there are none.

    Raises:
        InputError: the index is unreadable, it names something else than a safetensors file of this folder, or a
            file that it names is missing.
    """
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        return []
    try:
        names = sorted({str(name) for name in json.loads(read_text(index))["weight_map"].values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            "the index of the weight files cannot be read", where=str(index), fix="Copy or download the model again"
        ) from error
    foreign = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if foreign:
        raise InputError(
            f"the index of the weight files names '{foreign[0]:.80}', which is no .safetensors file of this folder",
            where=str(index), fix="Copy or download the model again",
        )  # fmt: skip
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} weight files are missing, first {missing[0]}",
            where=str(path),
            fix="Copy or download the model again; a download that broke off goes on where it stopped",
        )
    return [path / name for name in names]


def read_tensors(path: Path) -> list[Tensor]:
    """List every tensor of a checkpoint folder, from the headers alone.

    Raises:
        InputError: a file is missing, cut short, or not a safetensors file.
    """
    return [tensor for file in weight_files(path) for tensor in read_header(file)]


def read_header(file: Path) -> list[Tensor]:
    """Read one safetensors header and check that the file is as long as it says.

    Raises:
        InputError: the file is cut short (a broken download, a Git LFS pointer) or not a safetensors file.
    """
    broken = InputError(
        "this is not a whole safetensors file: a download or copy broke off, or it is a Git LFS pointer",
        where=str(file),
        fix="Copy or download the model again (with git: git lfs pull)",
    )
    try:
        length = file.stat().st_size
        with opened(file) as handle:
            header_length = int.from_bytes(handle.read(8), "little")
            if not 0 < header_length <= min(_HEADER_LIMIT, length):
                raise broken
            header = json.loads(handle.read(header_length))
        entries = [(str(name), value) for name, value in header.items() if name != "__metadata__"]
        end = max((int(value["data_offsets"][1]) for _, value in entries), default=0)
        tensors = [
            Tensor(name, str(value["dtype"]), tuple(int(size) for size in value["shape"])) for name, value in entries
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise broken from error
    if 8 + header_length + end != length:
        raise broken
    return tensors

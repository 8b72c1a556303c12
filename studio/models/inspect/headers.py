"""What lies in a checkpoint folder: `config.json`, the weight files, and the tensors that their headers list.

A safetensors header names every tensor with its shape, so a 140 GB checkpoint is read in a few hundred kilobytes.
"""

from __future__ import annotations

import math
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import InputError
from studio.foreign import Limits, TooMuchError, parse_json, read_json_file
from studio.reach import opened

_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
# Files of which a tokenizer has at least one.
TOKENIZERS = frozenset(("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "spiece.model", "vocab.txt"))
# How transformers is told to read a folder: nothing from the network, and no pickled weights, which could run code.
SAFE: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
# The format allows 100 MB. Kimi K2, with 384 experts in each of 61 blocks, has some 140,000 tensors in all its files.
TENSORS = 150_000
_HEADER = Limits(bytes=40_000_000, nodes=14 * TENSORS)
_LONGEST_NAME, _MOST_PARTS, _MOST_SIDES, _LARGEST = 500, 32, 8, 2**62
# Headers that were read stay until so many tensors are known: a plan asks for the same ones a dozen times.
_KEPT_TENSORS = TENSORS


@dataclass(frozen=True, slots=True)
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
        config = read_json_file(file)
    except OSError as error:
        raise InputError(
            f"config.json cannot be read ({error.strerror})", where=str(path),
            fix="Give the folder of a Hugging Face checkpoint in model.path",
        ) from error  # fmt: skip
    except ValueError as error:
        raise InputError(
            f"config.json is not valid JSON ({error})" if not isinstance(error, TooMuchError)
            else f"config.json is not a model configuration: {error}",
            where=str(file), fix="Copy or download the model again",
        ) from error  # fmt: skip
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
        names = sorted({str(name) for name in read_json_file(index)["weight_map"].values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            "the index of the weight files cannot be read", where=str(index), fix="Copy or download the model again"
        ) from error
    foreign = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if foreign:
        raise InputError(
            f"the index of the weight files names '{foreign[0]:.80}', which is not a .safetensors file in this folder",
            where=str(index), fix="Copy or download the model again",
        )  # fmt: skip
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} weight files are missing, first {missing[0]}",
            where=str(path),
            fix="Copy or download the model again; an interrupted download resumes",
        )
    return [path / name for name in names]


def read_tensors(path: Path) -> list[Tensor]:
    """List every tensor of a checkpoint folder, from the headers alone.

    Raises:
        InputError: a file is missing, cut short, or not a safetensors file, or there are too many tensors.
    """
    found: list[Tensor] = []
    for file in weight_files(path):
        found += read_header(file)
        if len(found) > TENSORS:
            raise _too_many(path)
    return found


def read_header(file: Path) -> list[Tensor]:
    """Read one safetensors header and check that the file is as long as it says.

    Raises:
        InputError: the file is cut short (a broken download, a Git LFS pointer), not a safetensors file, or its header
            is over a limit.
    """
    try:
        stat = file.stat()
    except OSError as error:
        raise _broken(file) from error
    return list(_HEADERS.of(file, (stat.st_ino, stat.st_mtime_ns, stat.st_size)))


class _Headers:
    """Headers that were read, by file and what changes with it; an error is found anew each time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Any, ...], tuple[Tensor, ...]] = OrderedDict()

    def of(self, file: Path, stamp: tuple[int, ...]) -> tuple[Tensor, ...]:
        key = (str(file.absolute()), *stamp)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = _read(file, stamp[-1])
        with self._lock:
            self._kept[key] = found
            while sum(map(len, self._kept.values())) > _KEPT_TENSORS and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return found


_HEADERS = _Headers()


def _read(file: Path, length: int) -> tuple[Tensor, ...]:
    ends = [0]

    def entry(value: dict[str, Any]) -> Any:
        """Make a tensor of an entry while it is read: as mappings and lists it would take four times the memory."""
        if "data_offsets" not in value:
            return value  # the header itself, or its __metadata__
        ends[0] = max(ends[0], int(value["data_offsets"][1]))
        return str(value["dtype"]), tuple(value["shape"])

    try:
        with opened(file) as handle:
            size = int.from_bytes(handle.read(8), "little")
            if not 0 < size <= length:
                raise ValueError
            if size > _HEADER.bytes:
                raise TooMuchError(f"its header has {size / 1e6:,.0f} MB")
            header = parse_json(handle.read(size), _HEADER, object_hook=entry)
        tensors = tuple(_tensor(name, *value) for name, value in header.items() if name != "__metadata__")
    except TooMuchError as error:
        raise InputError(
            f"this is not a model file: {error}", where=str(file), fix="Download the model from its original source"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _broken(file) from error
    if len(tensors) > TENSORS:
        raise _too_many(file)
    if 8 + size + ends[0] != length:
        raise _broken(file)
    return tensors


def _tensor(name: str, dtype: str, shape: tuple[Any, ...]) -> Tensor:
    if len(name) > _LONGEST_NAME or name.count(".") >= _MOST_PARTS or len(shape) > _MOST_SIDES:
        raise TooMuchError(
            f"a tensor has a name of {len(name):,} characters in {name.count('.') + 1:,} parts and {len(shape):,} "
            f"dimensions"
        )
    if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) > _LARGEST:
        raise ValueError
    return Tensor(name, sys.intern(dtype), shape)


def _broken(file: Path) -> InputError:
    return InputError(
        "this is not a complete safetensors file: a download or copy was interrupted, or it is a Git LFS pointer",
        where=str(file),
        fix="Copy or download the model again (with git: git lfs pull)",
    )


def _too_many(place: Path) -> InputError:
    return InputError(
        f"there are more than {TENSORS:,} tensors, more than any model has", where=str(place),
        fix="Download the model from its original source",
    )  # fmt: skip

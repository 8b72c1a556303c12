"""How a checkpoint is read and written without ever being in memory whole: tensors in parts, files of bounded size."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from studio.export.gguf.checkpoint import INDEX, SINGLE

SHARD_BYTES = 128 * 1024 * 1024
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# What was read of a mapped file counts as this process's memory until it is closed: it is opened anew after so many
# numbers, at most 128 MB.
_PART_NUMBERS = 32 * 1024 * 1024
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Form:
    """How a checkpoint is written.

    Attributes:
        dtype: float32, float16 or bfloat16, for matrices. A matrix that float16 cannot hold (an entry above 65504)
            is written in float32.
        shard_bytes: of a file at most; a larger tensor has one of its own.
        uniform: vectors are in `dtype` too, except those that the base stores wider than its matrices; otherwise
            they keep the base's dtype, since llama.cpp's converter stores them in float32 anyway.
    """

    dtype: str
    shard_bytes: int = SHARD_BYTES
    uniform: bool = False

    def written(self, tensor: torch.Tensor, stored: torch.dtype, usual: int) -> torch.Tensor:
        """Round a tensor once, to the dtype it is stored in.

        Args:
            tensor: merged, any dtype.
            stored: dtype of the base's own tensor.
            usual: bytes a number of most of the base's matrices.
        """
        if not tensor.is_floating_point():
            return tensor
        dtype = DTYPES[self.dtype]
        if tensor.dim() < 2:
            return tensor.to(dtype if self.uniform and stored.itemsize <= usual else stored)
        rounded = tensor.to(dtype)
        if dtype == torch.float16 and not torch.isfinite(rounded).all() and torch.isfinite(tensor).all():
            return tensor.float()
        return rounded


@dataclass(frozen=True)
class Part:
    """Tensors of one file that are read without closing it."""

    file: Path
    names: list[str]


def parts_of(files: list[Path]) -> tuple[list[Part], int]:
    """Divide the tensors of a checkpoint; also returns the bytes a number that most of its matrices have.

    Raises:
        SafetensorError: a file is damaged.
    """
    parts: list[Part] = []
    widths: Counter[int] = Counter()
    for file in files:
        held = _PART_NUMBERS
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                kept = tensors.get_slice(name)
                shape = kept.get_shape()
                if len(shape) > 1 and kept.get_dtype() in _WIDTHS:
                    widths[_WIDTHS[kept.get_dtype()]] += math.prod(shape)
                if held + math.prod(shape) > _PART_NUMBERS:
                    parts.append(Part(file, []))
                    held = 0
                parts[-1].names.append(name)
                held += math.prod(shape)
    return parts, widths.most_common(1)[0][0] if widths else 4


def tensors_of(parts: list[Part]) -> Iterator[tuple[str, torch.Tensor]]:
    """Read the tensors one after the other."""
    for part in parts:
        with safe_open(part.file, "pt") as tensors:
            for name in part.names:
                yield name, tensors.get_tensor(name)


class ShardWriter:
    """Writes tensors into numbered safetensors files of bounded size, and their index.

    Args:
        target: an existing folder.
        shard_bytes: of a file at most; a larger tensor has one of its own.
    """

    def __init__(self, target: Path, shard_bytes: int) -> None:
        self._target, self._shard_bytes, self._files = target, shard_bytes, 0
        self._held: dict[str, torch.Tensor] = {}
        self._held_bytes, self._total = 0, 0
        self._places: dict[str, int] = {}

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take in one tensor; what was held before it is written when it has no room beside that.

        Args:
            name: in the checkpoint.
            tensor: in the dtype it is stored in.
        """
        size = tensor.numel() * tensor.element_size()
        if self._held and self._held_bytes + size > self._shard_bytes:
            self._flush()
        self._held[name] = tensor.contiguous()
        self._held_bytes += size
        self._total += size

    def _flush(self) -> None:
        self._files += 1
        self._places |= dict.fromkeys(self._held, self._files)
        save_file(self._held, self._target / f"part-{self._files}.safetensors", metadata={"format": "pt"})
        self._held, self._held_bytes = {}, 0

    def close(self) -> None:
        """Write the last file and give all of them the names that transformers expects."""
        self._flush()
        if self._files == 1:
            (self._target / "part-1.safetensors").rename(self._target / SINGLE)
            return
        names = {n: f"model-{n:05d}-of-{self._files:05d}.safetensors" for n in range(1, self._files + 1)}
        for number, name in names.items():
            (self._target / f"part-{number}.safetensors").rename(self._target / name)
        index = {
            "metadata": {"total_size": self._total},
            "weight_map": {name: names[number] for name, number in self._places.items()},
        }
        (self._target / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")

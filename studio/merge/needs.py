"""What a merge takes of memory and disk, and how long, before it starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import psutil

from studio.errors import StudioError
from studio.export.files import in_words, require_space
from studio.merge.checks import Facts
from studio.merge.parents import Parent
from studio.merge.recipe import Recipe, SliceSource
from studio.models.inspect.headers import Tensor, read_header
from studio.models.inspect.shape import block_of

WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
# mergekit with torch, transformers and PEFT imported, measured.
_IMPORTS = 700_000_000
# Copies of the largest tensor beside one of each model: the result, and what a method computes with.
_SCRATCH = 4
# Rows in a file whose length nobody has looked at.
ANSWERED_ROWS = 100


def compute_dtype(recipe: Recipe) -> str:
    """In which numbers a merge is computed: float32 unless the recipe says otherwise, so that it is rounded once."""
    return recipe.dtype or "float32"


def written_dtype(recipe: Recipe, first: Facts) -> str:
    """In which numbers the child is written: that of the recipe, else that of its first model."""
    own = first.shape.dtype if first.shape.dtype in WIDTHS else "float32"
    return recipe.out_dtype or recipe.dtype or own


def child_numbers(recipe: Recipe, first: Facts) -> int:
    """About how many numbers the child has."""
    whole = sum(math.prod(shape) for shape in first.sides.values())
    if not recipe.sliced:
        return whole
    blocks = sum(
        math.prod(shape) for name, shape in first.sides.items() if any(block_of(part) >= 0 for part in name.split("."))
    )
    layers = [sources[0].layer_range for _, sources, _, _ in recipe.parts if isinstance(sources[0], SliceSource)]
    count = sum(end - begin for begin, end in layers)
    return whole - blocks + blocks * count // max(1, first.shape.layers)


def child_bytes(recipe: Recipe, parents: Sequence[Parent], found: Sequence[Facts]) -> int:
    """Bytes that stay on the disk: the child.

    Args:
        recipe: that makes sense.
        parents: its models.
        found: what is known of them.
    """
    if recipe.method.of_adapters:
        return sum(tensor.bytes for one in parents if one.adapter for tensor in _adapter(one.adapter))
    return child_numbers(recipe, found[0]) * WIDTHS[written_dtype(recipe, found[0])]


def disk_bytes(recipe: Recipe, parents: Sequence[Parent], found: Sequence[Facts]) -> int:
    """Bytes that are written: the child, and each model that an adapter is merged into first.

    Args:
        recipe: that makes sense.
        parents: its models.
        found: what is known of them.
    """
    child = child_bytes(recipe, parents, found)
    if recipe.method.of_adapters:
        return 2 * child
    width = WIDTHS[compute_dtype(recipe)]
    merged = [facts for one, facts in zip(parents, found, strict=True) if one.adapter is not None]
    if not recipe.merge_method:
        return child
    return child + sum(width * math.prod(shape) for facts in merged for shape in facts.sides.values())


def memory_bytes(recipe: Recipe, found: Sequence[Facts], shard_bytes: int) -> int:
    """Bytes of memory at the peak, without pages of mapped files, which the system takes back.

    Args:
        recipe: that makes sense.
        found: of its models.
        shard_bytes: of a file of the child, which is held until it is written.
    """
    largest = max((math.prod(shape) for facts in found for shape in facts.sides.values()), default=0)
    child = child_numbers(recipe, found[0]) * WIDTHS[written_dtype(recipe, found[0])]
    tensors = largest * WIDTHS[compute_dtype(recipe)] * (len(found) + _SCRATCH)
    return _IMPORTS + tensors + min(child, shard_bytes)


def require_room(recipe: Recipe, parents: Sequence[Parent], found: Sequence[Facts], folder: Path, shard: int) -> None:
    """Refuse a merge that has no room.

    Args:
        recipe: that makes sense.
        parents: its models.
        found: what is known of them.
        folder: existing folder on the file system that is written to.
        shard: bytes of a file of the child at most.

    Raises:
        StudioError: memory or disk is too small.
    """
    require_space(folder, disk_bytes(recipe, parents, found), "the merge")
    if recipe.method.of_adapters:
        return
    needed, free = memory_bytes(recipe, found, shard), psutil.virtual_memory().available
    if needed > free:
        raise StudioError(
            f"the merge needs {in_words(needed)} of memory, but only {in_words(free)} is free",
            where="memory", fix="Stop other jobs, set dtype: bfloat16 in the recipe, or merge fewer models at once",
        )  # fmt: skip


def merge_seconds(
    recipe: Recipe, parents: Sequence[Parent], found: Sequence[Facts], rows: bool = False
) -> dict[str, float]:
    """Seconds by phase that a merge should take, by what SmolLM2-135M took on two cores.

    Args:
        recipe: that makes sense.
        parents: its models.
        found: what is known of them.
        rows: models and child answer rows.
    """
    size = sum(math.prod(shape) for shape in found[0].sides.values()) / 135e6
    steps = {
        f"merging the adapter of {one.name}": 2 + 3 * size
        for one in parents
        if one.adapter is not None and not recipe.method.of_adapters
    }
    if recipe.merge_method:
        each = 40.0 if recipe.method.parameter("density") else 10.0
        steps["merging"] = 8 + each * size * max(1, len(found) - 1) / 2
    if rows:
        steps["answering the rows"] = 5 + ANSWERED_ROWS * 0.3 * size * (len(parents) + 1)
    return steps


def _adapter(folder: Path) -> Sequence[Tensor]:
    return read_header(folder / "adapter_model.safetensors")

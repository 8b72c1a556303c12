"""What the ranks of a run say to each other beside gradients: sums, a decision of the first rank, a wait.

In a run of one process every function is the identity, so that callers need not ask. Small things only, as CPU tensors:
where GPUs compute, the process group has gloo beside nccl for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Made = TypeVar("Made")
# Whoever waits longer than this for another rank gives up; one that is stopped or dead is found long before.
PATIENCE = timedelta(minutes=60)


def begin(meeting: str) -> None:
    """Join the other ranks.

    Args:
        meeting: where they meet: file://PATH in a private folder, so that no port is open for it, or env:// at the
            launcher of the first machine.
    """
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo", init_method=meeting, timeout=PATIENCE,
        rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]),
    )  # fmt: skip


def end() -> None:
    """Leave the others, once all of them are done."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def count() -> int:
    """How many ranks there are; 1 in a run of one process."""
    return dist.get_world_size() if dist.is_initialized() else 1


def number() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def total(values: list[float]) -> list[float]:
    """Add up numbers over all ranks, each at its place in the list."""
    if count() == 1:
        return values
    summed = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(summed)
    return [float(one) for one in summed]


def any_of(flag: bool) -> bool:
    """Whether it is true on any rank."""
    return total([float(flag)])[0] > 0


def most(value: float) -> float:
    """The largest of all ranks."""
    if count() == 1:
        return value
    largest = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return float(largest)


def gathered(value: Made) -> list[Made]:
    """What every rank has, in their order."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, value)
    return found


def joined(values: list[Made]) -> list[Made]:
    """The items of every rank's list, one list behind the other."""
    return [one for some in gathered(values) for one in some]


def own_share(rows: int) -> range:
    """The places of this rank's rows, where rows are dealt out one block after the other, as equal as they can be."""
    return range(rows * number() // count(), rows * (number() + 1) // count())


def by_shares(work: Callable[[range], list[Made]], rows: int) -> list[Made]:
    """Let each rank do something with its share of some rows, and give all of them what comes of every row.

    Args:
        work: takes the places of some rows.
        rows: how many there are.
    """
    own = own_share(rows)
    return joined(work(own) if own else [])


def first(work: Callable[[], Made]) -> Made:
    """Let the first rank do something, and give all of them what it returns."""
    if count() == 1:
        return work()
    made: list[Any] = [work() if number() == 0 else None]
    dist.broadcast_object_list(made, src=0, device=torch.device("cpu"))
    return made[0]  # type: ignore[no-any-return]


def after_first(work: Callable[[], Made]) -> Made:
    """Let every rank do something, the first one before all others, who then find what it has put into a cache."""
    if count() == 1:
        return work()
    made = work() if number() == 0 else None
    together()
    return work() if made is None else made


def together() -> None:
    """Wait until every rank is here."""
    if count() > 1:
        dist.barrier()

"""DeepSpeed: its config, made of the run's options and left in the job's folder, and what a trainer is given for it.

DeepSpeed divides what a run holds over its GPUs (ZeRO, arXiv:1910.02054); accelerate's plugin runs it. It is not a
dependency of the studio: who wants it installs it beside.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.errors import InputError
from studio.jobs.store.files import write_json
from studio.models.plan.memory import BUCKET
from studio.models.plan.spread import PARALLEL, ZERO

FILE = "deepspeed.json"
# Weights of at most so many numbers stay whole under stage 3: sending them costs more than holding them.
PERSISTENT = 100_000


def deepspeed_config(config: RunConfig, *, stage: int, ranks: int, autocast: bool) -> dict[str, Any]:
    """Return DeepSpeed's config of a run.

    An update is one batch to DeepSpeed: the trainer computes it a part at a time (`trainers.grouped`).

    Args:
        config: the run.
        stage: of ZeRO, 1 to 3.
        ranks: processes that compute it together.
        autocast: products are computed in bfloat16.
    """
    training = config.training
    zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": BUCKET, "overlap_comm": True}
    if stage < 3:
        zero |= {"allgather_bucket_size": BUCKET}
    else:
        zero |= {
            "stage3_prefetch_bucket_size": BUCKET, "stage3_param_persistence_threshold": PERSISTENT,
            "stage3_gather_16bit_weights_on_model_save": True,
        }  # fmt: skip
    return {
        "train_batch_size": training.batch_size,
        "train_micro_batch_size_per_gpu": training.batch_size // ranks,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": training.max_grad_norm,
        "bf16": {"enabled": autocast},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # torch's AdamW, as in every other run
    }


def write_config(folder: Path, values: dict[str, Any]) -> Path:
    """Leave DeepSpeed's config in a job's folder."""
    write_json(folder / FILE, values)
    return folder / FILE


def for_trainer(values: dict[str, Any]) -> dict[str, Any]:
    """The same for transformers, which fills in its own batch sizes: each rank reads all rows of an update."""
    own = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    return values | dict.fromkeys(own, "auto")


def refuse_resuming(config: RunConfig) -> None:
    """Refuse to go on from a checkpoint, which holds the weights only where DeepSpeed divides a run.

    Raises:
        InputError: the run is of that kind.
    """
    parallel = config.training.parallel
    if parallel in ZERO:
        raise InputError(
            f"a {parallel} run cannot resume from a checkpoint", where=PARALLEL,
            fix=f"Start it anew; with {PARALLEL} ddp or fsdp2 a run can be resumed",
        )  # fmt: skip


def require_deepspeed(config: RunConfig, *, gpu: bool) -> None:
    """Refuse a run that DeepSpeed is to divide where it cannot.

    Args:
        config: the run.
        gpu: the run has GPUs.

    Raises:
        InputError: it is not installed, or the run is on a CPU.
    """
    parallel = config.training.parallel
    if parallel not in ZERO:
        return
    fix = f"Set it to auto, ddp or fsdp2{'' if gpu else ', which compute on a CPU too'}"
    if not gpu:
        raise InputError(f"{parallel} shards a run across GPUs, and there is none here", where=PARALLEL, fix=fix)
    if find_spec("deepspeed") is None:
        raise InputError(
            f"{parallel} needs DeepSpeed, which is not installed", where=PARALLEL,
            fix=f"Install it beside the studio (pip install deepspeed), or set {PARALLEL} to fsdp2",
        )  # fmt: skip

"""What several processes cannot share: methods, tunings and models whose updates are not a sum over rows.

That the devices are there is `jobs.run.devices.require_devices`: a job sees only those that it was given.
"""

from __future__ import annotations

from studio.config import RunConfig
from studio.errors import InputError
from studio.jobs.run.devices import CPU
from studio.methods import METHODS
from studio.models.device.gpus import visible_gpus
from studio.models.plan.batches import by_length
from studio.models.plan.spread import DEVICES, PARALLEL, ZERO, shardable, zeroable
from studio.train.checks.known import Known
from studio.train.zero import require_deepspeed


def one_device(config: RunConfig) -> str:
    """What has to be set, to what, for a run on one device."""
    return f"{DEVICES} to auto" + (" and training.nodes to 1" if config.training.nodes > 1 else "")


def _method(known: Known) -> None:
    config, ranks = known.config, known.config.training.ranks
    if ranks == 1:
        if config.training.parallel not in ("auto", "none"):
            raise InputError(
                f"{config.training.parallel} splits a run across devices, but this run uses one", where=PARALLEL,
                fix=f"Set {DEVICES} to 2 or more, or {PARALLEL} to auto",
            )  # fmt: skip
        return
    if config.training.parallel == "none":
        raise InputError(
            f"{ranks} devices were requested, but {PARALLEL} is none", where=PARALLEL,
            fix=f"Set it to auto, or {one_device(config)} for one process",
        )  # fmt: skip
    if config.training.engine == "unsloth":
        raise InputError(
            "Unsloth trains on one device", where="training.engine", fix=f"Set it to studio, or {one_device(config)}"
        )
    if by_length(config) or config.method.kind.deals(config.method):
        if config.training.parallel == "fsdp2" and not shardable(config):
            listed = ", ".join(one.name for one in METHODS.values() if one.shards)
            raise InputError(
                f"fsdp2 goes with {listed}, full or a new LoRA or DoRA adapter that starts at default, and AdamW; not "
                f"with {config.method.name}, {config.tuning.name} and {config.training.optimizer} as they are set",
                where=PARALLEL, fix="Set it to ddp",
            )  # fmt: skip
        return
    if config.method.kind.deals(config.method.model_copy(update={"grpo_loss": "dapo"})):
        raise InputError(
            "bnpo's loss depends on which completions are computed together, so several devices would have "
            "another one", where="method.grpo_loss", fix=f"Set it to dapo, or {one_device(config)}",
        )  # fmt: skip
    raise InputError(
        "padding-free batches cannot be split between devices", where="training.padding_free",
        fix=f"Set it to false, or {one_device(config)}",
    )  # fmt: skip


def _deepspeed(known: Known) -> None:
    config = known.config
    training = config.training
    if training.parallel not in ZERO or training.ranks == 1:
        return
    require_deepspeed(config, gpu=training.device != CPU and bool(visible_gpus()))
    if not zeroable(config):
        raise InputError(
            f"{training.parallel} goes with sft or pretrain, full or a new LoRA adapter that starts at default, and "
            f"AdamW; not with {config.method.name}, {config.tuning.name} and {training.optimizer} as they are set",
            where=PARALLEL, fix="Set it to ddp",
        )  # fmt: skip
    if training.load_best_model_at_end:
        raise InputError(
            f"with {training.parallel} the weights of an earlier step cannot be restored",
            where="training.load_best_model_at_end", fix=f"Set it to false, or {PARALLEL} to fsdp2",
        )  # fmt: skip


def _batch(known: Known) -> None:
    training = known.config.training
    ranks, micro = training.ranks, training.micro_batch_size
    if ranks == 1:
        return
    if training.batch_size % ranks:
        less, more = training.batch_size // ranks * ranks, -(-training.batch_size // ranks) * ranks
        raise InputError(
            f"a batch of {training.batch_size} examples cannot be divided equally among {ranks} devices",
            where="training.batch_size",
            fix=f"Set it to {f'{less} or {more}' if less else more}, or change {DEVICES}",
        )
    if micro != "auto" and training.batch_size // ranks % micro:
        raise InputError(
            f"each of {ranks} devices computes {training.batch_size // ranks} examples of a batch, which is no "
            f"multiple of {micro}",
            where="training.micro_batch_size", fix="Leave it at auto, or take a divisor of that number",
        )  # fmt: skip


def _model(known: Known) -> None:
    config = known.config
    if config.training.ranks > 1 and known.shape.experts:
        raise InputError(
            "a mixture of experts trains on one device: in an update a device may use experts that others do not",
            where=DEVICES, fix=f"Set {one_device(config)}",
        )  # fmt: skip


RANK_CHECKS = (_method, _deepspeed, _batch, _model)

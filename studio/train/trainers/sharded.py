"""FSDP2: every rank holds a part of each weight, gradient and optimizer state, and gathers a block when it computes it.

accelerate and torch do that. Here its checkpoints are made those of any other run, whole tensors in model.safetensors
and optimizer.pt, so that a run goes on with any number of ranks, sharded or not; and accelerate, which refuses FSDP on
a processor although torch can do it there, is told otherwise.

Numbers are rounded to bfloat16 where autocast rounds them on one device: accelerate leaves autocast out with FSDP2. An
adapter's run gathers weights as they are stored. Where every weight is trained, from float32, blocks and head are
gathered in bfloat16, which autocast would round them to anyway and keep a copy of until the end of the step; but not
embeddings, since what they give is what blocks add to, nor the weights of norms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from studio.models.plan.spread import ZERO
from studio.train.ranks import sharing
from studio.train.setup import Setup
from studio.train.zero import deepspeed_config, for_trainer, write_config

_OPTIMIZER, _SCHEDULER = "optimizer.pt", "scheduler.pt"
# accelerate's own policy would also round the loss and what a model is given, the number of tokens among it.
AS_STORED = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
ROUNDED = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)


def sharding_arguments(setup: Setup) -> dict[str, Any]:
    """Return what a trainer's config is given for FSDP2 or DeepSpeed, whose config is left in the job's folder."""
    if stage := ZERO.get(setup.plan.parallel):
        values = deepspeed_config(setup.config, stage=stage, ranks=setup.plan.ranks, autocast=setup.plan.autocast)
        if sharing.number() == 0:
            write_config(setup.output.parent, values)
        return {"deepspeed": for_trainer(values)}
    if setup.plan.parallel != "fsdp2":
        return {}
    config = {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "state_dict_type": "FULL_STATE_DICT",
    }
    return {"fsdp": True, "fsdp_config": config}


class Sharded:
    """Put before a trainer class."""

    _beside: Any = None  # a name that no trainer has: kto has a `_reference` of its own

    @property
    def ref_model(self) -> Any:
        """A second, frozen model that each loss is compared with; None without one, or where it is the trained one."""
        return self._beside

    @ref_model.setter
    def ref_model(self, model: Any) -> None:
        """Divide what TRL sets, block by block, before TRL would do so as a whole; and when TRL sets it again, with its
        own head on it, compute it under autocast as the trained model is.
        """
        self._beside = model
        if model is None or not self.is_fsdp_enabled:  # type: ignore[attr-defined]
            return
        if isinstance(model, FSDPModule):
            self._under_autocast(model)
            return
        fsdp2_prepare_model(self.accelerator, model)  # type: ignore[attr-defined]
        if self.args.bf16:  # type: ignore[attr-defined]
            keep_exact(model)

    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator, also for FSDP on a processor."""
        args: Any = self.args  # type: ignore[attr-defined]
        if not args.fsdp:
            return super().create_accelerator_and_postprocess()  # type: ignore[misc, no-any-return]
        state = args.distributed_state
        kind = state.distributed_type
        if kind == DistributedType.MULTI_CPU:
            state.distributed_type = DistributedType.MULTI_GPU
        try:
            super().create_accelerator_and_postprocess()  # type: ignore[misc]
        finally:
            state.distributed_type = kind
        if args.bf16:
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = ROUNDED  # type: ignore[attr-defined]

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        """Compute the model under autocast, before accelerate divides it.

        Args:
            model: whole, at the beginning of a training.
            training: False where a validation asks, whose model is ready.
            dataloader: passed on.
        """
        if training and self.is_fsdp_enabled and self.args.bf16:  # type: ignore[attr-defined]
            if isinstance(model, PeftModel):
                self.accelerator.state.fsdp_plugin.mixed_precision_policy = AS_STORED  # type: ignore[attr-defined]
            self._under_autocast(model)
        return super()._wrap_model(model, training, dataloader)  # type: ignore[misc]

    def _under_autocast(self, model: Any) -> None:
        """Let a model be computed under the run's autocast, which accelerate leaves out where it divides it."""
        self.accelerator.prepare_model(model, evaluation_mode=True)  # type: ignore[attr-defined]
        keep_sharded(self)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's own; then the model is divided, and nothing was gathered yet.

        Raises:
            RuntimeError: accelerate has not divided it, and each rank would train a model of its own.
        """
        prepared = super()._prepare_for_training(*args, **kwargs)  # type: ignore[misc]
        if self.is_fsdp_enabled:  # type: ignore[attr-defined]
            model = self.model  # type: ignore[attr-defined]
            if not isinstance(model, FSDPModule):
                raise RuntimeError("the model was not sharded across the ranks")
            if self.args.bf16 and not isinstance(model, PeftModel):  # type: ignore[attr-defined]
                keep_exact(model)
        return prepared

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write whole weights, or the adapter's.

        accelerate 1.15 leaves parts in what it gathers (tied weights), which transformers then gathers on one rank
        alone.

        Args:
            output_dir: None for the trainer's.
            _internal_call: passed on.
        """
        if not self.is_fsdp_enabled:  # type: ignore[attr-defined]
            return super().save_model(output_dir, _internal_call)  # type: ignore[misc, no-any-return]
        model = self.model  # type: ignore[attr-defined]
        _reshard(model)
        weights = dict(model.named_parameters())
        if isinstance(model, PeftModel):
            kept = {name: weight for name, weight in weights.items() if weight.requires_grad}
        else:  # tied weights under one name, as transformers writes them
            others = {name for name, _ in model.named_parameters(remove_duplicate=False)} - weights.keys()
            kept = {name: weight for name, weight in model.state_dict().items() if name not in others}
        whole = {name: _whole(weight) for name, weight in kept.items()}
        if self.args.should_save:  # type: ignore[attr-defined]
            self._save(output_dir or self.args.output_dir, state_dict=whole)  # type: ignore[attr-defined]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Write the optimizer's state as that of one process; not DeepSpeed's own form, which nothing reads."""
        if self.is_deepspeed_enabled:  # type: ignore[attr-defined]
            return None
        if not self.is_fsdp_enabled:  # type: ignore[attr-defined]
            return super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc, no-any-return]
        optimizer, scheduler = self.optimizer, self.lr_scheduler  # type: ignore[attr-defined]
        state = optimizer.state_dict()
        whole = {
            place: {name: _whole(value) for name, value in sorted(values.items())}
            for place, values in sorted(state["state"].items())
        }
        if self.args.should_save:  # type: ignore[attr-defined]
            torch.save({**state, "state": whole}, Path(output_dir) / _OPTIMIZER)
            torch.save(scheduler.state_dict(), Path(output_dir) / _SCHEDULER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Take this rank's part of a state that was written by any number of ranks."""
        if checkpoint is None or not self.is_fsdp_enabled:  # type: ignore[attr-defined]
            return super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc, no-any-return]
        optimizer, scheduler = self.optimizer, self.lr_scheduler  # type: ignore[attr-defined]
        state = torch.load(Path(checkpoint) / _OPTIMIZER, map_location="cpu", weights_only=True)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for place, values in state["state"].items():
            for name, value in values.items():
                values[name] = _part(value, weights[place])
        optimizer.load_state_dict(state)
        scheduler.load_state_dict(torch.load(Path(checkpoint) / _SCHEDULER, weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Take this rank's part of the weights of a checkpoint.

        Args:
            resume_from_checkpoint: its folder.
            model: None for the trainer's.
        """
        model = self.model if model is None else model  # type: ignore[attr-defined]
        if not self.is_fsdp_enabled:  # type: ignore[attr-defined]
            return super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc, no-any-return]
        stored: dict[str, torch.Tensor] = {}
        for file in sorted(Path(resume_from_checkpoint).glob("*.safetensors")):
            stored |= load_file(file)
        _reshard(model)
        names = stored_names(model) if isinstance(model, PeftModel) else {}
        with torch.no_grad():
            for name, weight in model.named_parameters():
                found = stored.get(names.get(name, name))
                if found is not None:
                    weight.copy_(_part(found.to(weight.dtype), weight))


def keep_sharded(trainer: Any) -> None:
    """Remind accelerate of what it does, where its state was asked for anew, as autocast does: that forgets it on a
    processor, whose kind it takes from the processes.
    """
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.distributed_type = DistributedType.FSDP


@contextmanager
def gathered(model: Any) -> Iterator[None]:
    """Hold all weights whole, without gradients, while text is written: each rank computes as many tokens as its own
    rows have, and so cannot wait for others at each.

    Args:
        model: divided; all ranks enter and leave together.
    """
    model._get_fsdp_state()._lazy_init()  # as the first forward pass does, which would be that of a block
    groups = _groups(model)
    before = [group.post_forward_mesh_info for group in groups]
    for part in _divided(model):
        part.unshard()
    for group in groups:
        group.post_forward_mesh_info = None  # keep it whole after a forward pass
    try:
        yield
    finally:
        for group, kept in zip(groups, before, strict=True):
            group.post_forward_mesh_info = kept
        model.reset_iter_state()


def _reshard(model: Any) -> None:
    """Leave each rank its part of every weight: some stay whole after a validation, until the next step."""
    for module in _divided(model):
        module.reshard()


def _divided(model: Any) -> list[FSDPModule]:
    """The modules whose weights are gathered together: blocks, embeddings and head, and the model for the rest."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _groups(model: Any) -> list[Any]:
    """torch's own groups of weights that are gathered together."""
    return list(dict.fromkeys(group for part in _divided(model) for group in part._get_fsdp_state()._fsdp_param_groups))


def keep_exact(model: Any) -> None:
    """Gather embeddings and vectors as they are stored; before the first forward pass.

    torch adds up the gradients of a group in one number format: those that come in bfloat16 are made float32 first.

    Args:
        model: divided with `ROUNDED`.
    """
    embedding = model.get_input_embeddings().weight
    for part in (part for group in _groups(model) for part in group.fsdp_params):
        if part.sharded_param is embedding or part.sharded_param.ndim == 1:
            part.init_dtype_attrs = partial(_unrounded, part.init_dtype_attrs)
        else:
            part.accumulate_unsharded_grad_if_needed = partial(_widened, part)


def _unrounded(initialize: Callable[[MixedPrecisionPolicy], None], _: MixedPrecisionPolicy) -> None:
    initialize(AS_STORED)


def _widened(part: Any) -> None:
    """Make a whole gradient float32; a weight that was never gathered has none."""
    if hasattr(part, "_unsharded_param"):
        part.to_accumulated_grad_if_needed()


def stored_names(model: PeftModel) -> dict[str, str]:
    """By the name of each trained parameter, the one that PEFT gives it in a file."""
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    places = {name: torch.tensor(at) for at, name in enumerate(names)}
    told = get_peft_model_state_dict(model, state_dict=places, save_embedding_layers=False)
    return {names[int(place)]: stored for stored, place in told.items()}


def _whole(value: Any) -> Any:
    """A tensor of all ranks' parts, on the CPU; everything else as it is."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def _part(value: Any, weight: torch.Tensor) -> Any:
    """This rank's part of a whole tensor that is distributed as a weight is; a count of steps is no such tensor."""
    if not isinstance(value, torch.Tensor) or not isinstance(weight, DTensor) or value.shape != weight.shape:
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)

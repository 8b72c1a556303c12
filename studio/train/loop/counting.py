"""What every trainer counts and changes alike: tokens, LoRA+, schedule and end at a checkpoint, adapters in float32."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from transformers.trainer_callback import PrinterCallback
from trl.kernels import chunked_logprob

from studio.models.plan.memory import TILE_TOKENS
from studio.train.setup import Setup
from studio.train.tuning.dora import exact_lengths

Built = TypeVar("Built", bound=Any)


class Counting:
    """Put before a trainer class.

    Attributes:
        tokens_seen: non-padding tokens of the training batches so far, all sequences of a pair counted.
        supervised_seen: how many of them the loss counted.
        own_tokens: how many of them this rank computed, where there are several.
        accuracy: share of supervised tokens of the latest batch that the model would have chosen, None if unknown.
    """

    tokens_seen = 0
    supervised_seen = 0
    own_tokens = 0
    accuracy: float | None = None
    setup: Setup

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Count a micro-batch, then let the trainer compute it.

        Args:
            model: passed on.
            inputs: one micro-batch, as the collator made it.
            args, kwargs: whatever else this version of transformers passes.
        """
        self.count(inputs)
        return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def count(self, inputs: Any) -> None:
        """Add a micro-batch's tokens; masks are (B, T) tensors, and without one there is no padding."""
        if isinstance(inputs, dict) and "position_ids" in inputs and "attention_mask" not in inputs:
            self.tokens_seen += inputs["input_ids"].numel()
        for key, value in inputs.items() if isinstance(inputs, dict) else ():
            if not isinstance(value, torch.Tensor) or value.dim() != 2:
                continue
            if key in ("attention_mask", "chosen_attention_mask", "rejected_attention_mask"):
                self.tokens_seen += int(value.sum())
            elif key == "completion_mask":
                self.supervised_seen += int(value.sum())
            elif key in ("labels", "chosen_labels", "rejected_labels"):
                self.supervised_seen += int((value[:, 1:] != -100).sum())

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's optimizer, or that of LoRA+ with its larger rate for B."""
        tuning = self.setup.config.tuning
        ratio = tuning.lora_plus_ratio
        if ratio is None or not tuning.reads("lora_plus_ratio"):
            return super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        from peft.optimizers import create_loraplus_optimizer

        optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)  # type: ignore[attr-defined]
        self.optimizer = create_loraplus_optimizer(
            self.model,  # type: ignore[attr-defined]
            optimizer_class,
            loraplus_lr_ratio=ratio,
            loraplus_weight_decay=self.args.weight_decay,  # type: ignore[attr-defined]
            **options,
        )
        return self.optimizer

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Train an epoch, but not after the last step.

        Where a run goes on from its last checkpoint (it was killed while it saved its model), transformers 5.23 makes
        one step more if that lies within an epoch: it asks whether all steps are made only after a step.
        """
        if self.state.global_step >= self.state.max_steps:  # type: ignore[attr-defined]
            self.control.should_training_stop = True  # type: ignore[attr-defined]
            return
        super()._run_epoch(*args, **kwargs)  # type: ignore[misc]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load their state, but keep this run's rate, decay and schedule: a branch may have other ones.

        The state holds the rates that the old schedule had at that step; the trainer would make one step with them.
        """
        if checkpoint is None:
            return
        optimizer, scheduler = self.optimizer, self.lr_scheduler  # type: ignore[attr-defined]
        asked = [{name: group[name] for name in ("initial_lr", "weight_decay")} for group in optimizer.param_groups]
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        scheduler.base_lrs = [own["initial_lr"] for own in asked]
        scheduler._last_lr = [
            rate * share(scheduler.last_epoch)
            for rate, share in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]
        for group, own, rate in zip(optimizer.param_groups, asked, scheduler._last_lr, strict=True):
            group.update(own, lr=rate)


def finish(trainer: Built, setup: Setup) -> Built:
    """Make the last changes to a trainer that was just built.

    TRL casts adapters over a quantised base to bfloat16, in which small updates are lost; float32 is put back. PEFT
    rounds DoRA's lengths likewise (`exact_lengths`).
    """
    trainer.setup = setup
    trainer.remove_callback(PrinterCallback)  # prints what our own callback writes as events
    for parameter in trainer.model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()
    if setup.peft_config is not None and setup.peft_config.use_dora:
        exact_lengths(trainer.model)
    narrow(trainer.model.device)
    return trainer


def narrow(device: torch.device) -> None:
    """Take smaller tiles in TRL's fused head, in this process, on a device for which it has no Triton kernel.

    DPO, KTO and GRPO take their log-probabilities from it, 4,096 tokens × 32,768 logits at a time. With Triton these
    are 16-bit numbers that are changed in place; torch makes seven float32 tensors of them, 4 GB in all. A token's
    numbers depend on no other token, so a tile can be smaller.
    """
    if device.type not in ("cuda", "xpu"):
        chunked_logprob.TOKEN_CHUNK_SIZE = min(chunked_logprob.TOKEN_CHUNK_SIZE, TILE_TOKENS)

"""TRL's SFTTrainer with our loss and our data, for sft and pretrain.

The rows arrive as `input_ids` and `labels`, so that nothing is tokenized, masked or cut twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from studio.data.prepare.units import Encoded
from studio.data.streaming.rows import StreamedRows
from studio.errors import InputError
from studio.models.plan.making import Plan
from studio.train.engine.comparing import mixed
from studio.train.loop.counting import Counting, finish
from studio.train.ranks import sharing
from studio.train.setup import Setup, common_arguments, trainer_parts
from studio.train.trainers.columns import StreamedDataset, token_dataset
from studio.train.trainers.grouped import Grouped, Parts
from studio.train.trainers.sharded import Sharded, sharding_arguments

# What the collator makes that the model takes; the last five tell of examples that stand in one row.
_MODEL_INPUTS = (
    "input_ids", "attention_mask", "labels", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q",
    "max_length_k",
)  # fmt: skip
# Relative distances between a row alone and behind another one, from which on they are mixed: in float32, and in
# 16 bits, where a router may also choose another expert. What models mixed was 0.3 and more.
_EXACT, _ROUNDED = 1e-3, 0.15


class SupervisedTrainer(Grouped, Counting, Sharded, SFTTrainer):
    """SFTTrainer that computes logits at supervised tokens only."""

    engine_loss = True
    loss_name = "nll"
    _right = _judged = 0

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Gradients of an update or of a part of it, whose accuracy is counted anew.

        Args:
            model: passed on.
            inputs: `Parts`, or one micro-batch.
            num_items_in_batch: supervised tokens of the update over all micro-batches; None: each is a mean of its own.
        """
        self._right = self._judged = 0
        loss = super().training_step(model, inputs, num_items_in_batch)
        if sharing.count() > 1 and isinstance(inputs, Parts):
            right, judged = sharing.total([self._right, self._judged])
            self.accuracy = right / max(1.0, judged)
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Loss of one micro-batch.

        Args:
            model: with our loss attached where the engine is `studio`.
            inputs: tensors of a micro-batch, (B, T), and columns the model does not take.
            return_outputs: leaves the loss to transformers, whose outputs hold logits.
            num_items_in_batch: supervised tokens of the update; None for the micro-batch's mean.
        """
        if not self.engine_loss or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = {key: inputs[key] for key in _MODEL_INPUTS if key in inputs}
        # A validation loss stays cross-entropy, whatever is trained on.
        loss_name = self.loss_name if self.model.training else "nll"
        output = model(
            **inputs, use_cache=False, supervised_loss=True, num_items=num_items_in_batch, loss_name=loss_name
        )
        loss = output.loss
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages the gradients of the ranks
        if num_items_in_batch is None or math.isfinite(float(num_items_in_batch)):
            self._right, self._judged = self._right + int(output.correct), self._judged + int(output.count)
            self.accuracy = self._right / max(1, self._judged)
        return loss

    def mixed(self) -> float:
        """How far examples that share a row change each other (`comparing.mixed`)."""

        def collate(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
            made = self._prepare_inputs(self.data_collator(rows))
            return {key: made[key] for key in _MODEL_INPUTS if key in made and key != "labels"}

        return mixed(self.model, collate)

    def require_apart(self, plan: Plan) -> None:
        """Refuse rows without padding where the model, as it will be trained, mixes the examples in them.

        Args:
            plan: its number format.

        Raises:
            InputError: it does, or cannot compute such rows.
        """
        exact = plan.dtype == "float32" and not plan.autocast
        try:
            with torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=plan.autocast):
                far = self.mixed()
        except Exception as error:  # a model of anybody's code
            said = (
                f"this model cannot compute several examples in one row: {str(error).strip().partition('. ')[0]:.200}"
            )
        else:
            if far <= (_EXACT if exact else _ROUNDED):
                return
            said = f"this model's layers carry what they have read from one example into the next (by {far:.1e})"
        raise InputError(said, where="training.padding_free", fix="Turn it off for this model")


def build(setup: Setup) -> SupervisedTrainer:
    """Put model, rows and arguments together."""
    config = setup.config
    noise = config.method.neftune_noise_alpha if config.method.reads("neftune_noise_alpha") else 0
    arguments = SFTConfig(
        **common_arguments(setup) | sharding_arguments(setup),
        loss_type=config.method.kind.loss(config.method),
        neftune_noise_alpha=noise or None,
        max_length=None,  # lengths were checked, cut or refused by the studio already
        packing=False,
        padding_free=config.training.padding_free,
        shuffle_dataset=False,
        remove_unused_columns=False,  # there are none, and to remove them a dataset is copied
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SupervisedTrainer(args=arguments, **trainer_parts(setup, _dataset))
    trainer.engine_loss, trainer.loss_name = setup.engine_loss, arguments.loss_type
    return finish(trainer, setup)


def _dataset(rows: Sequence[Encoded]) -> Dataset:
    if isinstance(rows, StreamedRows):
        return StreamedDataset(rows)
    return token_dataset(input_ids=(row.input_ids for row in rows), labels=(row.labels for row in rows))

"""TRL's SFTTrainer with our loss, our data and no surprises.

What TRL does by itself and the studio does not want is switched off here, each with its reason. The rows arrive
as `input_ids` and `labels`, so that nothing is tokenized, masked or cut twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from studio.config import RunConfig
from studio.data.prepare import Encoded
from studio.models.plan import Plan


class SupervisedTrainer(SFTTrainer):
    """SFTTrainer that computes logits at supervised tokens only.

    Attributes:
        tokens_seen: non-padding tokens of the training batches so far.
        supervised_seen: how many of them the loss counted.
        accuracy: share of supervised tokens of the latest batch that the model would have chosen.
    """

    engine_loss = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.tokens_seen = 0
        self.supervised_seen = 0
        self.accuracy = 0.0
        super().__init__(*args, **kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Loss of one micro-batch; counts its real tokens."""
        counted = self.model.training
        tokens = int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else inputs["input_ids"].numel()
        if not self.engine_loss or return_outputs:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            supervised = int((inputs["labels"][:, 1:] != -100).sum())
        else:
            inputs = {key: inputs[key] for key in ("input_ids", "attention_mask", "labels") if key in inputs}
            output = model(**inputs, use_cache=False, supervised_loss=True, num_items=num_items_in_batch)
            loss = output.loss
            if self.args.average_tokens_across_devices and num_items_in_batch is not None:
                loss = loss * self.accelerator.num_processes  # DDP averages the gradients of the ranks
            supervised = int(output.count)
            self.accuracy = float(output.correct) / max(1, supervised)
        if counted:
            self.tokens_seen += tokens
            self.supervised_seen += supervised
        return loss


def training_arguments(config: RunConfig, plan: Plan, output: Path, *, validate: bool, autocast: bool) -> SFTConfig:
    """Translate a run and its plan into TRL's arguments.

    Args:
        config: the run.
        plan: what every `auto` was resolved to.
        output: folder of the checkpoints.
        validate: there are validation rows.
        autocast: compute in bfloat16 where weights are float32 or adapters are.
    """
    training = config.training
    validate = validate and bool(plan.eval_steps)
    return SFTConfig(
        output_dir=str(output),
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        per_device_train_batch_size=plan.micro_batch,
        per_device_eval_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=plan.learning_rate,
        lr_scheduler_type=training.scheduler,
        warmup_steps=_warmup_steps(training.warmup, plan.steps),
        optim=training.optimizer,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        gradient_checkpointing=plan.activation_checkpointing,
        bf16=autocast,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
        logging_nan_inf_filter=False,  # hides the very numbers that a person must see
        eval_strategy="steps" if validate else "no",
        eval_steps=plan.eval_steps if validate else None,
        eval_on_start=validate,
        save_strategy="steps",
        save_steps=plan.save_steps,
        save_total_limit=training.save_total_limit,
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
        train_sampling_strategy="random" if config.data.shuffle else "sequential",
        max_length=None,  # lengths were checked, cut or refused by the studio already
        packing=False,
        shuffle_dataset=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        include_num_input_tokens_seen="no",
    )


def build_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    arguments: SFTConfig,
    train: list[Encoded],
    validation: list[Encoded],
    callbacks: list[TrainerCallback],
    peft_config: Any = None,
) -> SupervisedTrainer:
    """Put model, rows and arguments together; nothing has been computed yet."""
    trainer = SupervisedTrainer(
        model=model,
        args=arguments,
        train_dataset=_dataset(train),
        eval_dataset=_dataset(validation) if validation else None,
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)  # prints what our own callback writes as events
    return trainer


def _dataset(rows: list[Encoded]) -> Dataset:
    return Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]})


def _warmup_steps(share: float, steps: int) -> int:
    return round(share * steps) if share else 0

"""What a trainer is made of, and the arguments that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from studio.config import RunConfig
from studio.models.plan.batches import by_length, dealt
from studio.models.plan.making import Plan
from studio.models.plan.schedule import scheduler_arguments, warmup_steps


@dataclass
class Setup:
    """Everything `Method.build` needs; nothing has been computed yet.

    Attributes:
        config: the run.
        plan: what every `auto` was resolved to.
        model: loaded; wrapped by PEFT already only where an existing adapter is trained on.
        base: folder of the model, from which a frozen reference is read.
        tokenizer: the model's.
        train, validation: sequences of units of the method's kind (`data.prepare.units`).
        output: folder of the checkpoints.
        callbacks: told of every step.
        peft_config: of a new adapter; None for full tuning and for an existing adapter.
        engine_loss: the model has our loss attached (`engine.loss`).
        scorer: folder of a reward model, for the reward `model`.
        resumed: whether the training goes on from a checkpoint.
        on_samples: told (step, samples) of the answers that an online method writes.
    """

    config: RunConfig
    plan: Plan
    model: PreTrainedModel
    base: Path
    tokenizer: PreTrainedTokenizerBase
    train: Any
    validation: Any
    output: Path
    callbacks: list[TrainerCallback] = field(default_factory=list)
    peft_config: Any = None
    engine_loss: bool = False
    scorer: Path | None = None
    resumed: bool = False
    on_samples: Callable[[int, list[dict[str, Any]]], None] = lambda step, samples: None

    @property
    def by_length(self) -> bool:
        """Whether rows of like length are computed together (`trainers.grouped`)."""
        return by_length(self.config)

    @property
    def dealt(self) -> bool:
        """Whether an update is computed as a whole, although its rows are not chosen by length."""
        return dealt(self.config)

    @property
    def beta(self) -> float:
        """`method.beta` with `auto` resolved."""
        method = self.config.method
        return method.kind.beta if method.beta == "auto" else float(method.beta)


def common_arguments(setup: Setup) -> dict[str, Any]:
    """Return what every trainer's config is given; what TRL would do by itself is switched off, with its reason."""
    config, plan = setup.config, setup.plan
    training = config.training
    validate = bool(setup.validation) and bool(plan.eval_steps)
    # Rows are put together by length out of those of a whole update, which is then one batch to transformers.
    whole = setup.by_length or setup.dealt
    rows, parts = (training.batch_size, 1) if whole else (plan.micro_batch, plan.accumulation)
    return {
        "output_dir": str(setup.output),
        "num_train_epochs": training.epochs,
        "max_steps": training.max_steps or -1,
        "per_device_train_batch_size": rows,
        "per_device_eval_batch_size": rows,
        "gradient_accumulation_steps": parts,
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": training.scheduler,
        "lr_scheduler_kwargs": scheduler_arguments(training.scheduler, plan.steps, plan.learning_rate),
        "warmup_steps": warmup_steps(training.scheduler, training.warmup, plan.steps),
        "optim": training.optimizer,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        "gradient_checkpointing": plan.activation_checkpointing,
        "bf16": plan.autocast,
        "use_cpu": not torch.cuda.is_available(),
        # Every weight that is trained takes part in every update, and every rank reads the same buffers.
        "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # hides the very numbers that a person must see
        "eval_strategy": "steps" if validate else "no",
        "eval_steps": plan.eval_steps if validate else None,
        "eval_on_start": validate and not setup.resumed,
        "save_strategy": "steps",
        "save_steps": plan.save_steps,
        "save_total_limit": None,  # the studio removes older ones itself, once a new one is sealed
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "train_sampling_strategy": "random" if config.data.shuffle else "sequential",
        "include_num_input_tokens_seen": "no",
    }


def trainer_parts(setup: Setup, dataset: Callable[[Any], Any]) -> dict[str, Any]:
    """Return what every trainer is made of beside its arguments; `dataset` makes rows what its collator takes."""
    return {
        "model": setup.model,
        "train_dataset": dataset(setup.train),
        "eval_dataset": dataset(setup.validation) if setup.validation else None,
        "processing_class": setup.tokenizer,
        "peft_config": setup.peft_config,
        "callbacks": setup.callbacks,
    }

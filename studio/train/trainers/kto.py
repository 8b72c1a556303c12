"""TRL's KTOTrainer on our tokens: `prompt_ids`, `completion_ids`, `label` and the answers for the KL estimate."""

from __future__ import annotations

import random
from typing import Any

from datasets import Dataset
from trl import KTOConfig, KTOTrainer

from studio.data.units import Rated
from studio.train.counting import Counting, finish
from studio.train.reference import keep_start, reference_model
from studio.train.setup import Setup, common_arguments


class RatedTrainer(Counting, KTOTrainer):
    """KTOTrainer that takes token ids as they are."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


def build(setup: Setup) -> RatedTrainer:
    """Put model, reference, rows and arguments together."""
    method = setup.config.method
    # The KL answers belong to the batch that a row is in, so the order is made here and kept by the trainer.
    common = {**common_arguments(setup), "train_sampling_strategy": "sequential"}
    arguments = KTOConfig(
        **common,
        beta=setup.beta,
        loss_type=method.kto_loss,
        desirable_weight=method.desirable_weight,
        undesirable_weight=method.undesirable_weight,
        max_length=None,
    )
    rows = list(setup.train)
    if setup.config.data.shuffle:
        random.Random(setup.config.training.seed).shuffle(rows)
    trainer = RatedTrainer(
        model=setup.model,
        ref_model=reference_model(setup),
        args=arguments,
        train_dataset=rated(rows, setup.plan.micro_batch),
        eval_dataset=rated(setup.validation, setup.plan.micro_batch) if setup.validation else None,
        processing_class=setup.tokenizer,
        peft_config=setup.peft_config,
        callbacks=setup.callbacks,
    )
    keep_start(trainer, setup)
    return finish(trainer, setup)


def rated(rows: list[Rated], batch: int) -> Dataset:
    """Return rated answers as TRL's collator takes them.

    The KL divergence is estimated on answers to other prompts: within each batch the answers move on by one
    (Ethayarajh et al. 2024, section 4.1).
    """
    other: list[list[int]] = []
    for at in range(0, len(rows), batch):
        answers = [row.completion_ids for row in rows[at : at + batch]]
        other += [answers[-1], *answers[:-1]]
    return Dataset.from_dict(
        {
            "prompt_ids": [row.prompt_ids for row in rows],
            "completion_ids": [row.completion_ids for row in rows],
            "KL_completion_ids": other,
            "label": [row.label for row in rows],
        }
    )

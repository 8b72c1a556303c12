"""TRL's KTOTrainer on our tokens: `prompt_ids`, `completion_ids`, `label` and the answers for the KL estimate."""

from __future__ import annotations

import random
from typing import Any

import torch
from datasets import Dataset
from trl import KTOConfig, KTOTrainer
from trl.trainer.utils import use_adapter

from studio.data.prepare.units import Rated
from studio.methods.preference import Ranked, good_above_bad
from studio.train.load.reference import REFERENCE, keep_start, reference_model
from studio.train.loop.counting import Counting, finish
from studio.train.setup import Setup, common_arguments
from studio.train.trainers.columns import token_dataset


class RatedTrainer(Counting, KTOTrainer):
    """KTOTrainer that takes token ids as they are, and says how often a good answer of the validation beats a bad one.

    TRL reports means of the rewards only. Two more forward passes for each batch of a validation give each answer's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seen: list[Ranked] = []

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Note the reward of each answer, then let TRL compute the loss.

        Args:
            model: the policy.
            inputs: TRL's batch of prompts with answers, each labelled good (True) or bad.
            args, kwargs: passed on to TRL.
        """
        batch = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            policy = self._answer_logps(model, batch)
            if self.ref_model is None:
                inner = self.accelerator.unwrap_model(model)
                with use_adapter(inner, adapter_name=REFERENCE if REFERENCE in inner.peft_config else None):
                    reference = self._answer_logps(model, batch)
            else:
                reference = self._answer_logps(self.ref_model, batch)
        prompts = (batch["attention_mask"].bool() & ~batch["completion_mask"].bool()).cpu()
        for i, reward in enumerate((self.beta * (policy - reference)).tolist()):
            prompt = tuple(batch["input_ids"][i].cpu()[prompts[i]].tolist())
            self._seen.append(Ranked(prompt, bool(batch["label"][i]), reward))
        return super().prediction_step(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the share to the numbers of a validation.

        Args:
            logs: numbers TRL is about to log.
            args, kwargs: passed on to TRL.
        """
        if self._seen and not self.model.training:
            share = good_above_bad(self._seen)
            if share is not None:
                self._metrics["eval"]["rewards/accuracies"].append(share)
            self._seen = []
        super().log(logs, *args, **kwargs)

    def _answer_logps(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """(B,) log-probability of each answer, by the head that TRL fused into the model."""
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        output = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, use_cache=False,
            fused_lm_head=True,
        )  # fmt: skip
        summed: torch.Tensor = output.log_probs[:, 1 - batch["input_ids"].size(1) :].sum(-1)
        return summed

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
    batches = (rows[at : at + batch] for at in range(0, len(rows), batch))
    moved = (one for some in batches for one in (some[-1], *some[:-1]))
    return token_dataset(
        flags={"label": [row.label for row in rows]},
        prompt_ids=(row.prompt_ids for row in rows),
        completion_ids=(row.completion_ids for row in rows),
        KL_completion_ids=(row.completion_ids for row in moved),
    )

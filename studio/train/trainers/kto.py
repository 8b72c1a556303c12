"""TRL's KTOTrainer on our tokens: `prompt_ids`, `completion_ids`, `label` and the answers for the KL estimate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from trl import KTOConfig, KTOTrainer
from trl.trainer.utils import use_adapter

from studio.data.prepare.batch import mixed
from studio.data.prepare.units import Rated
from studio.methods.preference import Ranked, good_above_bad
from studio.train.load.reference import REFERENCE, keep_start, reference_model
from studio.train.loop.counting import Counting, finish
from studio.train.ranks import sharing
from studio.train.setup import Setup, common_arguments
from studio.train.trainers.columns import token_dataset
from studio.train.trainers.grouped import Grouped, Inputs, Parts
from studio.train.trainers.sharded import Sharded, sharding_arguments

# TRL's figures of a micro-batch, and of how much each is a mean.
_GOOD, _BAD = ("rewards/chosen", "logps/chosen"), ("rewards/rejected", "logps/rejected")
_MARGIN = "rewards/margins"


class RatedTrainer(Grouped, Counting, Sharded, KTOTrainer):
    """KTOTrainer that takes token ids as they are, and says how often a good answer of the validation beats a bad one.

    The KL divergence is estimated on all rows of an update before any of them is learned from, so that it does not
    depend on how many are computed at a time. TRL reports means of the rewards only: two more forward passes for each
    micro-batch of a validation give each answer's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seen: list[Ranked] = []
        self._kl: float | None = None
        self._asked = False

    def weight(self, inputs: Inputs) -> int:
        """Answers of a micro-batch."""
        return len(inputs["label"])

    def total_weight(self, rows: list[Any]) -> int:
        """How many answers these are."""
        return len(rows)

    def length_of(self, row: Any) -> int:
        """Tokens of a prompt and the longer of its answers."""
        return len(row["prompt_ids"]) + max(len(row["completion_ids"]), len(row["KL_completion_ids"]))

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Note the reward of each answer, then let TRL compute the loss.

        Args:
            model: the policy.
            inputs: `Parts`: TRL's batches of prompts with answers, each labelled good (True) or bad.
            args, kwargs: passed on to TRL.
        """
        parts, real = (inputs.micro_batches, inputs.real) if isinstance(inputs, Parts) else ([inputs], 1)
        own = [list(self._ranked(model, part)) for part in parts]  # all: divided weights are gathered by all ranks
        self._seen += sharing.joined([one for some in own[:real] for one in some])
        return super().prediction_step(model, inputs, *args, **kwargs)

    def _ranked(self, model: Any, inputs: Inputs) -> Iterator[Ranked]:
        """Each answer of a micro-batch with its prompt and reward."""
        batch = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            policy = self._answer_logps(model, batch)
            with self._reference(model) as reference:
                rewards = self.beta * (policy - self._answer_logps(reference, batch))
        prompts = (batch["attention_mask"].bool() & ~batch["completion_mask"].bool()).cpu()
        for i, reward in enumerate(rewards.tolist()):
            prompt = tuple(batch["input_ids"][i].cpu()[prompts[i]].tolist())
            yield Ranked(prompt, bool(batch["label"][i]), reward)

    @contextmanager
    def _reference(self, model: Any) -> Iterator[Any]:
        """The frozen reference: a model of its own, or this one without its adapter."""
        if self.ref_model is not None:
            yield self.ref_model
            return
        inner = self.accelerator.unwrap_model(model)
        with use_adapter(inner, adapter_name=REFERENCE if REFERENCE in inner.peft_config else None):
            yield model

    def look(self, model: Any, inputs: Parts) -> None:
        """Estimate the KL divergence on the mismatched answers of all rows, wherever they are.

        Args:
            model: the policy.
            inputs: the micro-batches.
        """
        self._kl = None
        if not self.calculate_KL:
            return
        found = []
        with torch.no_grad(), self.compute_loss_context_manager():
            for part in inputs.micro_batches:  # all: divided weights are gathered by all ranks
                batch = self._prepare_inputs(part)
                policy = self._compute_kl_logps(model, batch)
                with self._reference(model) as reference:
                    found.append(float((policy - self._compute_kl_logps(reference, batch)).sum()))
        real = inputs.real
        total, rows = sharing.total([sum(found[:real]), sum(map(self.weight, inputs.micro_batches[:real]))])
        self._kl, self._asked = total / max(1.0, rows), False

    def _compute_kl_logps(self, model: Any, batch: Inputs) -> Any:
        """Log-probabilities (B,) of the mismatched answers. While an update is computed TRL takes the difference of
        the policy's and the reference's, for which it asks in turn: that is the update's estimate.
        """
        if self._kl is None:
            return super()._compute_kl_logps(model, batch)
        self._asked = not self._asked
        return torch.full((self.weight(batch),), self._kl if self._asked else 0.0, device=self.args.device)

    def _each(self, mode: str, parts: list[Inputs], weights: list[int], rows: int) -> Iterator[tuple[Inputs, int]]:
        """Go through micro-batches. TRL's figures are means over their good answers, or their bad ones."""
        kept: dict[str, list[float]] = self._metrics[mode]
        before = {name: len(kept[name]) for name in (*_GOOD, *_BAD, _MARGIN, "kl")}
        sums = dict.fromkeys((*_GOOD, *_BAD, "kl"), 0.0)
        counts = [0, 0]
        for part, weight in zip(parts, weights, strict=True):
            yield part, weight
            good = int(part["label"].sum()) if weight else 0
            counts = [counts[0] + good, counts[1] + weight - good]
            for name, many in (
                *((one, good) for one in _GOOD),
                *((one, weight - good) for one in _BAD),
                ("kl", weight),
            ):
                sums[name] += kept[name][-1] * many if many else 0.0
        *summed, chosen, rejected = sharing.total([*sums.values(), *counts])
        found = dict(zip(sums, summed, strict=True))
        means = {"kl": found["kl"] / max(1.0, chosen + rejected)}
        means |= {name: found[name] / chosen for name in _GOOD if chosen}
        means |= {name: found[name] / rejected for name in _BAD if rejected}
        if chosen and rejected:
            means[_MARGIN] = means[_GOOD[0]] - means[_BAD[0]]
        for name, many in before.items():
            kept[name][many:] = [means[name]] * rows if name in means else []
            if not kept[name]:
                del kept[name]  # TRL divides by their number

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
    common = {**common_arguments(setup), **sharding_arguments(setup), "train_sampling_strategy": "sequential"}
    arguments = KTOConfig(
        **common,
        beta=setup.beta,
        loss_type=method.kto_loss,
        desirable_weight=method.desirable_weight,
        undesirable_weight=method.undesirable_weight,
        max_length=None,
    )
    rows = mixed(setup.train, setup.config.training.seed) if setup.config.data.shuffle else list(setup.train)
    together = setup.config.training.batch_size if setup.dealt else setup.plan.micro_batch
    trainer = RatedTrainer(
        model=setup.model,
        ref_model=reference_model(setup),
        args=arguments,
        train_dataset=rated(rows, together),
        eval_dataset=rated(setup.validation, together) if setup.validation else None,
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

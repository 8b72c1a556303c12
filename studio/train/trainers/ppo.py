"""Proximal policy optimisation as a transformers trainer: RLHF, step 3 (Ouyang et al. 2022, arXiv:2203.02155).

An update of the trainer is an update of PPO. In the first of `ppo_epochs` updates the policy writes answers to a batch
of prompts (`rollouts`), and the others use the same answers again; a checkpoint between two of them keeps them.
Callbacks, optimizer, schedule, stop and resume are the trainer's. It runs in one process. An adapter's `dropout` acts
in the updates and not while answers are written, so that their first ratios are then not exactly 1.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, speed_metrics

from studio.errors import StudioError
from studio.train.engine.ppo import (
    KLWeight,
    RunningScores,
    advantages_of,
    policy_surrogate,
    token_rewards,
    value_loss,
    whiten,
)
from studio.train.loop.counting import Counting, finish
from studio.train.setup import Setup, common_arguments
from studio.train.trainers.actors import VALUE, Actors
from studio.train.trainers.rollouts import Batch, Experience, Rewards, Scored, Writer, micro_batches

SAMPLES_SHOWN = 4
STATE = "ppo.safetensors"


class Repeated(Sampler[int]):
    """Places of the rows in batches, each batch as often as it is used; the last is filled up from the first rows.

    Args:
        rows: how many there are.
        batch: rows of a batch.
        times: updates of a batch.
        seed: of the order, another one each epoch; None for the rows' own order.
        epoch: tells which epoch begins.
    """

    def __init__(self, rows: int, batch: int, times: int, seed: int | None, epoch: Callable[[], int]) -> None:
        self._rows, self._batch, self._times, self._seed, self._epoch = rows, batch, times, seed, epoch
        self._batches = math.ceil(rows / batch)

    @property
    def updates(self) -> int:
        """Updates of an epoch."""
        return self._batches * self._times

    def __len__(self) -> int:
        return self.updates * self._batch

    def __iter__(self) -> Iterator[int]:
        order = list(range(self._rows))
        if self._seed is not None:
            generator = torch.Generator().manual_seed(self._seed + self._epoch())
            order = torch.randperm(self._rows, generator=generator).tolist()
        filled = list(islice(cycle(order), self._batches * self._batch))
        for at in range(0, len(filled), self._batch):
            yield from filled[at : at + self._batch] * self._times


class PolicyTrainer(Counting, Trainer):
    """PPO with the studio's rewards.

    Args:
        setup: the run.
        actors: the roles over its model.
        options: what every Trainer takes.
    """

    loss_is_scaled_for_ga = True  # by the tokens of the whole update
    control: Any

    def __init__(self, setup: Setup, actors: Actors, **options: Any) -> None:
        self.setup, self.actors = setup, actors
        self._method = setup.config.method
        self._writer, self._rewards = Writer(setup, actors), Rewards(setup, actors)
        self._kl_weight = KLWeight(self._method.kl_coef, self._method.kl_target)
        self._scores = RunningScores()
        self._experience: Experience | None = None
        self._sums: dict[str, float] = {}
        self._counted = 0
        self._parts: list[Batch] = []
        super().__init__(model=actors.model, processing_class=setup.tokenizer, **options)

    # ---- batches

    def _get_train_sampler(self, train_dataset: Any = None) -> Repeated:
        batch = self._train_batch_size * self.args.gradient_accumulation_steps
        seed = self.args.seed if self.setup.config.data.shuffle else None
        sampler = Repeated(
            len(self.setup.train),
            batch,
            self._method.ppo_epochs,
            seed,
            lambda: self.state.global_step // sampler.updates,
        )
        return sampler

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: Any
    ) -> tuple[list[dict[str, Any]], None]:
        """Fetch the rows of an update; its answers are written in its first `training_step`, as part of its time.

        Args:
            epoch_iterator: of dataset positions.
            num_batches: micro-batches of an update.
            device: not read; the completions are generated on the model's.
        """
        fetched = [next(epoch_iterator)["places"] for _ in range(num_batches)]
        places = torch.cat(fetched).tolist()
        return [{"part": part, "places": places} for part in range(num_batches)], None

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of one micro-batch; before the first of an update that begins a batch, write the batch.

        Args:
            model: the policy, wrapped.
            inputs: from `get_batch_samples`: positions of the update's rows, and which micro-batch this is.
            num_items_in_batch: not read; the batch's own token count divides the loss.
        """
        places, part = inputs["places"], inputs["part"]
        if part == 0:
            if self._experience is None or self.state.global_step % self._method.ppo_epochs == 0:
                self._experience = None  # its memory is free while the next is written
                self._experience = self._write(places)
            size = len(places) // self.args.gradient_accumulation_steps
            self._parts = list(micro_batches(self._experience.batch, size))
        loss: torch.Tensor = super().training_step(model, self._parts[part], self._tokens)
        return loss

    @property
    def _tokens(self) -> int:
        """Tokens of the answers of the update, over which its loss is a mean."""
        return 0 if self._experience is None else int(self._experience.batch["completion_mask"].sum())

    def _write(self, places: list[int]) -> Experience:
        """Let the policy answer these rows, and work out what its tokens were worth."""
        method, weight = self._method, self._kl_weight.weight
        prompts = [self.setup.train[place] for place in places]
        with self._judging():
            batch = self._writer.write(prompts, sample=True)
            batch, kl = self._judged(batch, len(places) // self.args.gradient_accumulation_steps)
        texts = self._writer.texts(batch)
        scored = self._rewards(places, texts)
        self._scores.update(scored.totals)
        scores = torch.tensor(scored.totals, device=kl.device)
        scores = self._scores.normalised(scores) if method.whiten_rewards else scores
        mask = batch["completion_mask"]
        rewards = token_rewards(scores, batch["logps"], batch.pop("ref_logps"), mask, weight)
        advantages, batch["returns"] = advantages_of(rewards, batch["values"], mask, method.gamma, method.lam)
        batch["advantages"] = whiten(advantages, mask)
        figures = {
            "reward": scored.mean,
            "objective/kl": float(kl.mean()),
            "objective/kl_coef": weight,
            "completions/mean_length": float(mask.sum(-1).float().mean()),
            **scored.means(),
        }
        self._kl_weight.update(figures["objective/kl"])
        self.tokens_seen += int(batch["attention_mask"].sum())
        self.supervised_seen += int(mask.sum())
        self._show(prompts, texts, scored)
        return Experience(batch, figures)

    def _judged(self, batch: Batch, size: int) -> tuple[Batch, torch.Tensor]:
        """Add log-probabilities, the reference's, and values, each (B, L); and return the KL of each answer, (B,)."""
        found: dict[str, list[torch.Tensor]] = {"logps": [], "ref_logps": [], "values": []}
        length = batch["completion_mask"].shape[1]
        for part in micro_batches(batch, size):
            logps, _, values = self.actors.policy(part, self._method.temperature)
            if values is None:
                with self.actors.acting(VALUE):
                    values = self.actors.values(part)
            reference = self.actors.reference(part, self._method.temperature)
            for name, tensor in (("logps", logps), ("ref_logps", reference), ("values", values)):
                found[name].append(functional.pad(tensor, (0, length - tensor.shape[1])))
        batch = {**batch, **{name: torch.cat(tensors) for name, tensors in found.items()}}
        return batch, ((batch["logps"] - batch["ref_logps"]) * batch["completion_mask"]).sum(-1)

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """Without dropout, gradients and recomputing; `training_step` switches the model back."""
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            yield

    def _show(self, prompts: Sequence[Any], texts: Sequence[str], scored: Scored) -> None:
        samples = [
            {
                "prompt": prompt.prompt if isinstance(prompt.prompt, str) else prompt.prompt[-1]["content"],
                "text": text,
                "rewards": {name: values[i] for name, values in scored.parts.items()},
            }
            for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
        ]
        self.setup.on_samples(self.state.global_step + 1, samples[:SAMPLES_SHOWN])

    # ---- an update

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Loss of one micro-batch, as a share of the update's mean over tokens.

        Policy and value function are two passes over the shared base. The value's gradients are made here, while its
        adapter is acting: so recomputed activations are its own, and only one pass is in memory at a time.

        Args:
            model: not read; `self.actors` holds policy and value function.
            inputs: a micro-batch with its old log-probabilities, values, returns and advantages, each (B, T).
            return_outputs: not read; the loss alone is returned.
            num_items_in_batch: completion tokens of the update.
        """
        mask = inputs["completion_mask"]
        if self.actors.shared:
            with self.actors.acting(VALUE):
                with self.accelerator.autocast():
                    values = self.actors.values(inputs)
                value = value_loss(values, inputs["values"], inputs["returns"], mask)
                self.accelerator.backward(self._method.vf_coef * value / num_items_in_batch)
                value = value.detach()
        with self.accelerator.autocast():
            logps, entropy, own = self.actors.policy(inputs, self._method.temperature)
        if own is not None:
            value = value_loss(own, inputs["values"], inputs["returns"], mask)
        surrogate = policy_surrogate(logps, inputs["logps"], inputs["advantages"], mask, self._method.clip_range)
        self._add("loss/policy", surrogate.loss)
        self._add("loss/value", value)
        self._add("policy/clip_fraction", surrogate.clipped)
        self._add("policy/approx_kl", surrogate.approx_kl)
        self._add("policy/entropy", (entropy * mask).sum())
        self._counted += int(mask.sum())
        return (surrogate.loss + self._method.vf_coef * value) / num_items_in_batch

    def _add(self, name: str, total: torch.Tensor) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + float(total.detach())

    def count(self, inputs: Any) -> None:
        """Answers are counted when they are written, not each time they are used."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what is known of the batch and of the updates since the last report."""
        if "loss" in logs and self._experience is not None:
            logs |= self._experience.figures
            logs |= {name: total / max(1, self._counted) for name, total in self._sums.items()}
            self._sums, self._counted = {}, 0
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Answer the validation prompts greedily and report mean reward and KL from the reference.

        Args:
            eval_dataset: not read; the validation rows are those of the run's data.
            ignore_keys: not read; there are no model outputs to drop.
            metric_key_prefix: put before each metric's name.
        """
        rows, size = self.setup.validation, self.args.per_device_train_batch_size
        step = size * self.args.gradient_accumulation_steps
        chunks = [list(range(at, min(at + step, len(rows)))) for at in range(0, len(rows), step)]
        self.callback_handler.eval_dataloader = chunks
        began, total, divergence = time.time(), 0.0, 0.0
        for places in chunks:
            with self._judging():
                batch, kl = self._judged(self._writer.write([rows[place] for place in places], sample=False), size)
            total += sum(self._rewards(places, self._writer.texts(batch), validation=True).totals)
            divergence += float(kl.sum())
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        metrics = {
            f"{metric_key_prefix}_reward": total / len(rows),
            f"{metric_key_prefix}_objective/kl": divergence / len(rows),
            **speed_metrics(metric_key_prefix, began, num_samples=len(rows)),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # ---- checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        weights = dict(self.model.named_parameters())
        tensors = {name: weights[name].detach() for name in self.actors.own}
        state: dict[str, Any] = {
            "kl_weight": self._kl_weight.weight,
            "scores": astuple(self._scores),
            "tokens": [self.tokens_seen, self.supervised_seen],
        }
        if self._experience is not None and self.state.global_step % self._method.ppo_epochs:
            tensors |= {f"batch/{name}": tensor for name, tensor in self._experience.batch.items()}
            state["figures"] = self._experience.figures
        kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(kept, folder / STATE, metadata={"state": json.dumps(state)})
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        file = Path(resume_from_checkpoint) / STATE
        if not file.is_file():
            raise StudioError(
                f"the checkpoint has no {STATE}", where=str(file.parent), fix="Resume from another one, or start over"
            )
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        weights = dict(self.model.named_parameters())
        kept = load_file(file, device=str(self.args.device))
        for name in self.actors.own:
            weights[name].data.copy_(kept.pop(name))
        with safe_open(file, framework="pt") as opened:
            state = json.loads(opened.metadata()["state"])
        batch = {name.removeprefix("batch/"): tensor for name, tensor in kept.items()}
        self._experience = Experience(batch, state["figures"]) if batch else None
        self._kl_weight.weight = state["kl_weight"]
        self._scores = RunningScores(*state["scores"])
        self.tokens_seen, self.supervised_seen = state["tokens"]


def build(setup: Setup) -> PolicyTrainer:
    """Put the roles, prompts, rewards and arguments together."""
    trainer = PolicyTrainer(
        setup,
        Actors(setup),
        args=TrainingArguments(**common_arguments(setup), remove_unused_columns=False),
        data_collator=lambda places: {"places": torch.tensor(places)},
        train_dataset=list(range(len(setup.train))),
        eval_dataset=list(range(len(setup.validation))) if setup.validation else None,
        callbacks=setup.callbacks,
    )
    return finish(trainer, setup)

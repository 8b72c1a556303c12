"""Proximal policy optimisation as a transformers trainer: RLHF, step 3 (Ouyang et al. 2022, arXiv:2203.02155).

An update of the trainer is an update of PPO. In the first of `ppo_epochs` updates the policy writes answers to a batch
of prompts (`rollouts`), and the others use the same answers again; a checkpoint between two of them keeps them.
Callbacks, optimizer, schedule, stop and resume are the trainer's. An adapter's `dropout` acts in the updates and not
while answers are written, so that their first ratios are then not exactly 1.

Of several ranks each writes and judges some answers, which all of them then know, and learns from some. Gradients are
added up here: a step is two passes over one base, by policy and value function, and DDP takes part in one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional
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
from studio.train.ranks import sharing
from studio.train.setup import Setup, common_arguments
from studio.train.trainers.actors import VALUE, Actors
from studio.train.trainers.grouped import Grouped
from studio.train.trainers.rollouts import (
    Batch,
    Experience,
    Repeated,
    Rewards,
    Scored,
    Writer,
    micro_batches,
    rows_of,
)

SAMPLES_SHOWN = 4
STATE = "ppo.safetensors"


class PolicyTrainer(Grouped, Counting, Trainer):
    """PPO with the studio's rewards.

    Args:
        setup: the run.
        actors: the roles over its model.
        options: what every Trainer takes.
    """

    loss_is_scaled_for_ga = True  # by the tokens of the whole update
    collates = False
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
        super().__init__(model=actors.model, processing_class=setup.tokenizer, **options)

    # ---- batches

    def _get_train_sampler(self, train_dataset: Any = None) -> Repeated:
        batch = self._train_batch_size
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
            num_batches: 1: an update's rows are one batch.
            device: not read; the completions are generated on the model's.
        """
        return [{"places": next(epoch_iterator)["places"].tolist()} for _ in range(num_batches)], None

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of an update, a micro-batch at a time; before one that begins a batch, write the batch.

        Args:
            model: the policy, wrapped.
            inputs: from `get_batch_samples`: positions of the update's rows.
            num_items_in_batch: not read; the batch's own token count divides the loss.
        """
        if self._experience is None or self.state.global_step % self._method.ppo_epochs == 0:
            self._experience = None  # its memory is free while the next is written
            self._experience = self._write(inputs["places"])
        batch = self._experience.batch
        tokens = int(batch["completion_mask"].sum())
        own = rows_of(batch, sharing.own_share(len(batch["input_ids"])))
        loss = torch.zeros((), device=self.args.device)
        for part in micro_batches(own, self.setup.plan.micro_batch):
            loss += super().training_step(model, part, tokens)
        return self._of_all(loss)

    def _of_all(self, loss: torch.Tensor) -> torch.Tensor:
        """Add up what the ranks have of an update: gradients, and its loss, which is returned."""
        if sharing.count() == 1:
            return loss
        for weight in self.model.parameters():
            if weight.grad is not None:
                torch.distributed.all_reduce(weight.grad)
        return torch.full_like(loss, sharing.total([float(loss)])[0])

    def _write(self, places: list[int]) -> Experience:
        """Let the policy answer these rows, and work out what its tokens were worth."""
        method, weight = self._method, self._kl_weight.weight
        prompts = [self.setup.train[place] for place in places]
        with self._judging():
            batch = self._writer.write(prompts, sample=True)
            batch, kl = self._judged(batch)
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
        self.own_tokens += int(rows_of(batch, sharing.own_share(len(mask)))["attention_mask"].sum())
        self._show(prompts, texts, scored)
        return Experience(batch, figures)

    def _judged(self, batch: Batch) -> tuple[Batch, torch.Tensor]:
        """Add log-probabilities, the reference's, and values, each (B, L); and return the KL of each answer, (B,).

        Each rank works them out for some answers.
        """
        found: dict[str, list[torch.Tensor]] = {"logps": [], "ref_logps": [], "values": []}
        rows, length = batch["completion_mask"].shape
        for part in micro_batches(rows_of(batch, sharing.own_share(rows)), self.setup.plan.micro_batch):
            logps, _, values = self.actors.policy(part, self._method.temperature)
            if values is None:
                with self.actors.acting(VALUE):
                    values = self.actors.values(part)
            reference = self.actors.reference(part, self._method.temperature)
            for name, tensor in (("logps", logps), ("ref_logps", reference), ("values", values)):
                found[name].append(functional.pad(tensor, (0, length - tensor.shape[1])))
        for name, tensors in found.items():
            batch = {**batch, name: torch.cat(sharing.joined([one.to("cpu") for one in tensors])).to(self.args.device)}
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
            *totals, counted = sharing.total([*self._sums.values(), self._counted])
            logs |= {name: total / max(1.0, counted) for name, total in zip(self._sums, totals, strict=True)}
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
        rows, step = self.setup.validation, self.args.per_device_train_batch_size
        chunks = [list(range(at, min(at + step, len(rows)))) for at in range(0, len(rows), step)]
        self.callback_handler.eval_dataloader = chunks
        began, total, divergence = time.time(), 0.0, 0.0
        for places in chunks:
            with self._judging():
                batch, kl = self._judged(self._writer.write([rows[place] for place in places], sample=False))
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
        if self.args.should_save:
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
        kept = {name: tensor.to(self.args.device) for name, tensor in load_file(file).items()}
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
    if sharing.number() and torch.cuda.is_available():  # where each rank draws numbers of its own
        torch.cuda.manual_seed(setup.config.training.seed + sharing.number())
    return finish(trainer, setup)

"""What the trainer does is told to the job: metrics, progress, validation, stop.

Speed counts real (non-padding) tokens over the time of the steps themselves: validation and saving are not
training, so they lower the progress but not the tokens per second.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from studio.jobs.run.worker import JobContext, Phase
from studio.jobs.store import checkpoints
from studio.jobs.store.checkpoints import Checkpoint
from studio.train.loop.devices import RankFigures
from studio.train.ranks import sharing

if TYPE_CHECKING:
    from studio.methods import Method
    from studio.train.loop.counting import Counting

PACE_STEPS = 20


class JobCallback(TrainerCallback):
    """Writes the events of one training run.

    Args:
        context: the job.
        phase: the phase `training`, whose total is the number of steps.
        evaluations: how many validations the plan expects, for the time left.
        method: whose metrics are reported.
        batch_steps: updates that are made of one batch.
    """

    def __init__(
        self, context: JobContext, phase: Phase, evaluations: int, method: Method, batch_steps: int = 1
    ) -> None:
        self._context, self._phase = context, phase
        self._names = [metric.name for metric in method.metrics]
        self._trainer: Counting | None = None
        self._evaluations_left = evaluations
        self._pace: deque[float] = deque(maxlen=PACE_STEPS)
        self._counts: deque[int] = deque(maxlen=PACE_STEPS)
        self._batch_steps = batch_steps
        self._step_began = self._train_began = self._evaluation_began = 0.0
        self._evaluation_seconds: deque[float] = deque(maxlen=3)
        self._training_seconds = self._elapsed_before = 0.0
        self._tokens_before = 0
        self._speed = 0.0
        self._validating: Phase | None = None
        self._figures = RankFigures(context)
        self.stopped = False

    @property
    def speed(self) -> float:
        """Tokens per second of the newest step."""
        return self._speed

    def watch(self, trainer: Counting) -> None:
        """Say whose tokens are counted; the trainer needs its callbacks before it exists."""
        self._trainer = trainer

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Count on from a checkpoint; called after `watch`."""
        done = checkpoint.progress
        self._elapsed_before = done["elapsed"]
        self._training_seconds = done["training_seconds"]
        if self._trainer is not None:
            self._trainer.tokens_seen = self._tokens_before = int(done["tokens"])
            self._trainer.supervised_seen = int(done["supervised_tokens"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Seal the checkpoint that was just written, once every rank has written its part.

        Args:
            args, state, control: transformers' own; `state.global_step` names the checkpoint in `args.output_dir`.
        """
        folder = Path(args.output_dir or "") / f"checkpoint-{state.global_step}"
        sharing.together()
        if sharing.number() == 0:
            checkpoints.seal(folder, state.global_step, self._counted())

    def _counted(self) -> dict[str, float]:
        trainer = self._trainer
        return {
            "tokens": trainer.tokens_seen if trainer else 0,
            "supervised_tokens": trainer.supervised_seen if trainer else 0,
            "elapsed": round(self._elapsed_before + time.monotonic() - self._train_began, 2),
            "training_seconds": round(self._training_seconds, 2),
        }

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock of the run.

        Args:
            args, state, control: transformers' own; `args.seed` is that of the first rank, and others add their number.
        """
        self._train_began = time.monotonic()
        if rank := sharing.number():
            set_seed(args.seed + rank)  # or all ranks would drop the same places of different rows

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock of a step.

        Args:
            args, state, control: transformers' own; not read.
        """
        self._step_began = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Count the step's tokens and obey a stop.

        Args:
            args, state: transformers' own.
            control: returned; a requested stop sets its save and stop flags.
        """
        seconds = time.monotonic() - self._step_began
        tokens = self._trainer.tokens_seen if self._trainer else 0
        self._pace.append(seconds)
        self._counts.append(tokens - self._tokens_before)
        self._training_seconds += seconds
        self._tokens_before = tokens
        # ppo counts the tokens of a batch once, and makes several updates of it.
        last = self._batch_steps
        spent, seen = list(self._pace)[-last:], list(self._counts)[-last:]
        self._speed = sum(seen) / max(sum(spent), 1e-9)
        self._phase.set(state.global_step, state.max_steps)
        if sharing.count() > 1 and self._trainer is not None:
            last = state.global_step >= state.max_steps
            self._figures.tell(state.global_step, self._trainer.own_tokens, seconds, last=last)
        if sharing.any_of(self._context.should_stop()):
            control.should_save = control.should_training_stop = self.stopped = True
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Write the numbers of a step; trackers, which come after, are told the speed too.

        Args:
            args, state, control: transformers' own.
            logs: numbers of the step, extended in place; None or without `loss` (a validation, the closing summary):
                nothing is written.
        """
        logs = logs or {}
        if "loss" not in logs or self._trainer is None:
            return
        wanted = ("loss", "learning_rate", "grad_norm", *self._names)
        values: dict[str, float] = {key: logs[key] for key in wanted if logs.get(key) is not None}
        values["tokens_per_second"] = round(self._speed, 2)
        if self._trainer.accuracy is not None:
            values["mean_token_accuracy"] = round(self._trainer.accuracy, 5)
        logs |= {name: value for name, value in values.items() if name not in logs}
        self._metric(state, values)
        self._context.log(
            f"training  {state.global_step:>5} of {state.max_steps}   loss {logs['loss']:.4f}   "
            f"lr {logs.get('learning_rate', 0):.2e}   {self._speed:.0f} tokens/s"
        )

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Show how far a validation is.

        Args:
            args, state, control: transformers' own; not read.
            eval_dataloader: its length is the number of batches; None where that is unknown.
        """
        if self._validating is None:
            self._evaluation_began = time.monotonic()
            self._validating = self._context.phase(
                "validating", len(eval_dataloader) if eval_dataloader else None, "batches"
            )
            self._validating.__enter__()
        self._validating.advance()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Write the validation loss.

        Args:
            args, state, control: transformers' own.
            metrics: of the validation, by names that begin with `eval_`; None counts as empty.
        """
        if self._validating is not None:
            self._validating.__exit__(None, None, None)
            self._validating = None
            self._evaluation_seconds.append(time.monotonic() - self._evaluation_began)
            self._evaluations_left = max(0, self._evaluations_left - 1)
        found = metrics or {}
        names = dict.fromkeys(["eval_loss", *(f"eval_{name.removeprefix('eval_')}" for name in self._names)])
        values = {name: float(found[name]) for name in names if found.get(name) is not None}
        if values:
            self._metric(state, values)
            told = "   ".join(f"{name.removeprefix('eval_')} {value:.4f}" for name, value in values.items())
            self._context.log(f"validation  step {state.global_step}   {told}")
        self._phase.set(state.global_step, state.max_steps)

    def samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        """Show answers that an online method wrote, with their rewards."""
        for sample in samples:
            self._context.sample(step=step, **sample)

    def _metric(self, state: TrainerState, values: dict[str, float]) -> None:
        self._context.metric(
            state.global_step,
            values,
            total_steps=state.max_steps,
            epoch=round(state.epoch or 0.0, 4),
            epochs=state.num_train_epochs,
            **self._counted(),
            eta=self._seconds_left(state),
        )

    def _seconds_left(self, state: TrainerState) -> float | None:
        if not self._pace:
            return None
        steps = (state.max_steps - state.global_step) * sum(self._pace) / len(self._pace)
        seconds = self._evaluation_seconds
        validations = self._evaluations_left * (sum(seconds) / len(seconds)) if seconds else 0.0
        left: float = steps + validations
        return round(left, 1)

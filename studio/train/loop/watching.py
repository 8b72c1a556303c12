"""Health, best checkpoint and early stopping of a run, while it runs.

The rules are `health` and `best`, which see numbers only; this callback feeds them from the trainer and acts on what
they find. It stands behind `JobCallback`, which writes the numbers and seals the checkpoints.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from studio.config import RunConfig
from studio.errors import FailedRunError
from studio.jobs.run.worker import JobContext
from studio.jobs.store.checkpoints import last_whole, remove_older
from studio.models.device.machine import memory
from studio.models.plan.making import Plan
from studio.train.loop.best import Watched, best_of, note_best, scores, since_better
from studio.train.loop.callbacks import JobCallback
from studio.train.loop.health import Facts, Finding, Health
from studio.train.ranks import sharing

LOOK_SECONDS = 5.0


class Watching(TrainerCallback):
    """Watches one training run.

    Args:
        context: the job.
        config: the run.
        plan: what every `auto` was resolved to.
        watch: the number of a validation by which it is judged.
        job: the callback that counts, asked for the speed.
        vocabulary: how many tokens the model chooses from.

    Attributes:
        early: why the run stopped early, "" if it did not.
    """

    def __init__(
        self, context: JobContext, config: RunConfig, plan: Plan, watch: Watched, job: JobCallback, vocabulary: int
    ) -> None:
        self._context, self._config, self._plan, self._watch, self._job = context, config, plan, watch, job
        self._health = Health(facts_of(config, plan, watch, vocabulary))
        branch = context.job.request.branch
        self._branch_step = 0 if branch is None else branch.step
        self._checkpoint_bytes = 12 * plan.trainable  # weights and two moments, until one was written
        self._looked = 0.0
        self.early = ""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell the rules what the loss was before, where the run goes on from a checkpoint.

        Args:
            args, control: transformers' own; not read.
            state: its log history is empty unless the run resumes.
        """
        self._health.go_on(float(entry["loss"]) for entry in state.log_history if "loss" in entry)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Look at memory and disk; refuse a checkpoint of weights that are no numbers.

        Args:
            args, state: transformers' own.
            control: read only: whether a checkpoint is about to be written.
            model: whose weights are checked; transformers always passes it.
        """
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            self._surroundings()
        if control.should_save:
            self._require_numbers(model, state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Look at the numbers of a step; broken ones end the run.

        Args:
            args, state: transformers' own.
            control: its save flag is cleared while the loss looks suspicious.
            logs: numbers of the step; None or without `loss` is ignored.
        """
        if logs is None or "loss" not in logs:
            return
        step, loss, norm = state.global_step, logs["loss"], logs.get("grad_norm")
        if found := self._health.broken(step, loss, norm):
            raise self._failed(found)
        if self._health.suspicious and not control.should_training_stop:
            control.should_save = False
        self._tell(self._health.loss(step, loss, norm))
        self._tell(self._health.speed(step, self._job.speed))

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Have the best so far saved, and stop where nothing improved for long enough.

        Args:
            args, state: transformers' own; the log history holds the validations.
            control: its save flag is set for a new best, its stop flag for early stopping.
            model: whose weights are checked before they are saved as the best.
        """
        found = scores(state.log_history, self._watch.name)
        if not found or found[-1][0] != state.global_step:
            return
        self._tell(self._health.validation(found))
        best = best_of(found, self._watch.higher)
        if best is None:
            return
        if self._plan.keep_best and best[0] == state.global_step:
            self._require_numbers(model, state.global_step)
            control.should_save = True
        training = self._config.training
        # What the other run waited is over: who branches off wants to see whether it goes on.
        own = sum(step > self._branch_step for step, _ in found)
        waited = min(own, since_better(found, self._watch.higher, training.early_stopping_threshold))
        if training.early_stopping and waited >= training.early_stopping and state.global_step < state.max_steps:
            many = "validation" if waited == 1 else f"{waited} validations"
            self.early = (
                f"stopped early at step {state.global_step} of {state.max_steps}: the {self._watch.words} did not "
                f"improve in {many} ({best[1]:.4g} at step {best[0]} was the best)"
            )
            self._context.notice("info", self.early)
            control.should_save = control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Note which sealed checkpoint is the best, and remove older ones.

        Args:
            args, state, control: transformers' own; `args.output_dir` holds the checkpoints.
        """
        if sharing.number():
            return
        folder = Path(args.output_dir or "")
        newest = folder / f"checkpoint-{state.global_step}"
        self._checkpoint_bytes = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
        found = scores(state.log_history, self._watch.name)
        best = note_best(folder, self._watch, found) if self._plan.keep_best else None
        remove_older(folder, self._config.training.save_total_limit, best)

    def _surroundings(self) -> None:
        disk = shutil.disk_usage(self._context.settings.home)
        self._tell(self._health.disk(disk.free, disk.total, self._checkpoint_bytes))
        total, available = memory()
        self._tell(self._health.memory(available, total))
        if torch.cuda.is_available():
            whole = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
            self._tell(self._health.gpu(torch.cuda.max_memory_allocated(), whole))

    def _require_numbers(self, model: Any, step: int) -> None:
        """Refuse to save weights that hold NaN or infinity: the checkpoint before is worth more."""
        changed = (weight for weight in model.parameters() if weight.requires_grad)
        held = (weight.to_local() if hasattr(weight, "to_local") else weight for weight in changed)
        if sharing.any_of(not all(bool(weight.detach().isfinite().all()) for weight in held)):
            raise self._failed(self._health.ruined(step, f"the weights contain NaN or inf at step {step}"))

    def _failed(self, found: Finding) -> FailedRunError:
        good = last_whole(self._context.job.checkpoints)
        kept = "There is no earlier checkpoint" if good is None else f"The checkpoint of step {good.step} is intact"
        return FailedRunError(found.text, fix=f"{found.fix}. {kept}", change=found.change)

    def _tell(self, found: Finding | None) -> None:
        if found is not None:
            self._context.notice("warning", found.text, found.fix, found.change)


def facts_of(config: RunConfig, plan: Plan, watch: Watched, vocabulary: int) -> Facts:
    """Return what the rules need to know of a run.

    Args:
        config, plan: of the run, with every `auto` resolved in the plan.
        watch: the validation metric it is judged by.
        vocabulary: tokens in the model's vocabulary; a loss near its logarithm is that of guessing.
    """
    training = config.training
    return Facts(
        learning_rate=plan.learning_rate,
        online=config.method.kind.online,
        vocabulary=vocabulary if config.method.kind.rows == "answers" and config.method.loss == "nll" else 0,
        max_grad_norm=training.max_grad_norm,
        half=plan.autocast or plan.dtype != "float32",
        warmup=round(training.warmup * plan.steps),
        save_total_limit=training.save_total_limit,
        metric=watch.name,
        higher=watch.higher,
        cures=tuple(cure.change for cure in plan.cures),
    )


def load_best(context: JobContext, trainer: Any, watch: Watched) -> int:
    """Put the weights of the best validation into the trainer's model, as a resume would, and say so.

    Args:
        context: of the job; is told which weights were taken.
        trainer: after training, its checkpoints still on disk.
        watch: the metric that decides.

    Returns:
        the step whose weights the model now has: the last one where no validated checkpoint is whole.
    """
    folder = Path(trainer.args.output_dir)
    found = scores(trainer.state.log_history, watch.name)
    best = sharing.first(lambda: note_best(folder, watch, found))
    last: int = trainer.state.global_step
    if best is None:
        context.notice("warning", f"no checkpoint was validated, so the weights of the last step, {last}, are saved")
        return last
    trainer._load_from_checkpoint(str(folder / f"checkpoint-{best}"))
    real = best_of(found, watch.higher)
    kept = "" if real is None or real[0] == best else " among the checkpoints"
    text = f"the weights of step {best} are saved: their {watch.words}, {dict(found)[best]:.4g}, was the best{kept}"
    context.notice("info", text)
    return best

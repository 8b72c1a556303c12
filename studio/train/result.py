"""What a training run leaves: the model with its card and options, its figures, and the checkpoints it is to keep."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from studio.config import RunConfig
from studio.config.load import dump_run
from studio.data.prepare.prepared import Prepared
from studio.jobs.run.worker import JobContext
from studio.jobs.store.checkpoints import keep_only
from studio.jobs.store.files import new_folder, put_folder
from studio.methods import Method
from studio.models.catalog.names import ModelRef
from studio.train.loop.best import scores
from studio.train.loop.card import write_card
from studio.train.loop.saving import Start, restore_switches, save_tokenizer
from studio.train.ranks import sharing


def save(
    context: JobContext,
    config: RunConfig,
    reference: ModelRef,
    trainer: Any,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    start: Start,
    saved: int,
    early: str,
) -> None:
    """Write the trained model, its card, its run.yaml and the run's figures; each rank its part where it has one.

    Args:
        context: the job.
        config: the run as it was submitted.
        reference: the base model.
        trainer: that has trained.
        tokenizer: with the run's chat template.
        prepared: the rows.
        start: what the weights were before the first step.
        saved: step whose weights these are.
        early: why the run ended before its last step; "" where it did not.
    """
    # A model that was saved when it was stopped stays until this one is whole.
    folder = sharing.first(lambda: new_folder(context.job.model))
    if sharing.number():
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:  # of which each rank may have a part
            trainer.save_model(str(folder))
        return
    start.save(trainer, folder)
    restore_switches(reference.path, folder)
    save_tokenizer(tokenizer, reference.path, folder, config.model.trust_remote_code)
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, which nobody should have to trust
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    validations = [loss for _, loss in scores(history, "eval_loss")]
    result = {
        "rows": len(prepared.train),
        "steps": trainer.state.global_step,
        "saved_step": saved,
        "stopped_early": early,
        "tokens": trainer.tokens_seen,
        "loss": _shown(losses[-1] if losses else None),
        "best": _shown(min(validations, default=None)),
        "rate": trainer.args.learning_rate,
        "data": ", ".join(source.path for source in config.data.train),
        "metrics": _last_metrics(history, config.method.kind),
    }
    write_card(folder, context.job.request.name, reference.name, config, dict(result))
    (folder / "run.yaml").write_text(dump_run(config), encoding="utf-8")
    put_folder(folder, context.job.model)
    context.result("training", result)
    context.environment(peak_gpu_bytes=_peak_gpu_bytes())


def tidy(context: JobContext, config: RunConfig) -> None:
    """Leave as many checkpoints as the run is to have when it is done; failing at that spoils no run."""
    try:
        removed = keep_only(context.job.checkpoints, config.training.keep_checkpoints)
    except OSError as error:
        text = f"a checkpoint could not be removed ({error.strerror or error})"
        context.notice("warning", text, "Delete the checkpoints in the Training tab")
        return
    if removed:
        context.log(f"checkpoints removed (training.keep_checkpoints): {', '.join(map(str, removed))}")


def _last_metrics(history: list[dict[str, Any]], method: Method) -> dict[str, float]:
    """The method's metrics as last reported, those of the validation under their `eval_` name."""
    names = [name for metric in method.metrics for name in (metric.name, f"eval_{metric.name}")]
    found = {name: [entry[name] for entry in history if entry.get(name) is not None] for name in names}
    return {name: round(float(values[-1]), 6) for name, values in found.items() if values}


def _peak_gpu_bytes() -> int | None:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"

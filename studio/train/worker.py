"""A training run from request to saved model, phase by phase.

Read `train` top-down: prepare, load, plan, train, save. Every phase is visible with a count; a stop is obeyed
after the step, with everything saved.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from studio.config import RunConfig
from studio.config.load import build, dump_run
from studio.data.prepare import Encoded, Prepared, prepare_data
from studio.errors import StoppedError
from studio.jobs.worker import JobContext, Phase
from studio.models.catalogue import ModelRef, resolve_model
from studio.models.device import device_info
from studio.models.plan import Lengths, Plan, make_plan
from studio.models.quiet import quiet_libraries
from studio.models.shape import ModelShape
from studio.train.callbacks import JobCallback
from studio.train.card import write_card
from studio.train.engine import loss as engine_loss
from studio.train.trainer import SupervisedTrainer, build_trainer, training_arguments
from studio.train.tuning import PREPARE

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "finetune-studio")


def train(context: JobContext) -> None:
    """Run the training job of `context`.

    Raises:
        StudioError: something that the person can read and mend.
    """
    quiet_libraries()
    config = build(RunConfig, context.config, "job.yaml")
    set_seed(config.training.seed)
    if not torch.cuda.is_available():
        torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

    reference = _resolve(context, config)
    context.check_stop()
    tokenizer = AutoTokenizer.from_pretrained(reference.path, trust_remote_code=config.model.trust_remote_code)
    prepared = _read(context, config, tokenizer)
    context.check_stop()
    plan = _plan(context, config, reference, prepared)
    _record(context, config, reference, prepared, plan)

    with context.phase("loading model"):
        model = _load(config, plan, reference)
        example = min(prepared.train, key=lambda row: len(row.input_ids))
        fast_loss = _attach_loss(context, model, example)
        peft_config = PREPARE[config.tuning.name](model, config.tuning)
    context.check_stop()

    with context.phase("training", plan.steps, "steps") as phase:
        trainer, callback = _build(context, config, plan, model, tokenizer, prepared, peft_config, phase)
        trainer.engine_loss = fast_loss
        trainer.train()
    with context.phase("saving"):
        _save(context, config, reference, trainer, tokenizer, prepared)
    if callback.stopped:
        raise StoppedError(
            f"it was stopped at step {trainer.state.global_step} of {plan.steps}; what it learned is saved"
        )


def _resolve(context: JobContext, config: RunConfig) -> ModelRef:
    with context.reporter() as report:
        report("preparing model")
        return resolve_model(config.model.path, context.settings, revision=config.model.revision, on_progress=report)


def _read(context: JobContext, config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> Prepared:
    with context.reporter("rows") as report:
        return prepare_data(
            config.data, config.method, tokenizer, context.settings, on_phase=report, seed=config.training.seed
        )  # fmt: skip


def _plan(context: JobContext, config: RunConfig, reference: ModelRef, prepared: Prepared) -> Plan:
    shape = ModelShape.from_folder(reference.path)
    plan = make_plan(config, shape, lengths_of(prepared), device_info(context.settings))
    context.notice("info", plan.line())
    if not plan.fits:
        context.notice("warning", "the plan says that this run does not fit into memory", " ".join(plan.advice))
    return plan


def lengths_of(prepared: Prepared) -> Lengths:
    """Count what the plan needs to know of the data."""
    rows = prepared.train
    return Lengths(
        count=len(rows),
        total_tokens=sum(len(row.input_ids) for row in rows),
        max=max(len(row.input_ids) for row in rows),
        supervised_tokens=sum(1 for row in rows for label in row.labels if label != -100),
        validation_count=len(prepared.validation),
    )


def _load(config: RunConfig, plan: Plan, reference: ModelRef) -> PreTrainedModel:
    attention = "sdpa" if config.model.attention == "auto" else config.model.attention
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        reference.path,
        dtype=getattr(torch, plan.dtype),
        attn_implementation=attention,
        trust_remote_code=config.model.trust_remote_code,
        local_files_only=True,
    )
    return model.to("cuda") if torch.cuda.is_available() else model


def _attach_loss(context: JobContext, model: PreTrainedModel, example: Encoded) -> bool:
    if engine_loss.attach(model) and engine_loss.agrees(model, example.input_ids, example.labels):
        return True
    context.notice("info", "this model's output head is special: the library's own loss is used, which is slower")
    return False


def _build(
    context: JobContext,
    config: RunConfig,
    plan: Plan,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    peft_config: Any,
    phase: Phase,
) -> tuple[SupervisedTrainer, JobCallback]:
    evaluations = plan.steps // plan.eval_steps if prepared.validation and plan.eval_steps else 0
    callback = JobCallback(context, phase, evaluations)
    arguments = training_arguments(
        config, plan, context.job.checkpoints, validate=bool(prepared.validation), autocast=plan.autocast
    )  # fmt: skip
    trainer = build_trainer(model, tokenizer, arguments, prepared.train, prepared.validation, [callback], peft_config)
    callback.watch(trainer)
    return trainer, callback


def _save(
    context: JobContext,
    config: RunConfig,
    reference: ModelRef,
    trainer: SupervisedTrainer,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
) -> None:
    folder = context.job.model
    trainer.save_model(str(folder))
    tokenizer.save_pretrained(str(folder))
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, which nobody should have to trust
    _copy_vocabulary(reference.path, folder)
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    validations = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    result = {
        "rows": len(prepared.train),
        "steps": trainer.state.global_step,
        "tokens": trainer.tokens_seen,
        "loss": _shown(losses[-1] if losses else None),
        "best": _shown(min(validations, default=None)),
        "rate": trainer.args.learning_rate,
        "data": ", ".join(source.path for source in config.data.train),
    }
    write_card(folder, context.job.request.name, reference.name, config, result)
    (folder / "run.yaml").write_text(dump_run(config), encoding="utf-8")
    context.result("training", result)
    context.environment(peak_gpu_bytes=_peak_gpu_bytes())


def _copy_vocabulary(source: Path, target: Path) -> None:
    """Carry over the vocabulary files that save_pretrained leaves out and the GGUF converter needs."""
    for name in ("tokenizer.model", "tekken.json"):
        if (source / name).exists() and not (target / name).exists():
            (target / name).write_bytes((source / name).read_bytes())


def _record(
    context: JobContext, config: RunConfig, reference: ModelRef, prepared: Prepared, plan: Plan
) -> None:  # fmt: skip
    context.environment(
        versions={name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        platform=platform.platform(),
        device=torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine(),
        threads=torch.get_num_threads(),
        seed=config.training.seed,
        base_model={"name": reference.name, "path": str(reference.path), "source": reference.source},
        data=prepared.report.as_dict(),
        plan=plan.as_dict(),
    )


def _peak_gpu_bytes() -> int | None:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"

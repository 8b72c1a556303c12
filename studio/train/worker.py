"""A training run from request to saved model, phase by phase.

Read `train` top-down: prepare, load, plan, train, save. Every phase is visible with a count; a stop is obeyed
after the step, with everything saved. A run that ended early goes on from its last whole checkpoint.
"""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase, set_seed

from studio.config import RunConfig
from studio.config.load import build
from studio.data.prepare.limit import limited_by
from studio.data.prepare.pipeline import prepare_data
from studio.data.prepare.prepared import Prepared
from studio.data.prepare.units import common_prefix
from studio.data.sources.locate import fetch_sources
from studio.data.streaming.rows import StreamedRows
from studio.data.tokens.pretrained import load_tokenizer
from studio.errors import StoppedError, StudioError
from studio.jobs.actions.branching import recorded_sources, require_same
from studio.jobs.run.worker import JobContext
from studio.jobs.store.checkpoints import Checkpoint, last_whole
from studio.jobs.views.expected import training_seconds
from studio.models.catalog.names import ModelRef, resolve_model
from studio.models.catalog.quiet import quiet_libraries
from studio.models.device.machine import device_info
from studio.models.device.measure import own_bytes
from studio.models.inspect.shape import ModelShape
from studio.models.plan.batches import Batching
from studio.models.plan.fit import Lengths
from studio.models.plan.making import Plan, make_plan
from studio.train import checks, trainers
from studio.train.engine import fused, liger, unsloth
from studio.train.engine.offload import offload
from studio.train.leftout import LeftOut
from studio.train.load.model import load_model, merge_into, stretched_base
from studio.train.loop import trackers
from studio.train.loop.best import watched
from studio.train.loop.callbacks import JobCallback
from studio.train.loop.saving import Start
from studio.train.loop.watching import Watching, load_best
from studio.train.preflight import first_epoch, streamed_lengths
from studio.train.ranks import sharing
from studio.train.ranks.hanging import watched_ranks
from studio.train.result import save, tidy
from studio.train.runs import base_of
from studio.train.setup import Setup
from studio.train.zero import refuse_resuming

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "finetune-studio")


def train(context: JobContext) -> None:
    """Run the training job of `context`.

    Raises:
        StudioError: something that the person can read and mend.
    """
    quiet_libraries()
    config = build(RunConfig, context.config, "job.yaml")
    method = config.method.kind
    set_seed(config.training.seed)
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

    begun = sharing.first(lambda: _begun(context))
    if begun is not None:
        refuse_resuming(config)
    reference = sharing.first(lambda: _resolve(context, config))
    context.check_stop()
    tokenizer = load_tokenizer(reference.path, config.model.trust_remote_code)
    asked = config  # as it was submitted: what auto became is the plan's to tell
    prepared = sharing.after_first(lambda: _read(context, config, reference, tokenizer))
    config = _within(config, prepared.longest)
    if begun is not None:
        now = [(source.path, source.sha256) for source in prepared.report.sources]
        require_same(recorded_sources(context.job), now)
    tokenizer = prepared.tokenizer  # with the run's chat template, which is saved for chat and export
    _check(context, config, reference, prepared)
    context.check_stop()
    if config.tuning.adapter and config.tuning.merges:
        with context.phase("merging the adapter"):
            adapter, folder = Path(config.tuning.adapter), context.job.path / "base"
            reference = sharing.first(lambda: merge_into(reference, adapter, tokenizer, folder))
    plan = sharing.first(lambda: _plan(context, asked, reference, prepared, begun is not None))
    if begun is not None:
        _require_steps(context, begun, plan)
    base = reference
    if config.model.rope_scaling != "none" and config.tuning.kind.adapter:
        base = sharing.first(lambda: stretched_base(config, reference, context.job.path / "stretched"))
    _record(context, asked, base, prepared, plan)
    validations = _evaluations(plan, prepared, begun)
    if plan.seconds is not None:
        left = plan.seconds * (1 - (begun.step / plan.steps if begun is not None else 0))
        trained, validated = plan.steps * config.training.batch_size, validations * len(prepared.validation)
        context.outline(training_seconds(left, plan.memory["weights"], trained, validated), validations)

    with context.phase("loading model"):
        example = min(prepared.known, key=lambda row: row.length) if prepared.kind == "answers" else None
        kernels, missing = sharing.after_first(lambda: fused.kernels(config, plan))
        loaded = load_model(config, plan, reference.path, tokenizer, example, kernels)
        if config.training.engine == "unsloth":
            if warning := unsloth.warning():
                context.notice("warning", warning)
        elif example is not None and not loaded.engine_loss:
            context.notice("info", "this model has a custom head: the library's own loss is used, which is slower")
    context.check_stop()

    with context.phase("training", plan.steps, "steps") as phase:
        repeats = method.updates(config.method)
        callback = JobCallback(context, phase, validations, method, repeats)
        watch = watched(config)
        watching = Watching(context, config, plan, watch, callback, len(tokenizer))
        setup = Setup(
            config=config,
            plan=plan,
            model=loaded.model,
            base=reference.path,
            tokenizer=tokenizer,
            train=prepared.train,
            validation=prepared.validation,
            output=context.job.checkpoints,
            callbacks=[callback, watching],
            peft_config=loaded.peft_config,
            engine_loss=loaded.engine_loss,
            scorer=_scorer(config),
            resumed=begun is not None,
            on_samples=callback.samples,
        )
        trainer = trainers.build(setup)
        offload(trainer.model, config, plan)
        if fused.wanted(config, plan):
            done = fused.fuse(trainer, config, plan, kernels, missing)
            context.log(done.line())
            if setup.by_length and plan.unpadded and not done.unpadded:
                # What was promised is not kept: micro-batches are made for the model's own layers.
                setup.plan = sharing.first(
                    lambda: _plan(context, asked, reference, prepared, begun is not None, fuses=False)
                )
                _record(context, asked, base, prepared, setup.plan)
        if liger.wanted(config, plan):
            context.log(liger.fuse(trainer, plan).line())
        if config.padding_free:
            trainer.require_apart(setup.plan)
        callback.watch(trainer)
        left_out = LeftOut(context, prepared)
        if sharing.number() == 0:
            trackers.attach(trainer, context, list(config.training.report_to))
        start = Start.of(trainer, config) if sharing.number() == 0 else Start()
        if begun is not None:
            callback.go_on(begun)
        with watched_ranks(context.job.path):
            trainer.train(resume_from_checkpoint=str(begun.path) if begun is not None else None)
        left_out.told()
    with context.phase("saving"):
        last = trainer.state.global_step
        saved = load_best(context, trainer, watch) if config.training.load_best_model_at_end else last
        context.log(f"the weights of step {saved} are saved")
        save(context, asked, reference, trainer, tokenizer, prepared, start, saved, watching.early)
    if callback.stopped:
        raise StoppedError(f"stopped at step {trainer.state.global_step} of {plan.steps}; the weights are saved")
    if sharing.number() == 0:
        tidy(context, config)


def _begun(context: JobContext) -> Checkpoint | None:
    """The checkpoint that a run goes on from; None in its first attempt, unless it branches off another run."""
    branch = context.job.request.branch
    if context.job.state().attempt == 1 and branch is None:
        return None
    begun = last_whole(context.job.checkpoints)
    if begun is None and branch is not None:
        raise StudioError(
            f"the checkpoint of step {branch.step} that this run starts from is damaged",
            where=str(context.job.checkpoints),
            fix="Branch from another checkpoint",
        )
    if begun is None:
        context.notice("warning", "all checkpoints are damaged, so the run starts over")
    context.resumed(begun.step if begun is not None else 0)
    return begun


def _require_steps(context: JobContext, begun: Checkpoint, plan: Plan) -> None:
    """Refuse a run that is over before it begins, which would save and tidy as if it were done.

    A run that was ended while it saved its model stands at its last step, and only has to be saved.
    """
    branch = context.job.request.branch
    own = branch is None or begun.step > branch.step
    if begun.step > plan.steps or (begun.step == plan.steps and not own):
        raise StudioError(
            f"with {plan.steps} steps the run would end before step {begun.step}, where it should resume",
            where="training.epochs",
            fix="Branch from the checkpoint with more epochs, or with a larger training.max_steps if it is set",
        )


def _scorer(config: RunConfig) -> Path | None:
    method = config.method
    if method.kind.online and "model" in method.rewards and method.reward_model:
        return Path(method.reward_model)
    return None


def _evaluations(plan: Plan, prepared: Prepared, begun: Checkpoint | None) -> int:
    """How many validations there will be: one before the first step of a new run, then every `eval_steps`."""
    if not prepared.validation or not plan.eval_steps:
        return 0
    return plan.steps // plan.eval_steps + (1 if begun is None else -(begun.step // plan.eval_steps))


def _check(context: JobContext, config: RunConfig, reference: ModelRef, prepared: Prepared) -> None:
    """The checks of the page and the command line once more: a config may come from elsewhere, or the data is new."""
    known = replace(
        checks.Known.of(config, reference.path, context.settings),
        lengths=lengths_of(prepared, config),
    )
    checks.check_model(known)
    checks.check_method(known)
    checks.require_rows(prepared.tokenizer, prepared.known, known.shape.vocab, reference.path)
    if isinstance(prepared.train, StreamedRows):
        prepared.train.pool.vocabulary = known.shape.vocab


def _resolve(context: JobContext, config: RunConfig) -> ModelRef:
    with context.reporter() as report:
        report("preparing model")
        return resolve_model(config.model.path, context.settings, revision=config.model.revision, on_progress=report)


def _read(
    context: JobContext, config: RunConfig, reference: ModelRef, tokenizer: PreTrainedTokenizerBase
) -> Prepared:  # fmt: skip
    with context.reporter() as report:
        fetch_sources(config.data, context.settings, report)
    data = limited_by(reference.path, config)
    with context.reporter("rows") as report:
        prepared = prepare_data(
            data, config.method, tokenizer, context.settings, on_phase=report, seed=config.training.seed
        )  # fmt: skip
    for source in prepared.report.sources:
        if source.cached:
            context.log(f"the tokens of {source.path} come from the cache")
    return prepared


def _within(config: RunConfig, longest: int) -> RunConfig:
    """The run with the length of its longest row where the limit was left to the studio."""
    if config.data.max_length != "auto":
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"max_length": longest})})


def _plan(
    context: JobContext, config: RunConfig, reference: ModelRef, prepared: Prepared, begun: bool, fuses: bool = True
) -> Plan:  # fmt: skip
    shape = ModelShape.from_folder(reference.path)
    device = device_info(context.settings)
    if not device.measured:  # the libraries are imported by now: better than the guess that stands in for them
        device = replace(device, import_bytes=own_bytes())
    device = replace(device, compiled=device.compiled and fuses)
    plan = make_plan(config, shape, lengths_of(prepared, config), device, _same_batches(context, begun))
    context.notice("info", plan.line())
    if not plan.fits:
        context.notice("warning", "according to the plan, this run does not fit into memory", " ".join(plan.advice))
    return plan


def _same_batches(context: JobContext, begun: bool) -> Batching | None:
    """The micro-batches of the attempt before, so that a run that goes on computes as it did; None where none began."""
    plan = context.job.environment().get("plan") if begun else None
    if not isinstance(plan, dict) or not plan.get("micro_batch"):
        return None
    rows, tokens = int(plan["micro_batch"]), int(plan.get("micro_tokens", 0))
    padded = not plan.get("unpadded", False)
    return Batching(rows * int(plan["accumulation"]) if tokens else rows, tokens, padded)


def lengths_of(prepared: Prepared, config: RunConfig | None = None) -> Lengths:
    """Count what the plan needs to know of the data; with the run, also the lengths in its order."""
    if prepared.estimate is not None:
        return streamed_lengths(prepared.estimate)
    rows = prepared.train
    tokens, repeats = [row.tokens for row in rows], [row.repeats for row in rows]
    return Lengths(
        count=len(rows),
        total_tokens=sum(tokens),
        max=max(row.length for row in rows),
        supervised_tokens=sum(row.supervised for row in rows),
        validation_count=len(prepared.validation),
        validation_max=max((row.length for row in prepared.validation), default=0),
        good=sum(row.label for row in rows) if prepared.kind == "rated" else None,
        answered=sum(row.answer is not None for row in rows) if prepared.kind == "prompts" else None,
        each=() if config is None else first_epoch(config, [row.length for row in rows]),
        sums=() if config is None else first_epoch(config, tokens),
        repeats=() if config is None else first_epoch(config, repeats),
        common=common_prefix(rows),
        alone=max(all_of - again for all_of, again in zip(tokens, repeats, strict=True)),
    )


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
        base_model=base_of(reference, context.settings),
        data=prepared.report.as_dict(),
        plan=plan.as_dict(),
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"

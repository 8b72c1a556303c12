"""An evaluation from request to report: load once, answer as base, answer as tuned, compare.

The base model's answers come from the same weights with the adapter switched off; only full fine-tuning needs a
second model, loaded after the first is gone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from studio.config import RunConfig
from studio.config.jobs import HELD_OUT, EvaluateConfig, asked_rows
from studio.config.load import build
from studio.data.files.datafiles import resolve_path
from studio.data.sources.reading import source_named
from studio.data.tokens.pretrained import load_tokenizer
from studio.errors import InputError
from studio.evaluate.elsewhere import evaluate_elsewhere
from studio.evaluate.heldout import askable, held_out
from studio.evaluate.loading import computing, load_model
from studio.evaluate.measures import Measure, measure_of
from studio.evaluate.questions import read_examples
from studio.evaluate.report import write_report
from studio.jobs import JobFolder, find_job
from studio.jobs.run.worker import JobContext
from studio.jobs.store.request import ANSWERING_KINDS, ELSEWHERE_KINDS
from studio.jobs.views.expected import evaluation_seconds
from studio.models.catalog.quiet import quiet_libraries
from studio.models.device.machine import device_info
from studio.models.inspect.adapters import require_quick_adapter
from studio.settings import Settings


def evaluate(context: JobContext) -> None:
    """Run the evaluation job of `context`.

    Raises:
        InputError: there is no such run, it has no model, or the rows cannot be used.
    """
    quiet_libraries()
    config = build(EvaluateConfig, context.config, "job.yaml")
    found = find_job(context.settings.jobs, config.run, ANSWERING_KINDS)
    if found.request.kind in ELSEWHERE_KINDS:
        return evaluate_elsewhere(context, config, found)
    run = require_model(found)
    with context.phase("reading data", unit="rows"):
        tokenizer = load_tokenizer(run.model)
        config = config.model_copy(update={"data": asked_rows(config.data, run.training, run.request.name)})
        measure = _measure(context.settings, config, run, tokenizer)
    context.outline(evaluation_seconds(measure.count))
    asked: dict[str, list[Any]] = {}
    seconds: dict[str, float] = {}
    for side, model in _sides(context, run):
        context.check_stop()
        with context.phase(f"answers of the {side} model", measure.count, measure.unit) as phase:
            began = time.monotonic()
            asked[side] = measure.ask(model, phase.set)
            seconds[side] = round(time.monotonic() - began, 2)
    told = {"data": config.data, "measure": measure.name, **measure.report(asked["base"], asked["tuned"])}
    write_report(context, run, told, seconds)


def _measure(settings: Settings, config: EvaluateConfig, run: JobFolder, tokenizer: Any) -> Measure[Any]:
    """What the rows of an evaluation are good for."""
    trained = build(RunConfig, run.training, "job.yaml")
    kind = trained.method.kind.rows
    most = None if config.max_new_tokens == "auto" else int(config.max_new_tokens)
    if config.data == HELD_OUT:
        examples = held_out(run, tokenizer, settings, config.limit)
        with askable(run):
            return measure_of(kind, examples, tokenizer, config.data, trained.data, most)
    path = resolve_path(config.data, settings)
    source = source_named(run.training.get("data") or {}, config.data)
    kind, examples = read_examples(path, tokenizer, config.limit, source, kind)
    return measure_of(kind, examples, tokenizer, config.data, trained.data, most)


def require_model(run: JobFolder) -> JobFolder:
    """Return a run that has a trained model.

    Raises:
        InputError: the run has not saved one.
    """
    if run.scores:
        raise InputError(
            f"run '{run.request.name}' trained a reward model, which scores completions and cannot generate",
            fix="Its pair accuracy is in the Training tab",
        )
    if not any((run.model / name).exists() for name in ("adapter_config.json", "config.json")):
        raise InputError(
            f"run '{run.request.name}' has no trained model (it is {run.state().status})",
            fix="Wait until it is done, or choose another run",
        )
    return run


def _sides(context: JobContext, run: JobFolder) -> Iterator[tuple[str, Any]]:
    """Yield ("base", model) and ("tuned", model), one copy of the weights at a time."""
    base_path = Path(run.environment()["base_model"]["path"])
    fast = device_info(context.settings).bf16_fast
    dtype = torch.bfloat16 if fast else torch.float32
    with context.phase("loading model"):
        base = load_model(base_path, dtype)
        adapted = (run.model / "adapter_config.json").exists()
        if adapted:
            require_quick_adapter(run.model, base)
        model = PeftModel.from_pretrained(base, run.model).eval() if adapted else base
    with computing(dtype):
        with model.disable_adapter() if adapted else contextlib.nullcontext():
            yield "base", model
        if not adapted:
            del base, model
            with context.phase("loading model"):
                model = load_model(run.model, dtype)
        yield "tuned", model

"""What is exported: a run's result or a model from elsewhere, its base model, and the rows it is compared on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.config.data import DataSource
from studio.config.jobs import DEMO_TRAIN
from studio.data.sources.locate import locate
from studio.data.sources.reading import source_named
from studio.errors import InputError
from studio.export.gguf.checkpoint import is_checkpoint, own_dtype, weight_bytes
from studio.export.origins.find import Found, find
from studio.export.origins.origin import Origin
from studio.export.origins.run import RunOrigin
from studio.jobs import JobFolder, find_job
from studio.jobs.store.checkpoints import whole
from studio.jobs.store.request import MODEL_KINDS
from studio.models.inspect.tokenizerfiles import tokenizer_files
from studio.settings import Settings
from studio.tunings.adapter import CHANGES_BASE


@dataclass(frozen=True)
class Source:
    """A model that is exported.

    Attributes:
        origin: the run that made it, or where else it comes from.
        base: folder of the base model; for a full fine-tune only its small files may be needed. Of a model from
            elsewhere it is the model itself.
        adapter: folder of the adapter; None for a full checkpoint.
        model: folder of the weights that the run made, its result or one of its checkpoints; else what was named.
        tokenizer: folder of the tokenizer that it answers with.
        step: updates made until the checkpoint; None for the result.
    """

    origin: Origin
    base: Path | None
    adapter: Path | None
    model: Path
    tokenizer: Path
    step: int | None = None

    @property
    def name(self) -> str:
        """What a person calls it."""
        name = self.origin.name
        return name if self.step is None else f"{name}-step-{self.step}"

    @property
    def weights(self) -> Path:
        """Folder whose weights make the model (with an adapter: to which it is added)."""
        return self.base if self.adapter is not None and self.base is not None else self.model

    @property
    def half_bytes(self) -> int:
        """About the bytes of the model in 16 bits."""
        return weight_bytes(self.weights) // (2 if own_dtype(self.weights) == "float32" else 1)


def open_source(settings: Settings, wanted: str, step: int | None = None) -> Source:
    """Find what is exported and what belongs to it.

    Args:
        settings: of the home.
        wanted: a run's id, name or folder, or a model (`origins.find`).
        step: of the run's checkpoint that is exported; None for the run's result.

    Raises:
        InputError: no such run, model or checkpoint, it has no model, or its base model is gone.
    """
    found = find(wanted, settings)
    if not isinstance(found, Found):
        return source_of(found, step)
    if step is not None:
        raise InputError(
            f"{found.origin.said} has no checkpoints: only runs do", where="checkpoint", fix="Omit it, or give a run"
        )
    return Source(found.origin, found.base, found.adapter, found.origin.model, found.tokenizer)


def open_run(settings: Settings, wanted: str) -> JobFolder:
    """Find a run whose result can be exported.

    Args:
        settings: of the home.
        wanted: its id, name or folder.

    Raises:
        InputError: as `open_source`.
    """
    run = find_job(settings.jobs, wanted, MODEL_KINDS)
    source_of(run)
    return run


def source_of(run: JobFolder, step: int | None = None) -> Source:
    """What is exported of a run.

    Args:
        run: a training run or a merge.
        step: of a checkpoint; None for the result.

    Raises:
        InputError: it has no such checkpoint, or no model, or its base model is gone.
    """
    if run.scores:
        raise InputError(
            f"run '{run.request.name}' trained a reward model, which scores completions and cannot generate",
            fix="Export a run of another method; PPO and GRPO can use this one",
        )
    origin = RunOrigin(run)
    base_text = origin.base_model.get("path")
    base = Path(base_text) if base_text else None
    model = run.model if step is None else checkpoint_of(run, step)
    tokenizer = run.model if tokenizer_files(run.model) else model
    if (model / "adapter_config.json").is_file():
        if base is None or not is_checkpoint(base):
            raise InputError(
                f"the base model of run '{run.request.name}' is not there: {base_text or 'its path was not recorded'}",
                where=str(run.path),
                fix="Restore the model at that path; an adapter alone is not a model",
            )
        return Source(origin, base, model, model, tokenizer, step)
    if is_checkpoint(model):
        return Source(origin, base if base is not None and base.is_dir() else None, None, model, tokenizer, step)
    raise InputError(
        f"run '{run.request.name}' has no trained model (it is {run.state().status})",
        fix="Wait until it is done, or export another run",
    )


def checkpoint_of(run: JobFolder, step: int) -> Path:
    """Return the folder of one of a run's checkpoints.

    Raises:
        InputError: it has no whole one of this step, or one that is no model by itself.
    """
    found = {checkpoint.step: checkpoint.path for checkpoint in whole(run.checkpoints)}
    if step not in found:
        steps = ", ".join(str(one) for one in sorted(found))
        raise InputError(
            f"run '{run.request.name}' has no checkpoint of step {step}",
            where="checkpoint",
            fix=f"Give one of {steps}" if steps else "It keeps none: export its result, or set training.save_steps",
        )
    tuning = run.request.config.get("tuning") or {}
    if tuning.get("init") in CHANGES_BASE and (found[step] / "adapter_config.json").is_file():
        raise InputError(
            f"a checkpoint of an adapter that began as {tuning['init']} needs the base model's changed weights, which "
            "only the run itself has",
            where="checkpoint",
            fix="Export the run's result",
        )
    return found[step]


def texts_from(training: Mapping[str, Any], evaluate: Path | None, settings: Settings) -> DataSource | None:
    """The source whose rows both models are compared on: held-out rows where there are some, else training rows.

    Fidelity is measured, not quality, so rows that were trained on will do. None when none can be found any more.

    Args:
        training: configuration of the exported run (`Origin.data`).
        evaluate: rows the person chose instead; None for the run's own.
        settings: home and readable folders.
    """
    data: dict[str, Any] = training.get("data") or {}
    validation = data.get("validation")
    named = [source_named(data, validation)] if isinstance(validation, str) and validation else []
    named += [DataSource.model_validate(one) for one in data.get("train") or [{"path": DEMO_TRAIN}]]
    if evaluate is not None:
        named = [source_named(data, str(evaluate))]
    for source in named:
        with contextlib.suppress(InputError):
            return where_it_lies(source, settings)
    return None


def where_it_lies(source: DataSource, settings: Settings) -> DataSource:
    """Return a source by the path where its file is, which means the same to a step of the export.

    Raises:
        InputError: it is not there.
    """
    located = locate(source, settings)
    here = located.entry is None and located.count is None
    return source.model_copy(update={"path": str(located.path)}) if here else source


def cpu_threads() -> int:
    """CPU threads for llama.cpp: the cores that this process may use, as its own default would be, at most 16.

    More than the idle ones do no harm since they hardly spin (`processes.WAITING`). With threads that do, on two cores
    that others used too, 621 tokens took 76 s instead of 5 s.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16)

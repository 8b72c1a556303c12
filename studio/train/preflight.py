"""Every check that can be made before a device is touched, in one place for page, command line and scripts.

Light: the tokenizing is done by the data worker, so that neither the page nor `studio plan` imports torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.config.describe import reader, without_effect
from studio.config.model import EMBEDDED_MODEL
from studio.data.prepare.batch import epoch_order, mixed
from studio.data.prepare.prepared import Estimate
from studio.data.sources.locate import absolute, fetch_sources
from studio.data.wire import run_sections
from studio.data.worker.client import DataCalls
from studio.errors import InputError, StudioError
from studio.foreign import as_path
from studio.jobs import list_jobs
from studio.jobs.run.devices import require_devices
from studio.jobs.store.state import ACTIVE
from studio.models.catalog.names import resolve_model
from studio.models.device.machine import device_info
from studio.models.inspect.shape import ModelShape
from studio.models.inspect.takeaway import gguf_obstacle
from studio.models.plan.batches import SEEN_ROWS
from studio.models.plan.fit import Lengths
from studio.models.plan.making import RATE, Plan, make_plan
from studio.settings import Settings
from studio.train import checks
from studio.train.runs import find_model, whole_run
from studio.tunings import TuningConfig

Progress = Callable[[str, float, float | None], None]
# Options that name a run or a folder; a job gets the folder.
MODEL_OPTIONS = (("tuning", "adapter"), ("method", "reward_model"))
# Of an adapter that is gone on with, its folder says these.
_KEPT_OF_AN_ADAPTER = (
    "rank", "alpha", "dropout", "target_modules", "init", "rslora", "rank_pattern", "alpha_pattern",
    "layers_to_transform", "modules_to_save", "dora",
)  # fmt: skip
# Above so many times the usual learning rate, or below that part of it, a person is told.
FAR = 5.0
# Room for logs, events and one temporary copy beside what the plan counts.
_SPARE_BYTES = 200 * 1000**2


class DoesNotFitError(InputError):
    """The run needs more memory than is free; `plan` says of what."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        needed, free = plan.total_bytes / 1e9, plan.available_bytes / 1e9
        super().__init__(
            f"this run needs {needed:.1f} GB of memory, but only {free:.1f} GB are free",
            where="training",
            fix=" ".join(plan.advice),
        )


@dataclass(frozen=True)
class Checked:
    """What is known of a run before it starts.

    Attributes:
        plan: steps, memory, time, and every `auto` resolved.
        lengths: counts of the tokenized data.
        findings: options that have no effect, then what the data worker noticed (dropped, cut, duplicate rows …).
        config: the run with absolute paths; this is what is submitted.
    """

    config: RunConfig
    plan: Plan
    lengths: Lengths
    findings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """What a person should know before the start, in sentences."""
        return [sentence(one) for one in self.findings if one["level"] == "warning"]

    @property
    def limits(self) -> list[str]:
        """What the model's result cannot be used for, in sentences."""
        return [sentence(one) for one in self.findings if one.get("reason")]


def sentence(finding: dict[str, Any]) -> str:
    """A finding and what to do about it, as text."""
    text, fix = (finding[name].rstrip(".") for name in ("text", "fix"))
    return f"{text}. {fix}." if fix else f"{text}."


def check(
    config: RunConfig,
    settings: Settings,
    data: DataCalls,
    *,
    fetch: bool = False,
    on_progress: Progress | None = None,
    one_of_several: bool = False,
) -> Checked:
    """Check model, data, memory and disk of a run.

    Args:
        config: the run.
        settings: the studio's settings.
        data: counts the tokens.
        fetch: download a model or data set of the Hub that is not here yet; without it that is an error. The
            embedded model is made in any case, since it comes from a package that is here.
        on_progress: told (what, done, total) of the slow parts.
        one_of_several: this machine has its part of a run of several machines.

    Raises:
        InputError: something that was asked for cannot be done; the sentence says what to change.
        StudioError: the computer lacks something (disk, memory).
    """
    config = with_absolute_paths(config, settings)
    require_devices(config.training, settings, one_of_several)
    model = resolve_model(
        config.model.path,
        settings,
        revision=config.model.revision,
        on_progress=on_progress,
        fetch=fetch or config.model.path == EMBEDDED_MODEL,
    )
    known = checks.Known.of(config, model.path, settings)
    checks.check_model(known)
    checks.check_method(known)
    if fetch:
        fetch_sources(config.data, settings, on_progress or (lambda name, done, total: None))
    with takeaway(known) as told:
        lengths, findings = counted(config, data, model.path, on_progress)
        checks.check_method(replace(known, lengths=lengths))
        return planned(config, known.shape, lengths, settings, findings + told())


@contextmanager
def takeaway(known: checks.Known) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Rehearse the model's way to a GGUF while something else is done; what is given tells the finding, if any.

    A reward model writes nothing, so nobody takes it away. Without headers of the weights nothing is claimed.
    """
    if known.scores or not known.tensors or not known.folder.is_dir():
        yield list
        return
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(gguf_obstacle, known.folder, known.raw, known.tensors, known.settings)
        yield lambda: [one.finding() for one in [asked.result()] if one is not None]


def counted(
    config: RunConfig, data: DataCalls, folder: Path, on_progress: Progress | None
) -> tuple[Lengths, list[dict[str, Any]]]:
    """Count the tokens of a run's rows with the tokenizer in `folder`; returns the counts and what was noticed.

    Args:
        config: the run, with paths resolved.
        data: the data worker.
        folder: a Hugging Face checkpoint; only its tokenizer is used.
        on_progress: called while rows are read; None for silence.

    Raises:
        InputError, StudioError: rows that cannot be read or used.
    """
    sections = run_sections(config, folder)
    found = data.call("lengths", **sections, seed=config.training.seed, on_progress=on_progress)
    if found["estimate"] is not None:
        return streamed_lengths(Estimate(**found["estimate"])), found["report"]["findings"]
    lengths = Lengths(
        count=len(found["train"]),
        total_tokens=sum(found["tokens"]),
        max=max(found["train"]),
        supervised_tokens=sum(found["supervised"]),
        validation_count=len(found["validation"]),
        validation_max=max(found["validation"], default=0),
        good=found["good"],
        answered=found["answered"],
        each=first_epoch(config, found["train"]),
        sums=first_epoch(config, found["tokens"]),
        repeats=first_epoch(config, found["repeats"]),
        common=found["common"],
        alone=max(tokens - again for tokens, again in zip(found["tokens"], found["repeats"], strict=True)),
    )
    return lengths, found["report"]["findings"]


def streamed_lengths(estimate: Estimate) -> Lengths:
    """Return what the plan needs to know of rows that are streamed."""
    return Lengths(
        count=estimate.count,
        total_tokens=estimate.tokens,
        max=estimate.longest,
        supervised_tokens=estimate.supervised,
        validation_count=estimate.validation_count,
        validation_max=estimate.validation_longest,
        each=estimate.each[:SEEN_ROWS],
    )


def first_epoch(config: RunConfig, lengths: Sequence[int]) -> list[int]:
    """Lengths of the first rows in the order in which a trainer on one device takes them."""
    seed, shuffle = config.training.seed, config.data.shuffle
    if shuffle and config.method.kind.mixed:
        return mixed(lengths, seed)[:SEEN_ROWS]
    return [lengths[at] for at in epoch_order(len(lengths), seed, shuffle=shuffle, first=SEEN_ROWS)]


def planned(
    config: RunConfig, shape: ModelShape, lengths: Lengths, settings: Settings, findings: list[dict[str, Any]]
) -> Checked:
    """Make the plan of a checked run, and see that memory and disk suffice for it.

    Args:
        config: the run, checked.
        shape: of its model.
        lengths: token counts of its rows, per row and in total.
        settings: its home is where disk space is required and running jobs are looked for.
        findings: of the earlier checks; returned with those of the plan.

    Raises:
        DoesNotFitError: more memory is needed than is free.
        StudioError: more disk.
    """
    device = device_info(settings, wanted=config.training.device)
    # A measurement beside a running job would be wrong, and it is kept for good.
    if not device.measured and not any(job.state().status in ACTIVE for job in list_jobs(settings.jobs)):
        device = device_info(settings, measure=True, wanted=config.training.device)
    plan = make_plan(config, shape, lengths, device)
    _require_disk(settings, _disk_bytes(config, plan))
    if not plan.fits:
        raise DoesNotFitError(plan)
    return Checked(config, plan, lengths, unread_options(config) + unusual_options(config, plan) + findings)


def unusual_options(config: RunConfig, plan: Plan) -> list[dict[str, Any]]:
    """Say of a learning rate that was set that it is far from the usual one, as findings."""
    usual = plan.usual[RATE]
    ratio = plan.learning_rate / usual.value
    if config.training.learning_rate == "auto" or max(ratio, 1 / ratio) <= FAR * (1 + 1e-9):
        return []
    times = f"{ratio:.3g} times" if ratio > 1 else f"1/{1 / ratio:.3g} of"
    run = f"{config.method.name} with {config.tuning.name} on a model of this size"
    text = f"{RATE} {plan.learning_rate:g} is {times} the usual {usual.value:g} for {run}"
    fix = f"Set it to auto for {usual.value:g}, unless you have tested it"
    return [{"level": "warning", "count": 0, "text": text, "fix": fix}]


def unread_options(config: RunConfig) -> list[dict[str, Any]]:
    """Say which options were set although this run does not read them, as findings."""
    method, tuning = config.method.name, config.tuning.name
    findings = []
    for spec in without_effect(config, method, tuning):
        text = f"{spec.path} has no effect with {method}, {tuning} and the other settings of this run"
        findings.append(
            {"level": "warning", "count": 0, "text": text, "fix": f"It applies to {reader(spec)}; remove it"}
        )
    if config.tuning.goes_on:
        for name in _KEPT_OF_AN_ADAPTER:
            value, default = getattr(config.tuning, name), TuningConfig.model_fields[name].default
            if value != default and config.tuning.reads(name):
                text = f"tuning.{name} has no effect: the existing adapter keeps its own"
                fix = "Remove it, or set tuning.merge_adapter to true for a new adapter on top"
                findings.append({"level": "warning", "count": 0, "text": text, "fix": fix})
    return findings


def _disk_bytes(config: RunConfig, plan: Plan) -> int:
    """Checkpoints hold weights and two moments in float32; the result holds the weights once more."""
    weights = 4 * plan.trainable
    return (3 * weights) * (config.training.save_total_limit + plan.keep_best) + weights


def _require_disk(settings: Settings, needed: int) -> None:
    place = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed + _SPARE_BYTES:
        raise StudioError(
            f"the disk has {free / 1e9:.1f} GB free, but this run needs {(needed + _SPARE_BYTES) / 1e9:.1f} GB",
            where=str(settings.home),
            fix="Free some space, or point STUDIO_HOME to another disk",
        )


def with_absolute_paths(config: RunConfig, settings: Settings) -> RunConfig:
    """Return the run with paths that mean the same in every process.

    A job runs in its own folder; the studio's demo set keeps its short name, so that the run is portable.

    Raises:
        InputError: a data file does not exist.
    """
    raw = config.model_dump()
    for source in raw["data"]["train"]:
        source["path"] = absolute(source["path"], settings)
    if isinstance(config.data.validation, str):
        raw["data"]["validation"] = absolute(config.data.validation, settings)
    folder = as_path(config.model.path)
    if folder.is_dir():
        raw["model"]["path"] = str(folder.absolute())
    elif run := whole_run(config.model.path, settings):
        raw["model"]["path"] = str(run.model)
    for section, name in MODEL_OPTIONS:
        if raw[section][name] and getattr(config, section).reads(name):
            raw[section][name] = str(find_model(raw[section][name], settings, f"{section}.{name}"))
    for name in ("reward_schema", "reward_python"):
        if raw["method"][name] and config.method.reads(name):
            raw["method"][name] = str(as_path(raw["method"][name]).absolute())
    return RunConfig.model_validate(raw)


def named_paths(config: RunConfig) -> dict[str, Path]:
    """Files and folders, other than model and data, that the run would read, by option; the page confines them."""
    found = {
        f"{section}.{name}": getattr(getattr(config, section), name)
        for section, name in MODEL_OPTIONS
        if getattr(config, section).reads(name)
    }
    # A run is named without a slash; anything else is a path.
    named = {option: text for option, text in found.items() if text and ("/" in text or text.startswith("~"))}
    if config.method.reads("reward_schema"):
        named["method.reward_schema"] = config.method.reward_schema
        named["method.reward_python"] = (config.method.reward_python or "").rpartition(":")[0]
    return {option: as_path(text).absolute() for option, text in named.items() if text}

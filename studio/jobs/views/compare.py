"""Several runs beside each other: the options that differ, and what came of them.

One function for page and command line. A value is marked as best only where the runs measured the same thing; where
they may not have, a note says so.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from studio.config import RunConfig
from studio.config.describe import options_of
from studio.errors import InputError
from studio.jobs.store.events import read_events
from studio.jobs.store.files import read_json, size_of
from studio.jobs.store.folder import JobFolder
from studio.jobs.store.request import ANSWERING_KINDS
from studio.jobs.store.state import JobState
from studio.jobs.views.differences import NONE, Row, at, differing, full_config
from studio.jobs.views.disk import DiskBook, gigabytes
from studio.jobs.views.elsewhere import service_rows
from studio.jobs.views.merged import is_merge, merge_scores, recipe_rows
from studio.jobs.views.summary import JobSummary, Summaries, status_word
from studio.methods import METHODS, Metric

MOST = 10
# Options of a method that say what its loss is: losses of runs that differ in one have no common scale. The others (the
# noise of NEFTune, how answers are drawn) only say how it is lowered.
LOSS_OPTIONS = frozenset(spec.path for spec in options_of(RunConfig) if spec.decides == "loss")
# And numbers of a method that grow and shrink with those.
SCALED = frozenset(("rewards/margins", "rewards/chosen", "rewards/rejected", "margin", "loss/value"))
# Options that say what is scored at all: with others no number of the method is about the same thing.
SCORING_OPTIONS = frozenset(spec.path for spec in options_of(RunConfig) if spec.decides == "score")
# What an evaluation measures of a trained model.
SCORES = {"exact_match": "Exact match after", "preference_accuracy": "Preference accuracy after"}
Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Comparison:
    """What page, command line and downloads show.

    Attributes:
        runs: id, shown name and state of each run, in the order that was asked for.
        options: only those that differ.
        results: what came of the runs.
        notes: what to know before one is called better.
    """

    runs: list[dict[str, Any]]
    options: list[Row]
    results: list[Row]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Facts:
    """What is known of one run, read once."""

    job: JobFolder
    state: JobState
    summary: JobSummary
    config: dict[str, Any]
    environment: dict[str, Any]
    bytes: int
    scores: dict[str, tuple[float, str]]


def compare_runs(
    runs: Sequence[JobFolder], summaries: Summaries, disk: DiskBook, evaluations: Iterable[JobFolder]
) -> Comparison:
    """Compare two to ten trainings, merges and jobs of a service.

    Of a merge the recipe stands in place of the options, of a job of a service what it was asked for.

    Args:
        runs: in the order of the columns.
        summaries: what the runs reported.
        disk: what their folders take.
        evaluations: evaluation jobs, newest first; the newest completed one of each run counts.

    Raises:
        InputError: too few or too many, one twice, or one that makes no model.
    """
    _require_comparable(runs)
    reports = _scores(runs, evaluations)
    facts, notes = [], []
    for job in runs:
        config, problem = full_config(job) if _trained(job) else ({}, "")
        notes += [problem] if problem else []
        size, scores = disk.of(job).total, reports.get(job.id, {})
        facts.append(Facts(job, job.state(), summaries.of(job), config, _environment(job), size, scores))
    trained = [one for one in facts if _trained(one.job)]
    options = differing([one.config for one in trained], [one.environment for one in trained])
    notes += _cautions(trained, options)
    options = [_beside(row, runs) for row in options] + recipe_rows(runs) + service_rows(runs)
    own = {metric.name: metric for one in facts for metric in metrics_of(one.config)}
    shown = [
        {"id": job.id, "name": job.name, "status": one.state.status, "word": status_word(one.state, one.summary)}
        for job, one in zip(runs, facts, strict=True)
    ]
    return Comparison(shown, options, _results(facts, list(own.values()), {row.key for row in options}), notes)


def _beside(row: Row, runs: Sequence[JobFolder]) -> Row:
    """A row of the trainings' options with an empty place for each other job."""
    values = iter(row.values)
    return Row(row.key, row.title, [next(values) if _trained(job) else NONE for job in runs])


def _trained(job: JobFolder) -> bool:
    """Whether a job trained here, by options of the studio."""
    return job.request.kind == "train"


def metrics_of(config: dict[str, Any]) -> tuple[Metric, ...]:
    """What the method of a training's config reports beside the loss; nothing where this version does not know it."""
    method = METHODS.get(str(at(config, "method.name")))
    return method.metrics if method is not None else ()


def _results(facts: Sequence[Facts], metrics: Sequence[Metric], changed: set[str]) -> list[Row]:
    kinds = {one.job.request.kind for one in facts}
    # A service counts its loss in its own way; a merge has none.
    other = len(kinds - {"merge"}) > 1 or bool(changed & {"method.name", *LOSS_OPTIONS, *SCORING_OPTIONS})
    loss: Better = "neither" if other else "lower"
    merges = [one for one in facts if is_merge(one.job)]
    # What a merge or a service takes says nothing of a training, and the other way round.
    alike = len(kinds) == 1 and all(one.state.status == "completed" for one in facts)
    whole: Better = "lower" if alike else "neither"
    best = [one.summary.best for one in facts]
    rows = [
        _row("best_eval_loss", "Best validation loss", [pair[0] if pair else None for pair in best], loss),
        _row("best_eval_step", "… at step", [pair[1] if pair else None for pair in best], "neither"),
        _row("loss", "Training loss, last", [_number(one.summary.values.get("loss")) for one in facts], loss),
    ]
    for metric in metrics:
        if metric.name == "eval_loss":
            continue
        unlike = changed & SCORING_OPTIONS or (changed & LOSS_OPTIONS and metric.name in SCALED)
        better: Better = "neither" if unlike else metric.better
        for name, title in ((metric.name, metric.title), (f"eval_{metric.name}", f"{metric.title}, validation")):
            values = [_number(one.summary.values.get(name)) for one in facts]
            if any(value is not None for value in values):
                rows.append(_row(name, title, values, better))
    for name, title in SCORES.items():
        scores = [one.scores.get(name) for one in facts]
        same_rows = len({score[1] for score in scores if score}) == 1
        values = [score[0] if score else None for score in scores]
        right: Better = "higher" if same_rows else "neither"
        shown = title.removesuffix(" after") if merges else title
        rows.append(_row(name, shown, values, right, lambda value: f"{value:.1%}"))
    rows += [
        _row(
            "tokens_per_second", "Tokens per second, median",
            [_median_speed(one.job.events_path, size_of(one.job.events_path)) for one in facts], "higher", _rounded,
        ),
        _row("peak_memory", "Peak memory", [one.summary.peak_memory_gb * 1e9 or None for one in facts], whole, _bytes),
        _row("peak_gpu", "Peak GPU memory", [_number(one.environment.get("peak_gpu_bytes")) for one in facts], whole,
             _bytes),
        _row("seconds", "Training time", [one.summary.elapsed or None for one in facts], whole, _seconds),
        _row("tokens", "Tokens seen", [one.summary.tokens or None for one in facts], "neither"),
        _row("steps", "Steps", [one.summary.step or None for one in facts], "neither"),
        _row("bytes", "Disk", [float(one.bytes) for one in facts], whole, _bytes),
    ]  # fmt: skip
    return [row for row in rows if any(number is not None for number in row.numbers)]


def _row(
    key: str,
    title: str,
    numbers: Sequence[float | None],
    better: Better,
    text: Callable[[float], str] | None = None,
) -> Row:
    values = [NONE if number is None else (text or figure)(number) for number in numbers]
    known = {number: shown for number, shown in zip(numbers, values, strict=True) if number is not None}
    best: list[int] = []
    # Values that are written alike are equally good: a difference that nobody sees is none.
    if better != "neither" and len(set(known.values())) > 1:
        target = known[min(known) if better == "lower" else max(known)]
        best = [place for place, shown in enumerate(values) if shown == target]
    return Row(key, title, values, list(numbers), best)


def _cautions(facts: Sequence[Facts], options: Sequence[Row]) -> list[str]:
    changed = {row.key for row in options}
    if "method.name" in changed:
        return ["The runs have different methods, so their losses are not comparable and none is marked as best."]
    if defining := [row.title for row in options if row.key in LOSS_OPTIONS | SCORING_OPTIONS]:
        named = ", ".join(defining)
        return [f"The runs compute their losses differently ({named}), so none of the losses is marked as best."]
    if any(key.startswith(("data", "model.path", "model.revision")) for key in changed):
        return ["The runs differ in model or data: their losses may be measured on different tokens."]
    if "training.seed" in changed and any(isinstance(at(one.config, "data.validation"), float) for one in facts):
        return ["The seed selects the validation rows: the runs' losses are measured on different ones."]
    return []


def _scores(runs: Sequence[JobFolder], evaluations: Iterable[JobFolder]) -> dict[str, dict[str, tuple[float, str]]]:
    """Each run's scores by its newest completed evaluation of each measure, and which rows they were measured on."""
    wanted = {name: job.id for job in runs for name in (job.id, str(job.path))}
    found: dict[str, dict[str, tuple[float, str]]] = {}
    for job in evaluations:
        run = wanted.get(_run_of(job))
        if run is None or len(found.get(run, ())) == len(SCORES) or job.state().status != "completed":
            continue
        try:
            report = read_json(job.report / "evaluation.json")
            after = report["after"]
            name = next((name for name in SCORES if name in after), "")
            score, rows = _number(after[name]), _asked(report)
        except (OSError, KeyError, TypeError, ValueError):  # an older one may still be whole
            continue
        if score is not None:
            found.setdefault(run, {}).setdefault(name, (score, rows))
    for run_id, name, value, evaluation in merge_scores(runs):
        score = _number(value)
        if score is not None and run_id in wanted and name in SCORES:
            found.setdefault(run_id, {}).setdefault(name, (score, _rows_of(evaluation, evaluation.get("total"))))
    return found


def _asked(report: dict[str, Any]) -> str:
    """Equal for evaluations on the same rows; "validation" alone means others for each run."""
    return _rows_of(report, report["after"].get("total"))


def _rows_of(report: dict[str, Any], total: Any) -> str:
    rows = [(row["row"], row["prompt"]) for row in report.get("rows") or []]
    return f"{report.get('data')} {total} {hash(repr(rows))}"


def _run_of(job: JobFolder) -> str:
    try:
        return str(job.request.config.get("run"))
    except InputError:
        return ""


@functools.lru_cache(maxsize=64)
def _median_speed(path: Path, size: int) -> float | None:
    """Median of the tokens per second that a run reported; read once for each length of the log."""
    speeds: list[float] = []
    offset = 0
    while offset < size:
        events, following = read_events(path, offset)
        if following <= offset:
            break
        offset = following
        for event in events:
            values = event.get("values")
            speed = _number(values.get("tokens_per_second")) if isinstance(values, dict) else None
            speeds += [speed] if speed is not None else []
    return statistics.median(speeds) if speeds else None


def _require_comparable(runs: Sequence[JobFolder]) -> None:
    if not 2 <= len(runs) <= MOST:
        raise InputError(f"{len(runs)} runs cannot be compared", where="compare", fix=f"Choose 2 to {MOST} runs")
    if len({job.id for job in runs}) < len(runs):
        raise InputError("a run is given twice", where="compare", fix="Give each once")
    for job in runs:
        if job.request.kind not in ANSWERING_KINDS:
            raise InputError(
                f"'{job.name}' is an {job.request.kind} job and has no model to compare", where="compare",
                fix="Choose runs, merges or jobs at OpenAI",
            )  # fmt: skip


def _environment(job: JobFolder) -> dict[str, Any]:
    try:
        found = job.environment()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def figure(value: float) -> str:
    """A number as the page writes it: 4 significant digits, thousands with commas."""
    if float(value).is_integer() and abs(value) < 1e12:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _rounded(value: float) -> str:
    return figure(round(value) if value >= 100 else value)


def _bytes(value: float) -> str:
    return gigabytes(int(value))


def _seconds(value: float) -> str:
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0
    return float(value) if usable else None

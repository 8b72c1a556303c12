"""The comparison of trainings with what their methods report: which numbers there are, and which way is better."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from studio.jobs import JobFolder, Summaries
from studio.jobs.views.compare import Comparison, Measure, compare
from studio.jobs.views.disk import DiskBook
from studio.methods import METHODS


def compare_runs(
    runs: Sequence[JobFolder], summaries: Summaries, disk: DiskBook, evaluations: Iterable[JobFolder]
) -> Comparison:
    """Compare two to ten trainings; see `studio.jobs.views.compare.compare`.

    Args:
        runs: in the order of the columns.
        summaries: what the runs reported.
        disk: what their folders take.
        evaluations: evaluation jobs, newest first.

    Raises:
        InputError: they cannot be compared.
    """
    return compare(runs, summaries.of, lambda job: disk.of(job).total, _measures, evaluations)


def _measures(method: str) -> tuple[Measure, ...]:
    found = METHODS.get(method)
    metrics = found.metrics if found is not None else ()
    return tuple(Measure(metric.name, metric.title, metric.better) for metric in metrics)

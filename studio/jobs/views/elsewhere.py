"""Jobs of a service beside trainings in a comparison: what was asked of the service, in place of options."""

from __future__ import annotations

from collections.abc import Sequence

from studio.jobs.store.folder import JobFolder
from studio.jobs.store.request import ELSEWHERE_KINDS
from studio.jobs.views.differences import NONE, Row

# Options of such a job that a comparison shows, with their titles there.
_TITLES = {
    "model": "Model at the service", "data": "Rows sent", "method": "Method at the service",
    "n_epochs": "Epochs at the service", "batch_size": "Batch size at the service",
    "learning_rate_multiplier": "Learning rate multiplier", "beta": "Beta at the service",
}  # fmt: skip


def service_rows(jobs: Sequence[JobFolder]) -> list[Row]:
    """Return what differs between what services were asked for; jobs of this machine have none of it.

    Args:
        jobs: in the order of the columns.
    """
    told = [job.request.config if job.request.kind in ELSEWHERE_KINDS else {} for job in jobs]
    rows = [Row(key, title, [str(one.get(key) or NONE) for one in told]) for key, title in _TITLES.items()]
    return [row for row in rows if len(set(row.values)) > 1]

"""The spine: every long piece of work is a job, and a job is a folder.

`folder`, `request` and `state` say what a job is, `events` how it reports, `worker` how its process behaves,
`supervisor` who starts and ends it, `checkpoints` from where it goes on, `summary` what lists show. Readers and
the work share files and signals only, so either side may die at any moment. Light: nothing here imports torch or
gradio.
"""

from studio.jobs.actions.branching import resume
from studio.jobs.actions.client import ensure_supervisor, request_stop, submit, wait
from studio.jobs.store.events import read_events
from studio.jobs.store.finding import find_job, list_jobs
from studio.jobs.store.folder import JobFolder
from studio.jobs.store.request import JobRequest
from studio.jobs.store.state import FINAL, JobState
from studio.jobs.views.summary import JobSummary, Summaries

__all__ = [
    "FINAL",
    "JobFolder",
    "JobRequest",
    "JobState",
    "JobSummary",
    "Summaries",
    "ensure_supervisor",
    "find_job",
    "list_jobs",
    "read_events",
    "request_stop",
    "resume",
    "submit",
    "wait",
]

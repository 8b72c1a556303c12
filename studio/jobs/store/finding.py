"""The jobs of a home: all of them, those of a kind, and the one that a person means by its id, path or name."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from studio.errors import InputError
from studio.jobs.store.folder import JobFolder, is_made
from studio.jobs.store.request import ANSWERING_KINDS, KINDS, Kind


def list_jobs(jobs: Path) -> list[JobFolder]:
    """Return all jobs, newest first.

    Folders that are still being made are left out, and those with a dot, which are being removed.
    """
    if not jobs.is_dir():
        return []
    found = [path for path in jobs.iterdir() if not path.name.startswith(".")]
    return [JobFolder(path) for path in sorted(found, reverse=True) if is_made(path)]


def jobs_of_kind(jobs: Path, kind: Kind) -> list[JobFolder]:
    """Return the jobs of a kind, newest first, without reading the whole of what each was asked."""
    return [job for job in list_jobs(jobs) if _heading(job)[0] == kind]


def _heading(job: JobFolder) -> tuple[str, str]:
    try:
        return job.heading
    except InputError:
        return "", ""  # a folder that is not ours; the list of jobs shows it as such


def find_job(jobs: Path, wanted: str, kind: Kind | Sequence[Kind] | None = None) -> JobFolder:
    """Find a job by its id, its folder's path, or its name (the newest of that name).

    A job that was renamed is found by either name; ids come before shown names, these before the first ones.

    Args:
        jobs, wanted: folder of all jobs; id, absolute path or name.
        kind: only jobs of that kind, or of one of these; None for any.

    Raises:
        InputError: there is none; the nearest name is given.
    """
    kinds = KINDS if kind is None else (kind,) if isinstance(kind, str) else kind
    direct = Path(wanted)
    # Not `Path.exists`: that raises for a name that is too long.
    if direct.is_absolute() and os.access(direct / "state.json", os.F_OK):
        return JobFolder(direct)
    # The id first: no name that a job is given later may take what refers to another one's id.
    named = job_of_id(jobs, wanted)
    if named is not None and (kind is None or _heading(named)[0] in kinds):
        return named
    found = list_jobs(jobs)
    for job in _matching(found, wanted):
        if kind is None or _heading(job)[0] in kinds:
            return job
    found = [job for job in found if kind is None or _heading(job)[0] in kinds]
    names = sorted({job.labels().name or _heading(job)[1] for job in found} | {job.id for job in found})
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.4)
    what = "run" if set(kinds) <= set(ANSWERING_KINDS) else "job"
    fix = f"Did you mean '{near[0]}'?" if near else f"'studio jobs list' shows the {what}s"
    raise InputError(f"there is no {what} '{wanted}'", fix=fix)


def job_of_id(jobs: Path, wanted: str) -> JobFolder | None:
    """Return the job of an id without a look at the others, of which there may be thousands; None if there is none.

    Args:
        jobs: folder of all jobs.
        wanted: any text; what is more than the name of a folder in `jobs` is no id.
    """
    if not wanted or wanted.startswith(".") or "\0" in wanted or Path(wanted).name != wanted:
        return None
    job = JobFolder(jobs / wanted)
    return job if is_made(job.path) else None


def find_own(jobs: Path, wanted: str) -> JobFolder:
    """Find a job that is to be changed: as `find_job`, but in this home, whose supervisor and line it has.

    Raises:
        InputError: there is none, or the path is that of another home's.
    """
    job = find_job(jobs, wanted)
    if job.path.resolve().parent != jobs.resolve():
        raise InputError(
            "this job is in another home", where=wanted, fix=f"Set STUDIO_HOME to {job.path.parent.parent}"
        )
    return job


def find_only(jobs: Path, wanted: str) -> JobFolder:
    """Find a job that is to be removed: as `find_own`, but a name must be that of one job alone.

    Raises:
        InputError: there is none, or several have that name; their ids are listed.
    """
    first = find_own(jobs, wanted)
    if wanted == first.id:
        return first
    same = {job.id: job for job in _matching(list_jobs(jobs), wanted)}
    if len(same) > 1:
        raise InputError(
            f"{len(same)} jobs are called '{wanted}'", fix=f"Use the id of the one you mean: {', '.join(same)}"
        )
    return first


def _matching(found: list[JobFolder], wanted: str) -> Iterator[JobFolder]:
    """Jobs of a name, those that are meant most likely first; one may come twice."""
    return itertools.chain(
        (job for job in found if wanted and (job.labels().name or _heading(job)[1]) == wanted),
        (job for job in found if wanted and _heading(job)[1] == wanted),
    )

"""What a person does with jobs at the service: start one, take over one from elsewhere, pause, go on, stop, delete."""

from __future__ import annotations

from typing import Any, Literal

from studio.config.load import build
from studio.config.remote import OpenAIConfig
from studio.errors import InputError
from studio.jobs.actions.client import ensure_supervisor, request_stop, submit
from studio.jobs.store.finding import jobs_of_kind
from studio.jobs.store.folder import JobFolder
from studio.jobs.store.joblock import job_locked
from studio.jobs.store.state import JobState, write_state
from studio.locks import locked
from studio.private import make_home
from studio.remote.client import address_of, connect, find_key, said_plainly
from studio.remote.job import cancel_there
from studio.remote.prepare import Checked
from studio.remote.record import Journal, Record, read_record, update_record
from studio.settings import Settings

_FREE = ("failed", "cancelled")


def start(prepared: Checked, settings: Settings, name: str) -> JobFolder:
    """Queue a job of confirmed rows; the very same one is never started twice.

    Args:
        prepared: checked and confirmed.
        settings: of the home.
        name: the person's name for it.

    Raises:
        InputError: a row cannot be used, there is no key, or the job was started before.
    """
    prepared.require_sound()
    find_key()
    with locked(make_home(settings.home) / "openai.lock", "no job can be started at the service"):
        _require_new(prepared.config.key, settings)
        return submit(settings, "openai", name, prepared.config.model_dump(mode="json"))


def _require_new(key: str, settings: Settings) -> None:
    for job in jobs_of_kind(settings.jobs, "openai"):
        if job.request.config.get("key") != key:
            continue
        record, state = read_record(job), job.state()
        ended_without = state.final and (record.status in _FREE or (not record.job and record.intent is None))
        if not ended_without:
            raise InputError(
                f"'{job.name}' has sent these rows with these options already", where=job.id,
                fix="Use its model, follow it again with 'studio openai resume', or change the seed or the suffix",
            )  # fmt: skip
    known = Journal(settings).job(key)
    if known.get("job") and known.get("status") not in _FREE:
        raise InputError(
            f"these rows were sent with these options as {known['job']}, whose job here was removed",
            fix=f"Take it over with 'studio openai adopt {known['job']}', or change the seed or the suffix",
        )


def adopt(settings: Settings, id: str, name: str = "", base_url: str | None = None) -> JobFolder:
    """Follow a job that was started elsewhere, as if it had been started here.

    Args:
        settings: of the home.
        id: of the job at the service.
        name: for it here; "" for the id.
        base_url: of the service; None for that of the environment.

    Raises:
        InputError: it is followed here already, or the service has none.
        StudioError: the service cannot be reached.
    """
    address = address_of(base_url)
    if not id.strip():
        raise InputError("a job at the service has an id", where="FTJOB", fix="'studio openai jobs --there' lists them")
    with said_plainly(f"find {id}"):
        found = connect(address).fine_tuning.jobs.retrieve(id)
    with locked(make_home(settings.home) / "openai.lock", "no job can be taken over"):
        for job in jobs_of_kind(settings.jobs, "openai"):
            if id in (read_record(job).job, job.request.config.get("adopt")):
                raise InputError(f"'{job.name}' is this job already", where=job.id, fix="studio openai show it")
        config = build(OpenAIConfig, {"model": found.model, "adopt": id, "base_url": address})
        return submit(settings, "openai", name or id, config.model_dump(mode="json"))


def pause(job: JobFolder) -> str:
    """Pause a job at the service; returns its state then.

    Raises:
        InputError: it has not been started there, or cannot be paused now.
        StudioError: the service cannot be reached.
    """
    record = require_started(job)
    with said_plainly("pause the job"):
        return str(connect(record.base_url).fine_tuning.jobs.pause(record.job).status)


def go_on(settings: Settings, job: JobFolder) -> str:
    """Let a paused job go on at the service, and follow a job again that nobody follows; returns what was done.

    Args:
        settings: of the home.
        job: of this home.

    Raises:
        InputError: there is nothing to go on with.
        StudioError: the service cannot be reached.
    """
    record, said = read_record(job), []
    if record.job:
        with said_plainly("resume the job"):
            client = connect(record.base_url)
            status: str = client.fine_tuning.jobs.retrieve(record.job).status
            if status == "paused":
                client.fine_tuning.jobs.resume(record.job)
                said.append("it was resumed at the service")
    with job_locked(job.path, ".resume.lock", f"'{job.name}' cannot be followed again now"):
        state = job.state()
        # One that succeeded there and ended early here goes on here, where its models are noted.
        followed = state.status == "completed" or (state.final and record.status in _FREE)
        if state.final and not followed:
            job.stop_path.unlink(missing_ok=True)
            write_state(
                job.state_path, JobState(status="queued", created=state.created, attempt=state.attempt + 1)
            )  # fmt: skip
            said.append("it is followed again")
    if not said:
        raise InputError(f"'{job.name}' is neither paused nor without a follower", where=job.id)
    ensure_supervisor(settings)
    return " and ".join(said)


def stop(settings: Settings, job: JobFolder) -> str:
    """Cancel a job: by whoever follows it, or directly; returns what was done.

    Args:
        settings: of the home.
        job: of this home.

    Raises:
        InputError: it is over.
        StudioError: the service cannot be reached.
    """
    record = read_record(job)
    if not job.state().final:
        request_stop(job)
        ensure_supervisor(settings)
        return "stop requested"
    if record.over or not record.job:
        raise InputError(f"'{job.name}' has already ended ({record.status or job.state().status})", where=job.id)
    status = cancel_there(record)
    update_record(job, status=status)
    if key := str(job.request.config.get("key") or ""):
        Journal(settings).note_job(key, status=status)
    return f"it is {status} at the service"


def delete(what: Literal["file", "model"], id: str, base_url: str | None, settings: Settings) -> None:
    """Delete a file or a tuned model at the service.

    Args:
        what: of the two.
        id: of it there.
        base_url: of the service; None for that of the environment.
        settings: of the home.

    Raises:
        InputError: the service has none, or it may not be deleted.
    """
    client = connect(address_of(base_url))
    with said_plainly(f"delete {id}"):
        if what == "file":
            client.files.delete(id)
        else:
            client.models.delete(id)


def jobs_there(base_url: str | None, limit: int = 50) -> list[dict[str, Any]]:
    """The newest jobs at the service, also those that were started elsewhere.

    Args:
        base_url: of the service; None for that of the environment.
        limit: how many.
    """
    client, found = connect(address_of(base_url)), []
    with said_plainly("list the jobs"):
        for one in client.fine_tuning.jobs.list(limit=min(limit, 100)):
            found.append({
                "job": one.id, "model": one.model, "status": one.status, "tuned": one.fine_tuned_model,
                "created": one.created_at,
            })  # fmt: skip
            if len(found) >= limit:
                break
    return found


def require_started(job: JobFolder) -> Record:
    """Return the record of a job that the service has.

    Raises:
        InputError: it has not been started there.
    """
    record = read_record(job)
    if not record.job:
        raise InputError(f"'{job.name}' has not been started at the service yet", where=job.id)
    return record

"""A job at the service from rows to tuned model: sent once, started once, followed to its end.

The process may be killed at any moment: the supervisor starts it again, and it goes on by the record and the journal.
A stop cancels the job there.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from studio.config.load import build
from studio.config.remote import OpenAIConfig
from studio.errors import InputError, StoppedError, StudioError
from studio.jobs.run.worker import JobContext, Reporter
from studio.remote.client import Patience, address_of, connect, said_plainly
from studio.remote.news import News
from studio.remote.prepare import prepare
from studio.remote.record import OVER, Journal, Record, read_record, update_record
from studio.remote.sending import TOKEN, send_file, start_job, token_of

if TYPE_CHECKING:
    import openai

# How often the service is asked; a job takes minutes to days. Tests make it shorter.
POLL_SECONDS = 5.0
POLL_VARIABLE = "STUDIO_OPENAI_POLL"
#: What a state of the service is called here, as a phase.
PHASES = {
    "validating_files": "files are checked at the service", "queued": "waiting at the service", "running": "training",
}  # fmt: skip
PAUSED = "paused at the service"
# So often a cancellation is tried while the service does not answer.
_CANCEL_TRIES = 3


def follow(context: JobContext) -> None:
    """Run the job of `context`.

    Raises:
        InputError: the rows or the options cannot be used.
        StudioError: the service refused it, or the job failed there.
        StoppedError: a stop was asked for, or the job was cancelled there.
    """
    Following(context, build(OpenAIConfig, context.config, "job.yaml")).run()


class Following:
    """The state of one job.

    Args:
        context: of the job.
        config: what was asked for.
    """

    def __init__(self, context: JobContext, config: OpenAIConfig) -> None:
        self.context, self.config = context, config
        self.base_url = address_of(config.base_url)
        self.client: openai.OpenAI = connect(self.base_url)
        self.journal = Journal(context.settings)
        self.patience = Patience(lambda level, text: context.notice(level, text), context.check_stop)
        self.paused = False
        self.pause = float(os.environ.get(POLL_VARIABLE) or POLL_SECONDS)

    def run(self) -> None:
        """Do what is left to do of it."""
        context = self.context
        try:
            record = update_record(context.job, base_url=self.base_url, base=self.config.name)
            with context.reporter() as report:
                if not record.job:
                    record = self._begin(record, report)
                self._watch(record.job, report)
        except StoppedError:
            self._cancel()
            raise
        except StudioError:
            record = read_record(context.job)
            if record.job and not record.over:  # it failed here, as by a key that is refused now
                fix = "'studio openai resume' follows it again, 'studio openai stop' ends it there"
                context.notice("warning", f"{record.job} may still be running at the service", fix)
            raise

    def _begin(self, record: Record, report: Reporter) -> Record:
        """Send what has to be sent, and start the job."""
        job = self.context.job
        if self.config.adopt:
            report("finding the job")
            return update_record(job, job=self.config.adopt)
        if not record.training_file:
            report("checking the rows")
            record = self._send(report)
        report("starting the job")
        files = (record.training_file, record.validation_file)
        found = start_job(self.client, job, self.config, files, self.patience)
        self.journal.note_job(self.config.key, job=found, folder=job.id, status="")
        return update_record(job, job=found)

    def _send(self, report: Reporter) -> Record:
        prepared = prepare(self.config, self.context.settings)
        prepared.require_sound()
        if prepared.config.key != self.config.key:
            raise InputError(
                "the rows are no longer those that were confirmed", where=self.config.data,
                fix="Check them again, and start a new job; nothing was sent",
            )  # fmt: skip
        for text in prepared.warnings:
            self.context.log(f"warning: {text}")
        self.context.log(prepared.cost())
        ids = []
        for name, content in (("training", prepared.training), ("validation", prepared.validation)):
            report(f"uploading the {name} rows")
            ids.append(
                send_file(self.client, self.journal, self.base_url, content, self.patience) if content else ""
            )  # fmt: skip
        return update_record(self.context.job, training_file=ids[0], validation_file=ids[1])

    def _watch(self, id: str, report: Reporter) -> None:
        """Follow the job until it is over."""
        news = News(self.context, self.client, id, self.patience)
        while True:
            found: Any = self.patience.ask("read the job", lambda: self.client.fine_tuning.jobs.retrieve(id))
            # The state is read before the events: of a job that is over, all of them are there.
            news.fetch(getattr(found, "estimated_finish", None))
            self._note(found)
            self._tell_pause(found.status == "paused")
            if found.status == "running" and news.total:
                report(PHASES["running"], news.step, news.total)
            elif found.status != "paused":  # the phase in which it pauses is not over
                report(PHASES.get(found.status, "ending"))
            if read_record(self.context.job).over:
                news.fetch_checkpoints()
                return self._end(found)
            end = time.monotonic() + self.pause
            while time.monotonic() < end:
                self.context.check_stop()
                time.sleep(min(0.2, self.pause))

    def _tell_pause(self, paused: bool) -> None:
        """Say when it pauses and when it goes on, as a phase within the training."""
        if paused != self.paused:
            self.paused = paused
            state = "begin" if paused else "end"
            self.context.event("phase", phase=PAUSED, state=state, done=0, total=None, unit="")

    def _note(self, found: Any) -> None:
        before = read_record(self.context.job)
        method = getattr(found.method, found.method.type or "", None) if found.method else None
        chosen = getattr(method, "hyperparameters", None) or found.hyperparameters
        numbers = chosen.model_dump(exclude_none=True) if chosen else {}
        now = {
            "status": found.status, "base": found.model, "tuned": found.fine_tuned_model or "",
            "trained_tokens": found.trained_tokens, "hyperparameters": numbers,
        }  # fmt: skip
        if any(getattr(before, name) != value for name, value in now.items()):
            update_record(self.context.job, **now)
            if self.config.key:
                self.journal.note_job(self.config.key, status=found.status)

    def _end(self, found: Any) -> None:
        if found.status == "failed":
            why = found.error.message if found.error and found.error.message else "the service does not say why"
            raise StudioError(f"the job failed at the service: {why}", fix="Correct the rows, and start a new job")
        if found.status == "cancelled":
            raise StoppedError("the job was cancelled at the service")
        record = read_record(self.context.job)
        self.context.result("openai", {
            "job": found.id, "model": found.fine_tuned_model, "trained_tokens": found.trained_tokens,
            "checkpoints": [one["model"] for one in record.checkpoints],
        })  # fmt: skip

    def _cancel(self) -> None:
        """Cancel the job at the service, or say that it may go on there."""
        record = read_record(self.context.job)
        if record.over or (not record.job and record.intent is None):
            return
        quick = Patience(lambda level, text: self.context.notice(level, text), lambda: None)
        for _ in range(_CANCEL_TRIES):
            done, found = quick.attempt("cancel the job", lambda: self._cancelled(record))
            if done:
                if found is not None:
                    self._note(found)
                    if found.status != "cancelled" and found.status in OVER:
                        raise StoppedError(
                            f"the job had already {found.status} at the service when the stop arrived",
                            fix="'studio openai resume' brings what it made",
                        )
                return
        where = record.job or "a job that had just been sent"
        raise StoppedError(
            f"it was stopped here, but {where} may still be running at the service",
            fix="'studio openai stop' ends it there",
        )

    def _cancelled(self, record: Record) -> Any:
        """Cancel it; None where it never arrived."""
        jobs = self.client.fine_tuning.jobs
        if record.job:
            return cancelled(self.client, record.job)
        token = token_of(self.context.job, self.config)
        found = next((one for one in jobs.list(limit=20) if (one.metadata or {}).get(TOKEN) == token), None)
        return None if found is None else cancelled(self.client, found.id)


def cancelled(client: openai.OpenAI, id: str) -> Any:
    """Cancel a job at the service, and return it; one that is over by now is returned as it is.

    Raises:
        openai.APIError: the service refuses it, or cannot be reached.
    """
    import openai

    try:
        return client.fine_tuning.jobs.cancel(id)
    except (openai.BadRequestError, openai.ConflictError):
        found = client.fine_tuning.jobs.retrieve(id)
        if found.status in OVER:
            return found
        raise


def cancel_there(record: Record) -> str:
    """Cancel a job at the service that nobody follows; returns its state then.

    Raises:
        StudioError: the service refuses it, or cannot be reached.
    """
    with said_plainly("cancel the job"):
        return str(cancelled(connect(record.base_url), record.job).status)

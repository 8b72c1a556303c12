"""Tells an address (STUDIO_WEBHOOK) that a job is over: one JSON object, posted by the supervisor.

It is posted by a thread of its own, with a short timeout and two retries, so that nothing waits for a server that
does not answer. A job is told once, also when the supervisor was killed meanwhile: an empty file in its folder says
that its end was not claimed yet. The address may hold a secret; what is logged of it is its server.
"""

from __future__ import annotations

import atexit
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from studio.errors import StudioError
from studio.jobs.store.files import read_json
from studio.jobs.store.folder import JobFolder
from studio.jobs.store.state import JobState
from studio.jobs.views.summary import JobSummary, Summaries
from studio.reach import append_in
from studio.settings import Settings

UNTOLD = ".untold"
PAGE = "page.json"  # in the home: where the page listens, written by it
LEAVE_SECONDS = 30.0
TIMEOUT_SECONDS = 5.0
PAUSES = (1.0, 4.0)  # before the second and the third attempt
WORDS = {"completed": "is done", "stopped": "was stopped", "failed": "failed", "lost": "was lost"}


def expect_end(settings: Settings, job: JobFolder) -> None:
    """Note that the end of a job, which begins now, is to be told."""
    if settings.webhook is not None:
        append_in(job.path, UNTOLD).close()


def tell_end(settings: Settings, job: JobFolder) -> threading.Thread | None:
    """Tell the end of a job if nobody has; returns at once, with the thread that does it."""
    if settings.webhook is None:
        return None
    try:
        (job.path / UNTOLD).unlink()
    except OSError:  # told, or never to be told
        return None
    try:
        body = message(job, job.state(), Summaries().of(job), read_json(settings.home / PAGE))
    except (StudioError, OSError, ValueError, KeyError, TypeError) as error:
        _log(f"the webhook was not notified of {job.id}: its folder cannot be read ({type(error).__name__})")
        return None
    thread = threading.Thread(
        target=_post, args=(settings.webhook, body, job.id), name=f"webhook-{job.id}", daemon=True
    )
    thread.start()
    # A supervisor that leaves waits for it, but not for ever: a server may answer a byte now and then.
    atexit.register(thread.join, LEAVE_SECONDS)
    return thread


def message(job: JobFolder, state: JobState, summary: JobSummary, page: Any) -> dict[str, Any]:
    """Make what is posted. Slack shows `text`, Discord `content`; the other fields are for programs.

    Args:
        job: the job.
        state: its end.
        summary: what it reported.
        page: content of page.json, None if no page was opened.
    """
    seconds = round(state.finished - state.started, 1) if state.finished and state.started else None
    best = summary.best[0] if summary.best is not None else None
    address = page.get("address") if isinstance(page, dict) else None
    url = f"{address}#tab=training&job={job.id}" if address else None
    text = f"{job.name} {WORDS.get(state.status, state.status)}"
    text += f" after {round(seconds)} s" if seconds is not None else ""
    text += f": {state.reason}" if state.reason else ""
    text += f" (best validation loss {best:.4g})" if best is not None else ""
    return {
        "text": text, "content": text, "id": job.id, "name": job.name, "kind": job.request.kind,
        "status": state.status, "reason": state.reason, "fix": state.fix, "seconds": seconds, "best_eval_loss": best,
        "steps": summary.step, "url": url,
    }  # fmt: skip


def _post(webhook: str, body: dict[str, Any], job_id: str) -> None:
    data = json.dumps(body).encode()
    headers = {"content-type": "application/json", "user-agent": "finetune-studio"}
    opener = urllib.request.build_opener(_NoRedirect)
    problem = ""
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        try:
            request = urllib.request.Request(webhook, data, headers, method="POST")
            with opener.open(request, timeout=TIMEOUT_SECONDS):
                return
        except urllib.error.HTTPError as error:
            problem = f"it answered {error.code}"
        except (OSError, HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            problem = f"it did not respond ({type(reason).__name__})"
    _log(f"the webhook at {_server(webhook)} was not notified of {job_id}: {problem}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An address that sends us elsewhere is not the one that was set."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _server(webhook: str) -> str:
    parts = urlsplit(webhook)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"


def _log(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}", file=sys.stderr, flush=True)

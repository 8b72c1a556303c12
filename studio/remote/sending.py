"""Files and jobs sent to the service once, whatever is killed or lost on the way.

Before anything is sent, the intent is written down; who finds an intent without an id looks at the service first. A
file is known there by its name, which has the SHA-256 of its bytes; a job by a token in its metadata, or, where a
service keeps none, by its file, model and time.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from filelock import Timeout

from studio.config.remote import KINDS, OpenAIConfig
from studio.jobs.store.folder import JobFolder
from studio.locks import make_lock
from studio.remote.client import Patience, is_missing
from studio.remote.record import Journal, read_record, update_record

if TYPE_CHECKING:
    import openai

PURPOSE: Literal["fine-tune"] = "fine-tune"
TOKEN = "finetune_studio"
# What was sent just before a kill may still be on its way: so many seconds it is looked for before it is sent again.
GRACE = 5.0
_LOOK = 0.5
# Clocks differ: a job of ours is looked for among those that began so many seconds before we tried.
_SKEW = 300.0


def file_name(sha256: str) -> str:
    """Name of a file at the service."""
    return f"studio-{sha256}.jsonl"


def send_file(client: openai.OpenAI, journal: Journal, base_url: str, content: bytes, patience: Patience) -> str:
    """Return the id of a file with these bytes at the service; it is uploaded where it is not there.

    Args:
        client: of the service.
        journal: of the home.
        base_url: of the service, under which the journal has it.
        content: the bytes.
        patience: with outages.

    Raises:
        StudioError: the service refuses it.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    lock = make_lock(journal.lock_path(sha256))
    while True:  # another job may be sending the very same rows
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            patience.check()
            time.sleep(_LOOK)
    try:
        known = journal.file(base_url, sha256)
        if known.get("id") and _is_there(client, str(known["id"]), patience):
            return str(known["id"])

        def look() -> str | None:
            return find_file(client, sha256, patience)

        def upload() -> str:
            sent = (file_name(sha256), content, "application/jsonl")
            return client.files.create(file=sent, purpose=PURPOSE).id

        found = _find(look, GRACE if known.get("intent") else 0.0, patience)
        while found is None:
            journal.note_file(base_url, sha256, id=None, intent=time.time())
            _, found = patience.attempt("upload the rows", upload)
            found = found or _find(look, GRACE, patience)
        journal.note_file(base_url, sha256, id=found, intent=None)
        return found
    finally:
        lock.release()


def find_file(client: openai.OpenAI, sha256: str, patience: Patience) -> str | None:
    """Return the id of the file of that hash at the service; None where there is none.

    Args:
        client: of the service.
        sha256: of the bytes.
        patience: with outages.
    """
    name = file_name(sha256)

    def look() -> list[str]:
        listed = client.files.list(purpose=PURPOSE, limit=1000)
        return [one.id for one in listed if one.filename == name and one.status != "error"]

    found = patience.ask("list the files", look)
    return found[-1] if found else None


def start_job(
    client: openai.OpenAI, job: JobFolder, config: OpenAIConfig, files: tuple[str, str], patience: Patience
) -> str:
    """Return the id of this job at the service; it is started where it is not there.

    Args:
        client: of the service.
        job: its folder, whose record has the intent.
        config: what is asked for.
        files: ids of the training and the validation file; "" for none.
        patience: with outages.

    Raises:
        StudioError: the service refuses it.
    """
    token = token_of(job, config)
    asked = request_of(config, files) | {"metadata": {TOKEN: token}}
    before = read_record(job).intent
    since = before or update_record(job, intent=time.time()).intent or 0.0
    create: Any = client.fine_tuning.jobs.create

    def look() -> str | None:
        return find_job_of(client, token, files[0], config.name, since, patience)

    def begin() -> str:
        return str(create(**asked).id)

    found = None if before is None else _find(look, GRACE, patience)
    while found is None:
        _, found = patience.attempt("start the job", begin)
        found = found or _find(look, GRACE, patience)
    return found


def token_of(job: JobFolder, config: OpenAIConfig) -> str:
    """What a job is known by at the service, before it has an id there."""
    return f"{config.key[:40]}.{job.id}"[:512]


def find_job_of(
    client: openai.OpenAI, token: str, training_file: str, model: str, since: float, patience: Patience
) -> str | None:
    """Return the id of the job of that token; None where there is none.

    Args:
        client: of the service.
        token: in its metadata.
        training_file: id of its file, by which it is known where a service keeps no metadata.
        model: name of its base, for the same.
        since: Unix seconds before which it cannot have begun.
        patience: with outages.
    """

    def look() -> list[str]:
        found = []
        for one in client.fine_tuning.jobs.list(limit=100):
            created = one.created_at or since  # some services do not say it
            if created < since - _SKEW:
                break
            ours = (one.metadata or {}).get(TOKEN)
            same = ours is None and one.training_file == training_file and one.model == model
            if ours == token or (same and created >= since - 1):
                found.append(one.id)
        return found

    found = patience.ask("list the jobs", look)
    return found[-1] if found else None


def request_of(config: OpenAIConfig, files: tuple[str, str] = ("", "")) -> dict[str, Any]:
    """Return the body of the request that starts a job.

    Args:
        config: what is asked for.
        files: ids of the training and the validation file; "" for none.
    """
    names = [
        "n_epochs",
        "batch_size",
        "learning_rate_multiplier",
        *(["beta"] if KINDS[config.method] == "pairs" else []),
    ]
    chosen = {name: getattr(config, name) for name in names}
    method: dict[str, Any] = {"hyperparameters": {name: one for name, one in chosen.items() if one != "auto"}}
    if config.method == "reinforcement":
        method["grader"] = json.loads(config.grader or "{}")
    body: dict[str, Any] = {"model": config.name, "method": {"type": config.method, config.method: method}}
    given = {"training_file": files[0], "validation_file": files[1], "suffix": config.suffix}
    body |= {name: value for name, value in given.items() if value}
    return body | ({} if config.seed is None else {"seed": config.seed})


def _is_there(client: openai.OpenAI, id: str, patience: Patience) -> bool:
    def look() -> bool:
        try:
            return client.files.retrieve(id).status != "error"
        except Exception as error:
            if is_missing(error):
                return False
            raise

    return patience.ask("look for the file", look)


def _find(look: Callable[[], str | None], seconds: float, patience: Patience) -> str | None:
    end = time.monotonic() + seconds
    while (found := look()) is None and time.monotonic() < end:
        patience.check()
        time.sleep(_LOOK)
    return found

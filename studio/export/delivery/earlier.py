"""An earlier export that made the same of the same run: for a delivery, its files are taken, not made once more.

So an upload that failed goes on where it was, and a checkpoint that was exported and looked at is uploaded as it is.
What is taken has the checksums of its report; the model of the run must be older than it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio.config.jobs import ExportConfig
from studio.config.load import build
from studio.errors import InputError
from studio.export.delivery.delivery import files_in
from studio.export.files import newest, parts_of, sha256
from studio.export.source import Source
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import read_json
from studio.jobs.store.finding import jobs_of_kind
from studio.reach import link_or_copy

# Options that decide what is made, whatever it is, and by what is made.
ALWAYS = ("evaluate", "checkpoint")
DECIDE = {"merged": ("dtype", "shard_gb"), "adapter": ("base",), "gguf": ("types", "shard_size", "imatrix")}
# What a report says of the making, beside its files.
TOLD = ("reference", "merge", "packed", "tokenizer", "modelfile", "imatrix", "curves", "base_model")
CARD = "README.md"


def same_export(context: JobContext, config: ExportConfig, source: Source) -> JobFolder | None:
    """Return the newest export that made the same and whose files answer like the trained model; None if there is none.

    Args:
        context: of the job that wants it.
        config: what is to be made: merged, adapter or gguf, wherever it is put.
        source: what is exported.
    """
    trained = newest(source.model)
    for job in jobs_of_kind(context.settings.jobs, "export"):
        state = job.state()
        if job.id == context.job.id or not state.final or not state.started or state.started < trained:
            continue
        if _asked(job, config) and _proven(_report(job), source.origin.id):
            return job
    return None


def take(context: JobContext, job: JobFolder, report: dict[str, Any]) -> bool:
    """Take the files of an earlier export, but for its card, and what its report says of them.

    Args:
        context: of the job that wants them.
        job: the earlier export.
        report: of the job that wants them.

    Returns:
        whether all are as they were signed; nothing is taken otherwise.
    """
    told, target = _report(job), context.job.exports
    parts = [part for file in told["files"] for part in parts_of(file)]
    parts += [told["imatrix"]] if told.get("imatrix") else []
    signed = {part["file"]: part["sha256"] for part in parts if Path(part["file"]).name != CARD}
    total, before = sum(part["bytes"] for part in parts), 0
    with context.phase("checksums", total, "bytes") as phase:
        for name, digest in signed.items():
            context.check_stop()
            path = job.exports / name
            if not path.is_file() or sha256(path, lambda done, before=before: phase.set(before + done)) != digest:  # type: ignore[misc]
                return False
            before += path.stat().st_size
    for name, path in files_in(job.exports).items():
        if path.name != CARD:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, target / name)
    report["files"] = told["files"]
    report |= {key: told[key] for key in TOLD if key in told}
    report["taken_from"] = job.id
    return True


def _asked(job: JobFolder, config: ExportConfig) -> bool:
    try:
        other = build(ExportConfig, job.request.config, job.id)
    except InputError:  # of another version, or edited
        return False
    keys = (*ALWAYS, *DECIDE.get(config.made, ()))
    return other.made == config.made and all(getattr(other, key) == getattr(config, key) for key in keys)


def _report(job: JobFolder) -> dict[str, Any]:
    try:
        found = read_json(job.report / "export.json")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _proven(report: dict[str, Any], origin: str) -> bool:
    files = report.get("files") or []
    return report.get("run") == origin and bool(files) and all(one.get("verdict") != "differs" for one in files)

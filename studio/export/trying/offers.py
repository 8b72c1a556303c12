"""What a finished export can be tried with: which server takes it, what that is told, or why it cannot be.

Everything comes from the job's own folder and from the run that it names; nothing of it from a request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.config.model import ModelConfig
from studio.errors import InputError
from studio.export.card import unserved
from studio.export.gguf.checkpoint import own_dtype, read_object
from studio.export.origins.find import Found, find
from studio.export.serving.servers import VLLM_RANKS, Served
from studio.export.trying.programs import PROGRAMS, Program, Tried, command_of
from studio.jobs import JobFolder
from studio.jobs.store.files import read_json
from studio.models.inspect.adapters import adapter_config, highest_rank
from studio.models.inspect.shape import longest_context
from studio.settings import Settings

# More is seldom needed to try a model, and takes memory at once.
USUAL_CONTEXT = 4096


@dataclass(frozen=True)
class Offer:
    """One server for one export.

    Attributes:
        server: which.
        served: what it is told.
        path: folder or file that it serves.
        command: how it is started, up to that.
    """

    server: Tried
    served: Served
    path: Path
    command: list[str]

    @property
    def program(self) -> Program:
        """The server's line of the table."""
        return PROGRAMS[self.server]


def servers_for(job: JobFolder) -> list[Tried]:
    """The servers that could take what an export made, whether they are installed or not; [] where none could."""
    entry = _entry(_report(job))
    if entry is None or entry["type"] == "gguf-lora":  # which answers only beside its base model's GGUF
        return []
    return ["vllm"] if entry.get("parts") else ["llama-server"]


def offer(job: JobFolder, server: Tried, settings: Settings) -> Offer:
    """Return how a server is started with an export.

    Args:
        job: the export.
        server: which server.
        settings: of the home, and where the server is.

    Raises:
        InputError: it cannot be; the sentence says why.
    """
    report = _report(job)
    entry, title = _entry(report), PROGRAMS[server].title
    if job.request.kind != "export" or entry is None:
        raise InputError(
            f"it has made nothing yet (it is {job.state().status})", where=job.id, fix="Wait until it is done"
        )
    if server not in servers_for(job):
        fits = servers_for(job)
        fix = f"Use --with {fits[0]}" if fits else "Chat with the run instead"
        raise InputError(f"{title} cannot load what this export made ({entry['type']})", where=job.id, fix=fix)
    if entry["verdict"] == "differs":
        raise InputError(
            f"{entry['file']} differs from {report.get('compared_with', 'the trained model')}",
            where=job.id,
            fix="The report says how; export it again",
        )
    path = job.exports / Path(entry["file"]).name
    if not path.exists():
        raise InputError(f"{entry['file']} is no longer there", where=str(job.exports), fix="Export the run again")
    command = command_of(PROGRAMS[server], settings)
    return Offer(server, _served(job, server, report, entry, path, settings), path, command)


def _served(
    job: JobFolder, server: Tried, report: dict[str, Any], entry: dict[str, Any], path: Path, settings: Settings
) -> Served:
    name = re.sub(r"[^\w.-]+", "-", str(report.get("name") or path.stem), flags=re.ASCII).strip("-.") or job.id
    base = _base(report, settings)
    if entry["type"] != "adapter":
        weights = path if path.is_dir() else base
        return Served(server, name, path.name, "", entry.get("dtype", ""), _context(job, weights))
    config = adapter_config(path) or {}
    rank, reason = highest_rank(config), unserved(config)
    if reason or rank > VLLM_RANKS[-1]:
        reason = reason or f"rank {rank}"
        raise InputError(f"vLLM cannot serve an adapter with {reason}", where=job.id, fix="Export it to vllm as merged")
    if base is None:
        raise InputError(
            "the adapter's base model is not on this machine", where=job.id, fix="Export it to vllm as merged"
        )
    return Served(server, name, path.name, str(base), own_dtype(base), _context(job, base), rank)


def _context(job: JobFolder, weights: Path | None) -> int:
    asked = job.request.config.get("context")
    if isinstance(asked, int):
        return asked
    readable = longest_context(read_object(weights / "config.json"), ModelConfig()) if weights is not None else None
    return min(readable or USUAL_CONTEXT, USUAL_CONTEXT)


def _base(report: dict[str, Any], settings: Settings) -> Path | None:
    """Folder of the base model of what was exported; None where either is gone."""
    try:
        found = find(str(report.get("run")), settings)
    except InputError:
        return None
    known = found.origin.base_model if isinstance(found, Found) else found.environment().get("base_model") or {}
    folder = Path(str(known.get("path") or ""))
    return folder if folder.is_absolute() and (folder / "config.json").is_file() else None


def _entry(report: dict[str, Any]) -> dict[str, Any] | None:
    """The file that is served: the first that answers like the trained model, or else the first."""
    files: list[dict[str, Any]] = report.get("files") or []
    return next((one for one in files if one["verdict"] != "differs"), files[0] if files else None)


def _report(job: JobFolder) -> dict[str, Any]:
    found = read_json(job.report / "export.json")
    return found if isinstance(found, dict) else {}

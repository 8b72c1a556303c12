"""`studio chat RUN|MODEL|GGUF --prompt TEXT`: from a name to a target, and from a question to a whole answer.

A run wins over a model of the same name. The page uses `resolve_target` too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studio.chat.client import AnswerStats, Messages, stream
from studio.chat.manager import ChatManager
from studio.chat.target import Target
from studio.config.jobs import is_model_file, only_adapter
from studio.config.model import EMBEDDED_MODEL
from studio.errors import InputError
from studio.foreign import as_path
from studio.jobs.store.files import read_json
from studio.jobs.store.finding import find_job
from studio.jobs.store.folder import JobFolder
from studio.jobs.store.request import ANSWERING_KINDS, ELSEWHERE_KINDS
from studio.models.catalog.names import resolve_model
from studio.remote.record import read_record
from studio.settings import Settings


@dataclass(frozen=True)
class Answer:
    """A complete answer: which model id gave which text, and its figures."""

    model: str
    text: str
    stats: AnswerStats

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        return {"model": self.model, "text": self.text, **asdict(self.stats)}


def resolve_target(name: str, settings: Settings) -> Target:
    """Find what a person means by a name.

    Tried in this order: a path that exists (GGUF file, job folder, adapter, checkpoint), a job's id or name, a
    known model or Hub id.

    Raises:
        InputError: nothing fits, or what fits has nothing to chat with.
    """
    path = as_path(name)
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise InputError("there is no such GGUF file", where=str(path))
        return gguf_target(path)
    if path.is_dir():
        if (path / "job.yaml").is_file():
            return job_target(JobFolder(path.absolute()), settings)
        if (path / "adapter_config.json").is_file():
            return adapter_target(path.absolute(), settings)
    try:
        job = _find_job(name, settings)
    except InputError as missing_job:
        if name != EMBEDDED_MODEL and not path.exists() and "/" not in name:
            raise InputError(f"there is no run, model or GGUF file '{name}'", fix=missing_job.fix) from None
        return Target("model", name, model=resolve_model(name, settings).path)
    return job_target(job, settings)


def gguf_target(file: Path) -> Target:
    """The target of a GGUF file."""
    return Target("gguf", file.name, gguf=file.absolute())


def adapter_target(folder: Path, settings: Settings) -> Target:
    """The target of a PEFT adapter that is no job of ours; its config names the base.

    Raises:
        InputError: its base is not here.
    """
    config = read_json(folder / "adapter_config.json") or {}
    base = config.get("base_model_name_or_path")
    if not base:
        raise InputError("adapter_config.json has no base model", where=str(folder))
    return Target("run", folder.name, model=resolve_model(str(base), settings).path, adapter=folder)


def job_target(job: JobFolder, settings: Settings) -> Target:
    """The target of a job: a run's result beside its base, or the only thing that an export made.

    Raises:
        InputError: the job has made nothing to chat with yet.
    """
    request = job.request
    if request.kind == "evaluate":
        return job_target(find_job(settings.jobs, str(request.config["run"]), ANSWERING_KINDS), settings)
    if request.kind in ELSEWHERE_KINDS:
        record = read_record(job)
        if not record.tuned:
            raise InputError(
                f"its model is not ready (it is {record.status or job.state().status})", where=job.id,
                fix="Wait until the job is completed",
            )  # fmt: skip
        return Target("remote", request.name, base_url=record.base_url, there=tuple(record.models().items()))
    if request.kind == "export":
        if only_adapter(request.config):
            raise InputError(
                "it is an adapter, which cannot answer on its own", where=job.id, fix="Chat with the run instead"
            )
        checkpoints = [config.parent for config in sorted(job.exports.glob("*/config.json"))]
        models = [file for file in sorted(job.exports.glob("*.gguf")) if is_model_file(file.name)]
        files = [*models, *checkpoints]
        if len(files) == 1:
            return Target("model", files[0].name, model=files[0]) if checkpoints else gguf_target(files[0])
        what = f"it has {len(files)} files" if files else f"it has no files (it is {job.state().status})"
        raise InputError(what, where=job.id, fix=f"Give one of {', '.join(map(str, files))}" if files else "")
    if job.scores:
        raise InputError(
            "this run trained a reward model, which scores completions and cannot generate",
            where=job.id,
            fix="Chat with a run of another method",
        )
    adapter = (job.model / "adapter_config.json").is_file()
    if not adapter and not (job.model / "config.json").is_file():
        raise InputError(
            f"this run has no model to chat with (it is {job.state().status})",
            where=job.id,
            fix="Wait until it is completed, or chat with its base model",
        )
    asked = job.training.get("model") or {}
    return Target(
        "run",
        request.name,
        model=_base_folder(job, asked, settings),
        adapter=job.model if adapter else None,
        tuned=None if adapter else job.model,
        dtype=asked.get("dtype", "auto"),
        trust_remote_code=bool(asked.get("trust_remote_code", False)),
    )


def ask(
    manager: ChatManager,
    target: Target,
    messages: Messages,
    *,
    model: str | None = None,
    on_text: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Answer:
    """Load the target if it is not, ask, and return the whole answer.

    Args:
        manager: holds the server; the caller closes it.
        target: what answers.
        messages: [{"role", "content"}, ...].
        model: base, tuned, gguf, or step-N of a service; None for the tuned model where there is one.
        on_text: gets each piece as it comes.
        options: temperature, top_p, max_tokens, seed, stop.

    Raises:
        InputError: the target has no such model, or the question is refused.
        StudioError: loading or answering failed.
    """
    chosen = model or target.answering
    if chosen not in target.models:
        raise InputError(f"'{target.name}' has no model '{chosen}'", fix=f"Choose {_choices(target.models)}")
    handle = manager.open(target)
    pieces: list[str] = []
    figures: list[AnswerStats] = []
    for piece in stream(handle, chosen, messages, on_end=figures.append, **options):
        pieces.append(piece)
        on_text(piece)
    return Answer(chosen, "".join(pieces), figures[0])


def _find_job(name: str, settings: Settings) -> JobFolder:
    """The run of that name before other jobs that carry it, such as its evaluation."""
    try:
        return find_job(settings.jobs, name, ANSWERING_KINDS)
    except InputError:
        return find_job(settings.jobs, name)


def _base_folder(job: JobFolder, asked: dict[str, Any], settings: Settings) -> Path:
    """Where the run's base lies: as recorded, or found again by name when the folder came from elsewhere."""
    recorded = (job.environment().get("base_model") or {}).get("path")
    if recorded and (Path(recorded) / "config.json").is_file():
        return Path(recorded)
    return resolve_model(
        str(asked.get("path") or EMBEDDED_MODEL), settings, revision=str(asked.get("revision") or "main")
    ).path


def _choices(models: Sequence[str]) -> str:
    return " or ".join(models)

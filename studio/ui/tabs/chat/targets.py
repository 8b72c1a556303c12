"""What a chat pane can talk to: the base model of a run, the run itself, what it was exported to.

The page names a target by a key and the key is looked up among the targets that exist, so no path comes from
the browser. Also here: what a conversation with a run starts from (its system prompt, three of its questions).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from studio.chat.client import ChatHandle
from studio.chat.target import Target
from studio.config import RunConfig
from studio.config.data import DataSource
from studio.config.jobs import DEMO_TEST, is_model_file
from studio.data.files.datafiles import read_rows, resolve_path
from studio.data.formats.answers import split_prompt
from studio.data.readers.kinds import kind_by_name
from studio.data.sources.locate import of_file
from studio.data.sources.reading import Reading, source_named
from studio.errors import InputError, StudioError
from studio.jobs import JobFolder
from studio.remote.record import read_record
from studio.settings import Settings
from studio.ui.components.selected import exports_of, has_model, is_elsewhere, jobs_of, selected_model, selected_run
from studio.ui.server.services import Services

EXAMPLES = 3
DEMO_FOLDER = "demo"


@dataclass(frozen=True)
class ChatTarget:
    """One thing to talk to.

    Attributes:
        key: what the page keeps: "base", "tuned", "gguf/JOB/FILE", "merged/JOB/FOLDER" or "served/JOB".
        title: name of the model, run or file.
        kind: "base", "tuned", "GGUF", or on which server.
        model_id: model that is asked for in the chat server's API: "base", "tuned", "gguf", or "step-N" of a service.
        run: the finished run that is loaded (base and tuned share its server), None for a plain model or a file.
        gguf: the file, None for a checkpoint.
        model: path or name of a plain model, "" otherwise.
        handle: the server of another maker that has it loaded already; None where one of ours loads it.
    """

    key: str
    title: str
    kind: str
    model_id: str
    run: JobFolder | None = None
    gguf: Path | None = None
    model: str = ""
    handle: ChatHandle | None = None

    @property
    def label(self) -> str:
        """What the choice is called in the list."""
        return f"{self.title} · {self.kind}"


def targets_of(services: Services, run: JobFolder | None) -> list[ChatTarget]:
    """Return what can be talked to; without a finished run that is the default base model alone."""
    if run is not None and is_elsewhere(run) and has_model(run):
        kinds = {"base": "base", "tuned": "tuned"}
        models = read_record(run).models()
        order = [one for one in ("base", "tuned", *models) if one in models]
        return [
            ChatTarget(key, run.name if key == "tuned" else models["base"] if key == "base" else key.replace("-", " "),
                       f"{kinds.get(key, 'checkpoint')} at OpenAI", key, run=run)
            for key in dict.fromkeys(order)
        ]  # fmt: skip
    base = short_name(base_name(run))
    if run is None or not has_model(run):
        return [ChatTarget("base", base, "base", "base", model=_asked_model(run))]
    targets = [
        ChatTarget("base", base, "base", "base", run=run),
        ChatTarget("tuned", run.name, "tuned", "tuned", run=run),
    ]
    return [*targets, *_exported(services, jobs_of(services, run, "export"))]


def _exported(services: Services, jobs: list[JobFolder]) -> list[ChatTarget]:
    """What exports made that answers by itself, and the servers with which they are tried."""
    targets = []
    for job in jobs:
        targets += tried(services, job)
        if job.request.config.get("to") == "gguf-lora":
            continue  # it is no model by itself
        for path in sorted(job.exports.iterdir()) if job.exports.is_dir() else []:
            key = export_key(job.id, path.name)
            if is_model_file(path.name):
                targets.append(ChatTarget(key, path.name, "GGUF", "gguf", gguf=path))
            elif (path / "config.json").is_file():
                targets.append(ChatTarget(key, path.name, "merged", "base", model=str(path)))
    return targets


def tried(services: Services, job: JobFolder) -> list[ChatTarget]:
    """The server that was started to try an export, while it answers."""
    trial = services.trials.of(job.id)
    if trial is None or trial.state != "ready":
        return []
    served, title = trial.offer.served, trial.offer.program.title
    handle = ChatHandle(trial.url, trial.key or "", (served.asked,), trial.process.pid)
    return [ChatTarget(served_key(job.id), served.path, f"on {title}", served.asked, handle=handle)]


def served_key(job_id: str) -> str:
    """Key of an export on the server with which it is tried."""
    return f"served/{job_id}"


def targets_for(services: Services, job_id: str) -> list[ChatTarget]:
    """Return what can be talked to where a job is selected: of its run, or of the model of which it is an export.

    Args:
        services: of the page.
        job_id: of the selected job; empty for none.
    """
    model = selected_model(services.settings, job_id)
    if not model:
        return targets_of(services, selected_run(services.settings, job_id))
    return [
        ChatTarget("base", short_name(model), "base", "base", model=model),
        *_exported(services, exports_of(services, model)),
    ]


def export_key(job_id: str, name: str) -> str:
    """Key of something that was exported; it is looked up, never joined to a path.

    Args:
        job_id: of the export.
        name: of the file or folder.
    """
    return f"{'gguf' if name.endswith('.gguf') else 'merged'}/{job_id}/{name}"


def find_target(targets: list[ChatTarget], key: str) -> ChatTarget:
    """Return the target of a key.

    Raises:
        InputError: it is not one of them any more.
    """
    for target in targets:
        if target.key == key:
            return target
    raise InputError("this model no longer exists", fix="Pick another one above the pane")


def settled(targets: list[ChatTarget], left: str | None, right: str | None) -> tuple[str, str]:
    """Return what the two panes talk to: of a key that is no target, the first one at the left, the next at the right.

    Args:
        targets: what can be talked to; at least one.
        left, right: the wanted keys; None or empty for none.

    Returns:
        Two keys; that of the right is "" where there is one target only.
    """
    known = [target.key for target in targets]
    return left if left in known else known[0], right if right in known else "".join(known[1:2])


def base_name(run: JobFolder | None) -> str:
    """Name of the base model: as the run's environment has it, or as it was asked for."""
    recorded = run.environment().get("base_model", {}) if run is not None else {}
    return str(recorded.get("name") or _asked_model(run))


def server_target(settings: Settings, target: ChatTarget) -> Target:
    """Return what a chat server has to load; may prepare or fetch a model, so not for a request's thread.

    Raises:
        InputError: a part of it is missing.
    """
    # Imported here: the catalogue is wanted at the first question, not when the page starts.
    from studio.chat.ask import gguf_target, job_target, resolve_target

    if target.gguf is not None:
        return gguf_target(target.gguf)
    if target.run is not None:
        return job_target(target.run, settings)
    return resolve_target(target.model, settings)


def short_name(name: str) -> str:
    """Last part of a path or of a Hub id; the embedded model's name is written as its makers do."""
    last = name.rstrip("/").rsplit("/", 1)[-1]
    return "SmolLM2-135M-Instruct" if last.lower() == "smollm2-135m-instruct" else last


@dataclass(frozen=True)
class Opening:
    """What a conversation starts from.

    Attributes:
        system: system prompt of the first training row, "" when it has none.
        questions: user texts of rows that were not trained on where there are such.
        problem: why the rows could not be read, "" when they could.
    """

    system: str
    questions: tuple[str, ...]
    problem: str = ""


def opening_of(settings: Settings, run: JobFolder | None) -> Opening:
    """Read how a conversation with a run starts, from the data that it was trained on."""
    config = _config(run)
    if run is not None and is_elsewhere(run):
        path = str(run.request.config.get("data") or "")
        if not path:  # it was started elsewhere, with rows that are not here
            return Opening("", ())
        config = RunConfig.model_validate({"data": {"train": [{"path": path}]}})
    first, data = config.data.train[0].path, config.data.model_dump()
    try:
        trained = _prompts(settings, source_named(data, first), 1)
        prompts = _prompts(settings, source_named(data, _held_out(config) or first), EXAMPLES)
    except (StudioError, OSError) as error:
        return Opening("", (), str(error))
    system = next((m["content"] for prompt in trained for m in prompt if m["role"] == "system"), "")
    questions = tuple(prompt[-1]["content"] for prompt in prompts if prompt)
    return Opening(system, questions)


def _held_out(config: RunConfig) -> str | None:
    if Path(config.data.train[0].path).parts[:1] == (DEMO_FOLDER,):
        return DEMO_TEST
    validation = config.data.validation
    return validation if isinstance(validation, str) else None


def _prompts(settings: Settings, source: DataSource, count: int) -> list[list[dict[str, str]]]:
    """Messages before the answer, for the first rows that are conversations."""
    file = resolve_path(source.path, settings, confined=True)
    if kind_by_name(file.name) != "json":
        return []  # other kinds are read by the data worker, not in the web process
    rows = list(islice(read_rows(file), count))
    reading = Reading(source, of_file(file), "answers", turns=True)
    kind, _ = reading.format(rows[:1])
    found = []
    for number, row in rows:
        example = reading.example(row, number, kind)
        if example.messages is None:
            return []
        prompt, _ = split_prompt(example)
        found.append(prompt if isinstance(prompt, list) else [])
    return found


def _config(run: JobFolder | None) -> RunConfig:
    """The run's config; the default one (the demo) without a run or when another version wrote it."""
    try:
        return RunConfig.model_validate(run.training) if run is not None else RunConfig()
    except ValueError:
        return RunConfig()


def _asked_model(run: JobFolder | None) -> str:
    section: Any = run.training.get("model") if run is not None else None
    asked = section.get("path") if isinstance(section, dict) else None
    return str(asked or RunConfig().model.path)

"""Where the models of a recipe lie: a run's result, one of its checkpoints, a folder, or a model of the Hub.

A run wins over a folder of the same name; a folder of the working directory is written with a slash (./model).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from studio.config.model import EMBEDDED_MODEL
from studio.errors import InputError
from studio.export.source import open_source
from studio.jobs import JobFolder, find_job
from studio.jobs.actions.branching import find_checkpoint
from studio.jobs.store.files import read_json
from studio.jobs.store.request import MODEL_KINDS
from studio.models.catalog.child import Progress
from studio.models.catalog.hub import hub_folder
from studio.models.catalog.hubaccess import is_hub_id
from studio.models.catalog.names import ModelRef, check_folder, confine, confine_folder, require_path, resolve_model
from studio.models.inspect.adapters import adapter_config
from studio.models.inspect.headers import TOKENIZERS
from studio.reach import allowed, page
from studio.settings import Settings

Kind = Literal["run", "checkpoint", "folder", "hub", "embedded"]
_WHERE = "recipe"
_OF_A_RUN = "model.path"  # the place that is named where the model of a training cannot be used


@dataclass(frozen=True)
class Parent:
    """A model that is merged.

    Attributes:
        word: as the recipe names it.
        kind: what it is.
        id: what it was at the time: a run's id, a folder's path, a Hub id with its commit.
        weights: folder of whole weights; with an adapter, those that it is put on.
        adapter: folder of the adapter; None for a whole model.
        tokenizer: folder of the tokenizer that it answers with.
        base: what it was trained from, or itself: name, path and source, as a run records it.
        run: the job that made it; None for a model from elsewhere.
    """

    word: str
    kind: Kind
    id: str
    weights: Path
    adapter: Path | None
    tokenizer: Path
    base: dict[str, str]
    run: JobFolder | None = None

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return self.run.name if self.run is not None and self.kind == "run" else self.word


def find_parent(
    word: str, settings: Settings, *, meant: str = "", fetch: bool = False, on_progress: Progress | None = None
) -> Parent:
    """Find a model of a recipe.

    Args:
        word: as the recipe names it.
        settings: whose runs and models.
        meant: what the word stood for when the merge was asked for; "" to look it up now.
        fetch: download a model of the Hub that is not here yet, and make the embedded one.
        on_progress: told how far that is.

    Raises:
        InputError: there is no such model, or it cannot be merged.
        StudioError: no network, or no space.
    """
    try:
        return _found(word, meant or word.strip(), settings, fetch, on_progress)
    except InputError as error:
        if error.where != _OF_A_RUN:
            raise
        raise InputError(error.what, where=_WHERE, fix=error.fix) from error


def _found(word: str, text: str, settings: Settings, fetch: bool, on_progress: Progress | None) -> Parent:
    path = require_path(text, _WHERE).expanduser()
    reader = page()
    if reader is not None and (path.is_absolute() or "/" in text) and not is_hub_id(text.partition("@")[0]):
        confine(path, reader)
    if ("/" in text or path.is_absolute()) and (reader is None or allowed(path, reader)) and path.is_dir():
        if (path / "job.yaml").is_file():
            return _of_run(word, str(path.absolute()), settings)
        return _of_folder(word, path.absolute(), settings)
    run, at, step = text.rpartition("@")
    if at and step.isascii() and step.isdigit() and "/" not in run:
        return _of_checkpoint(word, run, int(step), settings)
    if text != EMBEDDED_MODEL and "/" not in text:
        try:
            return _of_run(word, text, settings)
        except _NoRunError as error:
            if path.is_dir():
                error.fix = f"Write ./{text} for the folder with this name"
            raise
    return _of_model(word, text, settings, fetch, on_progress)


class _NoRunError(InputError):
    """There is no run of a name."""


def _of_run(word: str, wanted: str, settings: Settings) -> Parent:
    try:
        run = find_job(settings.jobs, wanted, MODEL_KINDS)
    except InputError as error:
        raise _NoRunError(f"there is no run or model '{word:.100}'", where=_WHERE, fix=error.fix) from error
    source = open_source(settings, str(run.path))
    tokenizer = source.model if _has_tokenizer(source.model) else source.weights
    return Parent(word, "run", run.id, source.weights, source.adapter, tokenizer, _base_of(run, source.weights), run)


def _of_checkpoint(word: str, wanted: str, step: int, settings: Settings) -> Parent:
    run = find_job(settings.jobs, wanted, "train")
    if run.scores:
        raise InputError(f"'{run.name}' trains a reward model, which cannot generate", where=_WHERE, fix="Remove it")
    folder = find_checkpoint(run, step).path
    base = _base_of(run, folder)
    tokenizer = next((one for one in (run.model, folder, Path(base["path"])) if _has_tokenizer(one)), folder)
    name = f"{run.id}@{step}"
    if adapter_config(folder) is not None:
        return Parent(word, "checkpoint", name, check_folder(Path(base["path"])), folder, tokenizer, base, run)
    return Parent(word, "checkpoint", name, folder, None, tokenizer, base, run)


def _of_folder(word: str, folder: Path, settings: Settings) -> Parent:
    if page() is not None:
        confine_folder(folder, settings)
    config = adapter_config(folder)
    if config is None:
        check_folder(folder)
        base = {"name": str(folder), "path": str(folder), "source": "local"}
        return Parent(word, "folder", str(folder), folder, None, folder, base)
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise InputError("its adapter_config.json has no base model", where=str(folder), fix="Add it there")
    found = resolve_model(named, settings, fetch=False)
    if page() is not None and found.source == "local":
        confine_folder(found.path, settings)
    tokenizer = folder if _has_tokenizer(folder) else found.path
    return Parent(word, "folder", str(folder), found.path, folder, tokenizer, _recorded(found))


def _of_model(word: str, text: str, settings: Settings, fetch: bool, on_progress: Progress | None) -> Parent:
    name, _, revision = text.partition("@")
    if not (name == EMBEDDED_MODEL or is_hub_id(name)):
        fix = "Name a run, the folder of a checkpoint, or a Hub id"
        if "+" in name:  # mergekit's MODEL+ADAPTER
            fix = "Name an adapter by its folder alone; its adapter_config.json has the base model"
        raise InputError(
            f"there is no folder '{word:.100}', and it is neither a run nor of the form owner/name", where=_WHERE,
            fix=fix,
        )  # fmt: skip
    found = resolve_model(name, settings, revision=revision or "main", fetch=fetch, on_progress=on_progress)
    if found.source == "embedded":
        return Parent(word, "embedded", name, found.path, None, found.path, _recorded(found))
    marked = read_json(hub_folder(settings, name, revision or "main") / "studio.json") or {}
    known = f"{name}@{marked.get('commit') or revision or 'main'}"
    return Parent(word, "hub", known, found.path, None, found.path, _recorded(found))


def _base_of(run: JobFolder, otherwise: Path) -> dict[str, str]:
    recorded: dict[str, Any] = run.environment().get("base_model") or {}
    path = str(recorded.get("path") or otherwise)
    return {
        "name": str(recorded.get("name") or path), "path": path, "source": str(recorded.get("source") or "local"),
    }  # fmt: skip


def _recorded(found: ModelRef) -> dict[str, str]:
    return {"name": found.name, "path": str(found.path), "source": found.source}


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZERS)

"""What a person means by the name of something to export: a run, a model's folder, an adapter's, or a model's name.

A run wins over a folder of the same name; a folder of the working directory is written with a slash (./model). Nothing
is downloaded. What cannot be exported is refused here, with what the folder holds instead, before a job is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.config.model import EMBEDDED_MODEL
from studio.errors import InputError
from studio.export.origins.model import ModelOrigin
from studio.foreign import as_path
from studio.jobs import JobFolder, find_job
from studio.jobs.store.request import MODEL_KINDS
from studio.models.catalog.hub import hub_name
from studio.models.catalog.hubaccess import is_hub_id
from studio.models.catalog.names import check_folder, confine, confine_folder, require_path, resolve_model
from studio.models.inspect.adapters import WEIGHTS, adapter_config, require_adapter
from studio.models.inspect.headers import TOKENIZERS, read_config
from studio.models.inspect.shape import ModelShape
from studio.reach import page
from studio.settings import Settings

WHERE = "run"
_WRITES = ("ForCausalLM", "LMHeadModel")
_SCORES = "ForSequenceClassification"
_CACHED = "models--"  # folders of huggingface_hub's own cache: models--owner--name/snapshots/COMMIT


@dataclass(frozen=True)
class Found:
    """A model from elsewhere that is whole and can be exported.

    Attributes:
        origin: what it is.
        base: folder of the model itself, or of the adapter's base model.
        adapter: folder of the adapter; None for a whole model.
        tokenizer: folder of its tokenizer.
    """

    origin: ModelOrigin
    base: Path
    adapter: Path | None
    tokenizer: Path


def find(wanted: str, settings: Settings) -> JobFolder | Found:
    """Find what is to be exported.

    Args:
        wanted: a run's id, name or folder; the folder of a model or adapter; a Hub id whose model is on this machine,
            or that with @ and a revision; the embedded model's name,
            which is prepared where that is still to be done.
        settings: whose runs and models.

    Raises:
        InputError: there is no such thing, the page may not read it, or it cannot be exported.
    """
    text = wanted.strip()
    path = as_path(require_path(text, WHERE))
    name, _, revision = text.partition("@")
    if text == EMBEDDED_MODEL:
        return _of_name(text, "main", settings)
    if path.is_absolute() or "/" in text:
        reader = page()
        if reader is not None and not is_hub_id(name):
            confine(path, reader)
        here = reader is None or not is_hub_id(name)
        if here and (path / "job.yaml").is_file():
            return find_job(settings.jobs, str(path.absolute()), MODEL_KINDS)
        if here and path.exists():
            return _of_folder(path.absolute(), settings)
        if is_hub_id(name):
            return _of_name(name, revision or "main", settings)
        raise InputError(
            f"there is no folder '{text:.200}'", where=WHERE, fix="Give a run, a model's folder, or a Hub id"
        )
    try:
        return find_job(settings.jobs, text, MODEL_KINDS)
    except InputError as error:
        if not path.is_dir():
            raise
        raise InputError(error.what, where=WHERE, fix=f"Write ./{text} for the folder of this name") from error


def _of_folder(folder: Path, settings: Settings) -> Found:
    reader = page()
    if reader is not None:
        confine_folder(folder, reader)
    if folder.is_dir() and (config := adapter_config(folder)) is not None:
        return _of_adapter(folder, config, settings)
    _require_model(folder)
    hub = hub_name(folder) or _name_in_cache(folder)
    known = {"name": hub or str(folder), "path": str(folder), "source": "hub" if hub else "local"}
    return Found(ModelOrigin(str(folder), folder, known, adapter=False), folder, None, folder)


def _of_name(name: str, revision: str, settings: Settings) -> Found:
    try:
        found = resolve_model(name, settings, revision=revision, fetch=name == EMBEDDED_MODEL)
        folder, source = found.path, found.source
    except InputError as error:
        cached = _in_cache(name, revision) if name != EMBEDDED_MODEL else None
        if cached is None:
            fix = f"Download it: studio models download {name}"
            raise InputError(error.what, where=WHERE, fix=fix) from error
        folder, source = cached, "hub"
    _require_model(folder)
    id = name if revision == "main" else f"{name}@{revision}"
    known = {"name": name, "path": str(folder), "source": source}
    return Found(ModelOrigin(id, folder, known, adapter=False), folder, None, folder)


def _of_adapter(folder: Path, config: dict[str, Any], settings: Settings) -> Found:
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise InputError(
            "the adapter has only pickled weights (.bin), which can run code when loaded" if pickled
            else f"{WEIGHTS} is missing",
            where=str(folder), fix="Save it as .safetensors" if pickled else "Copy the adapter again",
        )  # fmt: skip
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named.strip():
        raise InputError("its adapter_config.json names no base model", where=str(folder), fix="Add it there")
    if page() is not None and not is_hub_id(named) and named != EMBEDDED_MODEL:
        confine_folder(named, settings)
    try:
        base = resolve_model(named, settings, revision=str(config.get("revision") or "main"), fetch=False)
        path, source = base.path, base.source
    except InputError as error:
        cached = _in_cache(named, "main") if is_hub_id(named) else None
        if cached is None:
            raise InputError(
                f"the adapter's base model '{named:.200}' is not on this machine", where=str(folder),
                fix=f"Download it: studio models download {named}" if is_hub_id(named)
                else "Put the model there, or correct base_model_name_or_path in adapter_config.json",
            ) from error  # fmt: skip
        path, source = cached, "hub"
    _require_model(path)
    if config.get("peft_type") == "LORA":
        require_adapter(folder, ModelShape.from_folder(path), WHERE)
    own = any((folder / name).is_file() for name in TOKENIZERS)
    known = {"name": named, "path": str(path), "source": source}
    return Found(ModelOrigin(str(folder), folder, known, adapter=True), path, folder, folder if own else path)


def _require_model(folder: Path) -> None:
    """Refuse what is no whole model that writes, by what it holds instead.

    Raises:
        InputError: it is such a one.
    """
    if folder.is_file():
        gguf = folder.suffix == ".gguf"
        raise InputError(
            f"{folder.name} is a GGUF file already" if gguf else f"{folder.name} is a file, and no model's folder",
            where=str(folder), fix="Give the folder of the Hugging Face checkpoint",
        )  # fmt: skip
    try:
        check_folder(folder)
    except InputError as error:
        where = error.where if error.where != "model.path" else WHERE
        raise InputError(error.what, where=where, fix=error.fix.replace(" in model.path", "")) from error
    raw = read_config(folder)
    names = raw.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    if name.endswith(_SCORES):
        raise InputError(
            "it is a model that scores texts and cannot generate", where=str(folder), fix="Choose one that writes"
        )
    if raw.get("is_encoder_decoder") or (name and not name.endswith(_WRITES)):
        raise InputError(
            f"{name or 'it'} is not a causal language model", where=str(folder),
            fix="Choose one whose name ends in ForCausalLM",
        )  # fmt: skip
    quantized = raw.get("quantization_config")
    if isinstance(quantized, dict):
        kind = str(quantized.get("quant_method", "unknown format"))
        raise InputError(
            f"its weights are already quantized ({kind:.40})", where=str(folder),
            fix="Export the model that it was made from",
        )  # fmt: skip


def _name_in_cache(folder: Path) -> str:
    """The Hub id of a folder of huggingface_hub's own cache; "" for any other."""
    kept = folder.parent.parent.name
    name = kept.removeprefix(_CACHED).replace("--", "/", 1)
    return name if folder.parent.name == "snapshots" and kept.startswith(_CACHED) and is_hub_id(name) else ""


def _in_cache(name: str, revision: str) -> Path | None:
    """The folder of a model in huggingface_hub's own cache, which a page may not read; None where it is not there."""
    if page() is not None or not is_hub_id(name):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None

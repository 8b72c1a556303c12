"""Which models there are, and how a name in `model.path` becomes a folder that is known to be whole.

Three sources: the embedded model, a folder on this machine, the Hub. Making or fetching one happens in a child
process, so this module stays light enough for the page and a stop ends the work at once. A folder's files are
checked by their headers here; whether transformers knows the architecture is found out by the worker.
"""

from __future__ import annotations

import difflib
import itertools
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio import reach
from studio.config.model import EMBEDDED_MODEL
from studio.config.remote import PREFIX
from studio.errors import InputError
from studio.foreign import as_path, read_json_file, unusable_path
from studio.models.catalog import embedded, hub
from studio.models.catalog.child import Progress, run_child
from studio.models.catalog.hubaccess import is_hub_id
from studio.models.inspect.headers import TOKENIZERS, read_config, read_tensors, weight_files
from studio.models.inspect.shape import ModelShape
from studio.settings import Settings

Source = Literal["embedded", "local", "hub"]
_WHERE = "model.path"
logger = logging.getLogger("studio.models")
_CHILD = ("preparing the model", _WHERE)


@dataclass(frozen=True)
class ModelRef:
    """A model that is on this machine and whole: what was asked for, where it lies, where it came from."""

    name: str
    path: Path
    source: Source


@dataclass(frozen=True)
class ModelInfo:
    """One line of the list of models.

    Attributes:
        name: as `model.path` takes it.
        path, parameters: None for what is not here yet, or cannot be used.
        source: where it comes from.
        ready: whether it can be trained now.
        problem: why a folder with a config.json cannot be used; "" for all others.
    """

    name: str
    path: Path | None
    source: Source
    parameters: int | None
    ready: bool
    problem: str = ""


def resolve_model(
    path: str, settings: Settings, *, revision: str = "main", on_progress: Progress | None = None, fetch: bool = True
) -> ModelRef:
    """Find the model, making or fetching it when it is not here yet.

    Args:
        path: the embedded model's name, a folder (absolute, or relative to the working directory), or a Hub id.
            An existing folder wins over a Hub id of the same form.
        settings: where prepared and downloaded models lie.
        revision: branch, tag or commit of a Hub model.
        on_progress: told how far the making or fetching is. An exception of it stops the work.
        fetch: False to fail instead of making or fetching anything.

    Raises:
        InputError: there is no such model, or what is there cannot be trained; the sentence says why.
        StudioError: no network, no space, or no right to write.
    """
    text = path.strip()
    report = on_progress or (lambda name, done, total: None)
    if text == EMBEDDED_MODEL:
        return ModelRef(text, _embedded(settings, report, fetch), "embedded")
    folder = as_path(require_path(text, _WHERE))
    if folder.exists():
        return ModelRef(text, check_folder(folder.absolute()), "local")
    if not is_hub_id(text):
        raise _unknown(text, settings)
    target = hub.hub_folder(settings, text, revision)
    if hub.hub_name(target) is None:
        if not fetch:
            raise _absent(text, "Start the run, which downloads it, or give a checkpoint folder")
        run_child("studio.models.catalog.hub", [text, revision], settings, report, _CHILD)
    return ModelRef(text, check_folder(target), "hub")


def known_models(settings: Settings) -> list[ModelInfo]:
    """List the embedded model and everything under `settings.models`, the embedded one first, then by name."""
    ready = embedded.is_ready(settings)
    made = embedded.checkpoint_path(settings)
    found = [ModelInfo(EMBEDDED_MODEL, made if ready else None, "embedded", embedded.PARAMETERS, ready)]
    folders = sorted(settings.models.iterdir()) if settings.models.is_dir() else []
    for folder in folders:
        if folder.name.startswith(".") or folder == made or not folder.is_dir():
            continue
        name = hub.hub_name(folder)
        if name is None and folder.name.startswith("hub--"):
            name = folder.name.removeprefix("hub--").replace("--at--", "@").replace("--", "/")
            found.append(ModelInfo(name, None, "hub", None, False))
            continue
        source: Source = "hub" if name else "local"
        try:
            if not (folder / "config.json").is_file():
                continue  # Not a checkpoint: a person may keep other things here.
            parameters = ModelShape.from_folder(confine_folder(folder, settings)).parameters
            found.append(ModelInfo(name or str(folder), folder, source, parameters, True))
        except InputError as error:
            found.append(ModelInfo(name or str(folder), None, source, None, False, error.what))
        except Exception as error:  # one folder of a stranger must not take the list from the page
            logger.warning("%s cannot be read", folder, exc_info=error)
            problem = f"it cannot be read ({type(error).__name__})"
            found.append(ModelInfo(name or str(folder), None, source, None, False, problem))
    return found


def check_folder(folder: Path) -> Path:
    """Check that a folder holds a whole checkpoint that can be trained, and return it.

    Raises:
        InputError: it does not; the sentence says what it holds instead and what to give.
    """
    if folder.is_file():
        what = "is a GGUF file, which can be used in Chat but not trained" if folder.suffix == ".gguf" else "is a file"
        raise _refused(folder, what, "Give the folder of the original Hugging Face checkpoint")
    if not (folder / "config.json").is_file():
        raise _refused(folder, *_instead_of_config(folder))
    read_config(folder)
    if not weight_files(folder):
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
            raise _refused(
                folder,
                "has only pickled weights (.bin, .pt), which can run code when loaded",
                "Get the model as .safetensors; the studio loads no other format",
            )
        raise _refused(folder, "has a config.json but no .safetensors weights", "Copy or download the complete model")
    if not read_tensors(folder):
        raise _refused(folder, "has weight files without tensors", "Copy or download the model again")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise _refused(
            folder, "has no tokenizer (tokenizer.json)", "Copy the tokenizer files of the base model into the folder"
        )
    return folder


def require_path(path: str | Path, where: str = "") -> Path:
    """Return a path that was typed.

    Raises:
        InputError: no file can have it.
    """
    if reason := unusable_path(str(path)):
        raise InputError(
            f"'{str(path).encode(errors='replace').decode():.60}…' is not a path: {reason}", where=where,
            fix="Check the path",
        )  # fmt: skip
    return Path(path)


def confine(path: str | Path, settings: Settings) -> Path:
    """Return the real path of what the page named, if it lies in the studio's home or in an allowed root.

    Symbolic links are followed first, so a link cannot lead out. Commands of a terminal are not confined.

    Raises:
        InputError: it lies elsewhere.
    """
    given = require_path(path)
    real = reach.allowed(given, settings)
    if real is None:
        raise InputError(
            f"the page may not read '{given!s:.200}', which is outside the studio's folders",
            where=f"{given!s:.200}",
            fix=f"Start the studio with its folder in STUDIO_ROOTS to allow it, or copy it into {settings.home}",
        )
    return real


def confine_folder(path: str | Path, settings: Settings) -> Path:
    """Return the real path of a model's or adapter's folder that the page named, if all of it may be read.

    Raises:
        InputError: it lies elsewhere, or a link in it leads out.
    """
    folder = confine(path, settings)
    if not folder.is_dir():
        return folder
    for entry in itertools.chain(folder.iterdir(), folder.glob("*/*")):  # libraries read no deeper
        if entry.is_symlink() and reach.allowed(entry, settings) is None:
            raise InputError(
                f"{entry.name} in it is a link that points outside the studio's folders", where=str(folder),
                fix="Put the file itself there, or start the studio with a common parent folder in STUDIO_ROOTS",
            )  # fmt: skip
    return folder


def confine_model(path: str, settings: Settings) -> str:
    """Return what the page named as a model, if it is the embedded one, a Hub id, or a folder it may read.

    Raises:
        InputError: it is a folder elsewhere, or a link in it leads there.
    """
    text = path.strip()
    if text == EMBEDDED_MODEL or (is_hub_id(text) and not require_path(text, _WHERE).exists()):
        return text
    return str(confine_folder(require_path(text, _WHERE), settings))


def _embedded(settings: Settings, report: Progress, fetch: bool) -> Path:
    if not embedded.is_ready(settings):
        if not fetch:
            raise _absent(EMBEDDED_MODEL, "Start a run, which prepares it in half a minute")
        if "torch" in sys.modules:  # A worker: it needs torch anyway, so a second process would only cost time.
            return embedded.prepare(settings, report)
        run_child("studio.models.catalog.embedded", [], settings, report, _CHILD)
    return embedded.checkpoint_path(settings)


def _instead_of_config(folder: Path) -> tuple[str, str]:
    """What a folder without config.json is, and what to give instead."""
    if (folder / "adapter_config.json").is_file():
        try:
            base = read_json_file(folder / "adapter_config.json").get("base_model_name_or_path")
        except (OSError, ValueError, AttributeError, InputError):
            base = None
        return (
            "is an adapter, not a model",
            f"Use its base model ({base!s:.200})" if base else "Use its base model",
        )
    if any(folder.glob("*.gguf")):
        return "has only GGUF files, which cannot be trained", "Give the folder of the original Hugging Face checkpoint"
    names = reach.entries(folder) if folder.is_dir() else []
    inner = [name for name in names if (folder / name / "config.json").is_file()]
    if inner:
        return "has no config.json of its own", f"Use a folder inside it: {', '.join(inner[:5])}"
    return "has no config.json", "Give the folder of a Hugging Face checkpoint"


def _refused(folder: Path, what: str, fix: str) -> InputError:
    return InputError(f"{folder} {what}", where=_WHERE, fix=fix)


def _absent(name: str, fix: str) -> InputError:
    return InputError(f"{name} is not on this machine yet", where=_WHERE, fix=fix)


def _unknown(text: str, settings: Settings) -> InputError:
    if text.startswith(PREFIX):
        return InputError(
            f"'{text}' is trained at OpenAI, not on this machine", where=_WHERE,
            fix="Open 'Train at OpenAI' in the Model tab, or run: studio openai start ROWS --set model=" + text,
        )  # fmt: skip
    names = [info.name for info in known_models(settings)]
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}? Otherwise" if near else f"Use {EMBEDDED_MODEL}, or"
    return InputError(
        f"'{text}' is not a model: there is no such folder, and it is not of the form org/name",
        where=_WHERE,
        fix=f"{hint} give a folder with a Hugging Face checkpoint or a Hub id such as Qwen/Qwen3-0.6B",
    )

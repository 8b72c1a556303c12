"""Models from the Hugging Face Hub: whole, safetensors only, into a folder of their own under `settings.models`.

Runs as `python -m studio.models.catalog.hub ID REVISION` so that a stop can end a download at once. The repository's
file list is read first: what it cannot train on (pickled weights, GGUF only) is refused before gigabytes are fetched.
Progress is counted in bytes on the disk, which holds for every way in which huggingface_hub moves them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from studio.config.model import EMBEDDED_MODEL
from studio.errors import InputError, StudioError
from studio.foreign import read_json_file
from studio.locks import locked, say_waiting
from studio.models.catalog.child import Progress, child_main
from studio.models.catalog.hubaccess import (
    Aim,
    Asked,
    bytes_in,
    counted_bytes,
    endpoint,
    hub_api,
    require_space,
    sentence,
)
from studio.models.catalog.hubaccess import is_hub_id as is_hub_id
from studio.models.inspect.headers import TOKENIZERS, weight_files
from studio.settings import Settings, read_settings

PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "*.txt", "tekken.json")
_IGNORED = ("*/*", "consolidated*", "training_args*", "adapter_*")
_MARKER = "studio.json"
_WHERE = "model.path"


def hub_folder(settings: Settings, name: str, revision: str = "main") -> Path:
    """Folder of a Hub model. Another revision than main lies beside it, so that both can be used.

    Args:
        settings: of the home whose models folder holds it.
        name: Hub id, `owner/name`.
        revision: branch, tag or commit hash.
    """
    tail = "" if revision == "main" else "--at--" + re.sub(r"[^\w.-]", "_", revision)
    return settings.models / f"hub--{name.replace('/', '--')}{tail}"


def hub_name(folder: Path) -> str | None:
    """The Hub id of a folder made by `download`, None if the download is not complete or it is another folder."""
    try:
        name = read_json_file(folder / _MARKER)["hub"]
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return None
    return str(name)


def download(
    name: str,
    settings: Settings,
    revision: str = "main",
    on_progress: Callable[[float, float], None] | None = None,
    on_wait: Callable[[str], None] = say_waiting,
) -> Path:
    """Fetch the model `name` and return its folder. What is already there is not fetched again.

    Args:
        name: Hub id, org/name.
        settings: the folder is made under `settings.models`.
        revision: branch, tag or commit.
        on_progress: told (bytes on the disk, bytes in all), from a second thread.
        on_wait: told that another process fetches it just now.

    Raises:
        InputError: no such model or revision, no access to it, or nothing in it that can be trained.
        StudioError: no network, no space, or somebody keeps the folder's lock.
    """
    folder = hub_folder(settings, name, revision)
    settings.models.mkdir(parents=True, exist_ok=True)
    with locked(settings.models / f".{folder.name}.lock", f"{name} cannot be downloaded now", on_wait):
        if hub_name(folder):
            return folder
        report = on_progress or (lambda done, total: None)
        try:
            return _download(name, folder, revision, report)
        except Exception as error:
            reason = said(error, name, revision)
            if not isinstance(reason, InputError) and _from_cache(name, folder, revision, report):
                return folder
            raise reason from error


def said(error: Exception, name: str, revision: str, aim: Aim = "download") -> StudioError:
    """Say what a failed request for a model means.

    Args:
        error: from huggingface_hub or its HTTP client.
        name: Hub id, `owner/name`.
        revision: branch, tag or commit hash that was requested.
        aim: what the Hub was asked for.
    """
    otherwise = f"use {EMBEDDED_MODEL} or a checkpoint folder"
    return sentence(error, Asked(name, revision, "model", _WHERE, "model.revision", otherwise, aim))


def _download(name: str, folder: Path, revision: str, on_progress: Callable[[float, float], None]) -> Path:
    from huggingface_hub import snapshot_download

    info = hub_api().model_info(name, revision=revision, files_metadata=True)
    sizes = {item.rfilename: int(item.size or 0) for item in info.siblings or []}
    refuse_untrainable(name, list(sizes))
    total = sum(size for file, size in sizes.items() if wanted(file))
    require_space(name, total - bytes_in(folder), folder.parent)
    with counted_bytes(folder, total, on_progress):
        snapshot_download(
            name, revision=info.sha or revision, local_dir=folder, allow_patterns=list(PATTERNS),
            ignore_patterns=list(_IGNORED), endpoint=endpoint(),
        )  # fmt: skip
    on_progress(total, total)
    _mark(folder, name, revision, info.sha, license_named(info))
    return folder


def _mark(folder: Path, name: str, revision: str, commit: str | None, license: dict[str, str] | None = None) -> None:
    """Say that the folder is whole, and what it holds."""
    told = {"hub": name, "revision": revision, "commit": commit, **(license or {})}
    (folder / _MARKER).write_text(json.dumps(told) + "\n")


def license_named(info: Any) -> dict[str, str]:
    """What the Hub says of a model's license: `license`, and for "other" its `license_name` and `license_link`."""
    card = info.card_data
    found = {key: card.get(key) for key in ("license", "license_name", "license_link")} if card is not None else {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _from_cache(name: str, folder: Path, revision: str, on_progress: Callable[[float, float], None]) -> bool:
    """Copy the model from huggingface_hub's own cache, where other tools keep theirs; False where it is not whole.

    Copied and not linked: the home's files are made private, and those of others keep their modes.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(name, revision=revision, local_files_only=True))
        names = {file.name for file in cached.iterdir()}
        # The weights of the index are looked for one by one, and one that is missing is an error.
        if "config.json" not in names or not names & TOKENIZERS or not weight_files(cached):
            return False
    except (LocalEntryNotFoundError, InputError):
        return False
    files = [file for file in cached.iterdir() if wanted(file.name)]
    total = sum(file.stat().st_size for file in files)
    require_space(name, total - bytes_in(folder), folder.parent)
    folder.mkdir(exist_ok=True)
    with counted_bytes(folder, total, on_progress):
        for file in files:
            shutil.copyfile(file, folder / file.name)
    on_progress(total, total)
    _mark(folder, name, revision, cached.name)
    return True


def wanted(file: str) -> bool:
    """Whether a download fetches this file of a repository."""
    return any(fnmatch(file, p) for p in PATTERNS) and not any(fnmatch(file, p) for p in _IGNORED)


def refuse_untrainable(name: str, files: list[str]) -> None:
    """Refuse a repository that holds nothing to train.

    Raises:
        InputError: it holds only pickled weights, GGUF files, an adapter, or no model; the sentence says what to use.
    """
    if any(wanted(file) and file.endswith(".safetensors") for file in files) and "config.json" in files:
        return
    if "adapter_config.json" in files:
        what, fix = "is an adapter, not a model", "Use the id of its base model"
    elif any(file.endswith(".gguf") for file in files):
        what, fix = "has only GGUF files, which cannot be trained", "Use the id of the original model, without -GGUF"
    elif any(file.endswith((".bin", ".pt", ".pth")) for file in files):
        what = "has only pickled weights, which can run code when loaded"
        fix = "Choose a model with .safetensors files"
    else:
        what, fix = "has no model (no config.json with .safetensors files)", "Choose a causal language model"
    raise InputError(f"{name} {what}", where=_WHERE, fix=fix)


def main() -> int:
    """`python -m studio.models.catalog.hub ID REVISION`: fetch it, as a child of `models.catalog.child`."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    name, revision = sys.argv[1:3]

    def work(say: Progress) -> Path:
        def waiting(text: str) -> None:
            say(text, 0, None)

        return download(
            name, read_settings(), revision, lambda done, total: say(f"downloading {name}", done, total), waiting
        )

    return child_main(work)


if __name__ == "__main__":
    sys.exit(main())

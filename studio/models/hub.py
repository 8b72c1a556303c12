"""Models from the Hugging Face Hub: whole, safetensors only, into a folder of their own under `settings.models`.

Runs as `python -m studio.models.hub ID REVISION` so that a stop can end a download at once. The repository's file
list is read first: what it cannot train on (pickled weights, GGUF only) is refused before gigabytes are fetched.
Progress is counted in bytes on the disk, which holds for every way in which huggingface_hub moves them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from filelock import FileLock

from studio.errors import InputError, StudioError
from studio.settings import Settings, read_settings

PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "*.txt", "tekken.json")
_IGNORED = ("*/*", "consolidated*", "training_args*", "adapter_*")
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_MARKER = "studio.json"
_WHERE = "model.path"
SPARE_BYTES = 500_000_000


def is_hub_id(text: str) -> bool:
    """Whether `text` has the form of a Hub id: org/name."""
    return _ID.fullmatch(text) is not None and ".." not in text and "--" not in text


def hub_folder(settings: Settings, name: str, revision: str = "main") -> Path:
    """Folder of a Hub model. Another revision than main lies beside it, so that both can be used."""
    tail = "" if revision == "main" else "--at--" + re.sub(r"[^\w.-]", "_", revision)
    return settings.models / f"hub--{name.replace('/', '--')}{tail}"


def hub_name(folder: Path) -> str | None:
    """The Hub id of a folder made by `download`, None if the download is not complete or it is another folder."""
    try:
        name = json.loads((folder / _MARKER).read_text())["hub"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(name)


def download(
    name: str, settings: Settings, revision: str = "main", on_progress: Callable[[float, float], None] | None = None
) -> Path:
    """Fetch the model `name` and return its folder. What is already there is not fetched again.

    Args:
        name: Hub id, org/name.
        settings: the folder is made under `settings.models`.
        revision: branch, tag or commit.
        on_progress: told (bytes on the disk, bytes in all), from a second thread.

    Raises:
        InputError: no such model or revision, no access to it, or nothing in it that can be trained.
        StudioError: no network, or no space.
    """
    folder = hub_folder(settings, name, revision)
    settings.models.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.models / f".{folder.name}.lock"):
        if hub_name(folder):
            return folder
        try:
            return _download(name, folder, revision, on_progress or (lambda done, total: None))
        except Exception as error:
            raise _sentence(error, name, revision) from error


def _download(name: str, folder: Path, revision: str, on_progress: Callable[[float, float], None]) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    endpoint = os.environ.get("HF_ENDPOINT") or None
    info = HfApi(endpoint=endpoint).model_info(name, revision=revision, files_metadata=True)
    sizes = {item.rfilename: int(item.size or 0) for item in info.siblings or []}
    _refuse_untrainable(name, list(sizes))
    total = sum(size for file, size in sizes.items() if _wanted(file))
    missing = total - _bytes_in(folder)
    free = shutil.disk_usage(folder.parent).free
    if missing + SPARE_BYTES > free:
        raise StudioError(
            f"{name} needs {missing / 1e9:.1f} GB more on the disk and {free / 1e9:.1f} GB are free",
            where=str(folder.parent),
            fix="Free some space, or set STUDIO_HOME to a folder on another disk",
        )
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.3):
            on_progress(min(_bytes_in(folder), total), total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        snapshot_download(
            name, revision=info.sha or revision, local_dir=folder, allow_patterns=list(PATTERNS),
            ignore_patterns=list(_IGNORED), endpoint=endpoint,
        )  # fmt: skip
    finally:
        over.set()
        watcher.join()
    on_progress(total, total)
    (folder / _MARKER).write_text(json.dumps({"hub": name, "revision": revision, "commit": info.sha}) + "\n")
    return folder


def _wanted(file: str) -> bool:
    return any(fnmatch(file, p) for p in PATTERNS) and not any(fnmatch(file, p) for p in _IGNORED)


def _bytes_in(folder: Path) -> int:
    """Bytes of all files, those of an unfinished download (`.cache`) too; files may vanish while we look."""
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            try:
                total += (Path(parent) / file).stat().st_size
            except FileNotFoundError:
                continue
    return total


def _refuse_untrainable(name: str, files: list[str]) -> None:
    if any(_wanted(file) and file.endswith(".safetensors") for file in files) and "config.json" in files:
        return
    if "adapter_config.json" in files:
        what, fix = "holds an adapter, not a model", "Give the id of its base model"
    elif any(file.endswith(".gguf") for file in files):
        what, fix = "holds GGUF files, which cannot be trained", "Give the id of the original model, without -GGUF"
    elif any(file.endswith((".bin", ".pt", ".pth")) for file in files):
        what = "holds its weights only as pickled files, which can run code when they are opened"
        fix = "Choose a model with .safetensors files"
    else:
        what, fix = "holds no model (no config.json with .safetensors files)", "Choose a causal language model"
    raise InputError(f"{name} {what}", where=_WHERE, fix=fix)


def _sentence(error: Exception, name: str, revision: str) -> StudioError:
    """Say what a failed download means. Anything not known here is returned as it came, named by its class."""
    from huggingface_hub import errors

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    if isinstance(error, StudioError):
        return error
    status = next((getattr(getattr(e, "response", None), "status_code", None) for e in chain), None)
    access = "Accept its terms on huggingface.co/" + name + " and set HF_TOKEN to a token that may read it"
    if any(isinstance(e, errors.GatedRepoError) for e in chain):
        return InputError(f"{name} is gated: its owner asks you to accept terms first", where=_WHERE, fix=access)
    if any(isinstance(e, errors.RevisionNotFoundError) for e in chain):
        return InputError(
            f"{name} has no revision '{revision}'", where="model.revision", fix="Use main, or a branch, tag or commit"
        )
    if any(isinstance(e, errors.RepositoryNotFoundError) for e in chain) or status == 404:
        return InputError(
            f"the Hub has no model {name} that you may read", where=_WHERE,
            fix="Check the spelling (org/name); for a private model set HF_TOKEN to a token that may read it",
        )  # fmt: skip
    if status in (401, 403):
        return InputError(f"the Hub refused access to {name} ({status})", where=_WHERE, fix=access)
    if any(isinstance(e, OSError) and e.errno == 28 for e in chain):
        return StudioError(
            f"the disk was full before {name} was complete", where=_WHERE,
            fix="Free some space and start again (it goes on where it stopped), or set STUDIO_HOME to another disk",
        )  # fmt: skip
    if any(isinstance(e, errors.OfflineModeIsEnabled) for e in chain):
        return StudioError(
            f"{name} is not on this machine and HF_HUB_OFFLINE forbids fetching it", where=_WHERE,
            fix="Unset HF_HUB_OFFLINE, or copy the checkpoint here and give its folder",
        )  # fmt: skip
    place = os.environ.get("HF_ENDPOINT") or "huggingface.co"
    detail = f"status {status}" if status else type(chain[-1]).__name__
    return StudioError(
        f"{name} could not be fetched: {place} did not answer properly ({detail})", where=_WHERE,
        fix="Check the network or proxy (HTTPS_PROXY) and start again; what is already fetched is kept. "
        "Without a network, use smollm2-135m-instruct or the folder of a checkpoint",
    )  # fmt: skip


def main() -> int:
    """`python -m studio.models.hub ID REVISION`: fetch it, JSON lines as in `studio.models.embedded`."""

    def say(**line: Any) -> None:
        print(json.dumps(line), flush=True)

    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    name, revision = sys.argv[1:3]

    def progress(done: float, total: float) -> None:
        say(phase=f"downloading {name}", done=done, total=total)

    try:
        path = download(name, read_settings(), revision, progress)
    except StudioError as error:
        say(error=error.as_dict(), input=isinstance(error, InputError))
        return error.exit_code
    say(path=str(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())

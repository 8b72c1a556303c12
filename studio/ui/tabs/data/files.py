"""The data files of a run as the page adds them: uploads under their own names, paths, sets of the Hub."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import IO, Any

from studio.config.data import DataConfig, DataSource
from studio.config.presets import load_named
from studio.data.readers.kinds import ENDINGS, PACKED_ENDINGS, kind_by_name
from studio.data.sources.datasetinfo import split_address
from studio.data.sources.locate import is_hub_source, locate
from studio.errors import InputError
from studio.models.catalog.names import require_path
from studio.reach import open_in
from studio.settings import Settings

UPLOAD_BYTES = 500 * 10**6
# What a browser offers in its file dialog.
UPLOADED = [*ENDINGS, *PACKED_ENDINGS]


def named_source(text: str, settings: Settings) -> str:
    """Return the path of a source that a person typed, as the configuration keeps it.

    Raises:
        InputError: it is not there, or the page may not read it. A set of the Hub may still have to be fetched.
    """
    path = text.strip()
    require_path(path, "Path or dataset")
    if is_hub_source(path, settings):
        return path
    located = locate(DataSource(path=path), settings, confined=True)
    if path.startswith("demo/") or split_address(path) is not None:
        return path
    return str(located.path.resolve())


def demo_data(method: str) -> tuple[list[dict[str, Any]], float | str]:
    """Return the studio's own demo set for a method as the list of files holds it, and its validation."""
    data = load_named(f"demo/{method}").data
    return [source.model_dump(mode="json") for source in data.train], data.validation


def joined(current: list[dict[str, Any]] | None, validation: str, path: str) -> tuple[list[dict[str, Any]], str]:
    """Return the files with one more, and the validation (as its field holds it).

    A demo set, which nobody chose, makes room for the first own file, and so do its rows for validation: a loss over
    them would say nothing about own data.

    Args:
        current: sources the form holds; None for none.
        validation: as its field holds it: a path, or a share as text.
        path: of the new file; one that is there already changes nothing but the validation.
    """
    kept = [source for source in current or [] if not source["path"].startswith("demo/") or path.startswith("demo/")]
    if validation.startswith("demo/") and not path.startswith("demo/"):
        validation = str(DataConfig.model_fields["validation"].default)
    if any(source["path"] == path for source in kept):
        return kept, validation
    return [*kept, DataSource(path=path).model_dump(mode="json")], validation


def keep_upload(file: Path, settings: Settings) -> Path:
    """Move an uploaded file into the uploads under its own name; another file of a name that is taken gets a number.

    Raises:
        InputError: too large, or of no kind that is read.
    """
    name = re.sub(r"[^\w.-]+", "-", file.name).lstrip(".-") or "data.jsonl"
    if kind_by_name(name) is None:
        fix = f"Upload a file that ends in {', '.join(ENDINGS)}, as it is or compressed ({', '.join(PACKED_ENDINGS)})"
        raise InputError(f"'{file.name}' is not a data file", where="Upload", fix=fix)
    with open_in(file.parent, file.name) as source:
        return _keep(source, file.name, name, settings)


def _same(source: IO[bytes], kept: Path) -> bool:
    """Whether an upload is what was uploaded before."""
    try:
        source.seek(0)
        with open_in(kept.parent, kept.name) as before:
            sizes = {os.fstat(one.fileno()).st_size for one in (source, before)}
            if len(sizes) > 1:
                return False
            digests = {hashlib.file_digest(one, "sha256").digest() for one in (source, before)}  # type: ignore[arg-type]
            return len(digests) == 1
    except (OSError, InputError):  # a folder, a link, or no longer there
        return False


def _keep(source: IO[bytes], sent: str, name: str, settings: Settings) -> Path:
    size = os.fstat(source.fileno()).st_size
    if size > UPLOAD_BYTES:
        raise InputError(
            f"'{sent}' is {size / 1e6:,.0f} MB; uploads are limited to {UPLOAD_BYTES / 1e6:,.0f} MB", where="Upload",
            fix="Put the file on this computer and enter its path instead",
        )  # fmt: skip
    settings.uploads.mkdir(parents=True, exist_ok=True)
    # Whole or not there: another page may send the same file now, this process be killed, or the disk be full.
    part = settings.uploads / f".{uuid.uuid4().hex}.part"
    try:
        with part.open("xb") as out:
            shutil.copyfileobj(source, out)
        return _named(part, source, name, settings)
    finally:
        part.unlink(missing_ok=True)


def _named(part: Path, source: IO[bytes], name: str, settings: Settings) -> Path:
    """Give an upload that lies there whole its name, or that of the same file uploaded before."""
    stem, dot, endings = name.partition(".")
    for number in range(1, 10_000):
        target = settings.uploads / (name if number == 1 else f"{stem}-{number}{dot}{endings}")
        try:
            os.link(part, target)
        except FileExistsError:
            if _same(source, target):
                return target
            continue
        except OSError:  # a file system without hard links
            if target.exists():
                continue
            os.replace(part, target)
        return target
    raise InputError(f"there are too many files named '{name}'", where=str(settings.uploads), fix="Remove some of them")

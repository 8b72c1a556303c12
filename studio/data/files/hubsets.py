"""Sets of rows from the Hugging Face Hub: which one is meant, where it lies here, and its rows.

A set is fetched once (`data.files.hubfetch`, a process of its own) into a folder under `settings.datasets` that holds
one split as Arrow files; after that nothing asks the network. Rows are read memory-mapped, so a set of many GB costs no
memory. pyarrow is loaded only when rows are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from studio.data.files.datafiles import Row
from studio.data.readers.padding import cleaner_of
from studio.errors import InputError
from studio.models.catalog.child import Progress, run_child
from studio.models.catalog.hubaccess import is_hub_id
from studio.reach import held
from studio.settings import Settings

MARKER = "studio.json"
# Folder, beside the rows, of what the libraries keep while they work.
WORK = ".work"
_WHERE = "data.train"
# What ends so was meant as a file, so a misspelt name is not looked for on the Hub.
_FILE_ENDINGS = (
    ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".gz", ".zst", ".zip", ".xz",
    ".xlsx", ".yaml", ".yml", ".py",
)  # fmt: skip
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class HubSet:
    """What was asked for.

    Attributes:
        name: org/name, or name alone for sets that have no owner.
        subset: its configuration; None for the only or default one.
        split: the part of it.
        revision: branch, tag or commit.
        folder: only the files below this folder of the repository.
    """

    name: str
    subset: str | None = None
    split: str = "train"
    revision: str = "main"
    folder: str | None = None


@dataclass(frozen=True)
class FetchedSet:
    """One split that is here: its Arrow files in order, how many rows they hold, and the commit it was made from."""

    files: tuple[Path, ...]
    rows: int
    commit: str


def is_set_name(text: str) -> bool:
    """Whether `text` could be the id of a set on the Hub (a file of that name wins, which the caller checks)."""
    return is_hub_id(text, owner=False) and not text.lower().endswith(_FILE_ENDINGS)


def set_folder(asked: HubSet, settings: Settings) -> Path:
    """Folder of one split of a set; each subset, split, revision and folder has its own."""
    key = hashlib.sha256(json.dumps(asdict(asked)).encode()).hexdigest()[:12]
    return settings.datasets / f"hub--{asked.name.replace('/', '--')}--{key}"


def fetched(asked: HubSet, settings: Settings) -> FetchedSet | None:
    """Return the set if it is here and complete, else None."""
    folder = set_folder(asked, settings)
    try:
        made = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return FetchedSet(tuple(folder / name for name in made["files"]), made["rows"], made["commit"])


def fetch(asked: HubSet, settings: Settings, report: Progress) -> FetchedSet:
    """Fetch a set that is not here yet, and return it.

    Args:
        asked: which one.
        settings: its folder is made under `settings.datasets`.
        report: told ("downloading org/name", bytes, bytes in all); an exception of it ends the download.

    Raises:
        InputError: no such set, subset, split or revision, no access, or nothing in it that is read.
        StudioError: no network, or no space.
    """
    if (found := fetched(asked, settings)) is not None:
        return found
    folder = set_folder(asked, settings)
    run_child(
        "studio.data.files.hubfetch", [json.dumps(asdict(asked))], settings, report,
        ("preparing the dataset", _WHERE),
        # Read when huggingface_hub and datasets are imported: so nothing lands outside of the studio's home.
        HF_HUB_CACHE=str(folder / WORK / "hub"), HF_DATASETS_CACHE=str(folder / WORK / "datasets"),
    )  # fmt: skip
    if (found := fetched(asked, settings)) is None:
        raise InputError(
            f"{asked.name} is incomplete", where=str(folder), fix="Remove that folder and download it again"
        )
    return found


def download_folder(folder: Path) -> Path:
    """Where the files of the repository lie until the rows are made."""
    return folder / ".download"


def absent(asked: HubSet) -> InputError:
    """The error for a set that is not here where nothing may be fetched."""
    return InputError(
        f"there is no file '{asked.name}', and the Hub dataset {asked.name} is not on this machine yet",
        where=_WHERE,
        fix=f"Download it with `studio data inspect {asked.name}`, or start the run, which downloads it",
    )


def read_arrow(files: tuple[Path, ...], start: int = 0) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row) of Arrow stream files, memory-mapped, after leaving out `start` rows."""
    import pyarrow

    number = 0
    for file in files:
        with held(file) as name, pyarrow.memory_map(name) as mapped, pyarrow.ipc.open_stream(mapped) as stream:
            found = ((field.name, cleaner_of(field.name, field.type)) for field in stream.schema)
            cleaners = [(name, clean) for name, clean in found if clean is not None]
            for batch in stream:
                at = min(batch.num_rows, max(0, start - number))
                number += at
                for begin in range(at, batch.num_rows, _ROWS_AT_ONCE):
                    for row in batch.slice(begin, _ROWS_AT_ONCE).to_pylist():
                        number += 1
                        for name, clean in cleaners:
                            clean(row[name])
                        yield number, {key: _json_value(value) for key, value in row.items()}


def _json_value(value: Any) -> Any:
    """A value as JSON has it: times and decimals as text, bytes as an object, which no format takes for a text."""
    if isinstance(value, list):
        return [_json_value(part) for part in value]
    if isinstance(value, dict):
        return {key: _json_value(part) for key, part in value.items()}
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    return str(value) if isinstance(value, date | time | timedelta | Decimal) else value

"""Where the rows of a source of the configuration come from: a file, a set of the Hub, an entry of dataset_info.json.

Light, so the page can ask whether a source is there; rows are read by whoever iterates. Nothing is fetched unless a
function that reports progress is given. A file that exists always wins over a set of the same name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from studio.config.data import DataConfig, DataSource
from studio.data.files import hubsets
from studio.data.files.datafiles import Row, Stamp, exists, file_sha256, is_plain_text, read_rows, resolve_path
from studio.data.files.hubsets import HubSet
from studio.data.sources import datasetinfo
from studio.data.sources.datasetinfo import Entry
from studio.errors import InputError
from studio.methods import RowKind
from studio.models.catalog.child import Progress
from studio.settings import ASSETS, Settings

Rows = Iterator[tuple[int, Row]]
_HUB_ONLY = ("subset", "split", "revision")


@dataclass(frozen=True)
class Located:
    """A source that is on this machine.

    Attributes:
        path: what errors about a row name: its file, or the id of a set.
        files: what its rows are read from; a folder stands for the data files in it.
        rows: `rows(start)` yields (row number, row as it is stored), leaving out the first `start`.
        count: how many rows there are, where that is known without reading them.
        commit: of the Hub's repository; empty for files.
        entry: of the dataset_info.json that describes the rows.
        described: that file.
    """

    path: Path
    files: tuple[Path, ...]
    rows: Callable[[int], Rows]
    count: int | None = None
    commit: str = ""
    entry: Entry | None = None
    described: Path | None = None

    def studio_row(self, row: Row, number: int, kind: RowKind) -> Row:
        """Return a row of `rows` in a format of the studio: as it is, or as its entry of dataset_info.json says.

        Args:
            row: as it is stored.
            number: of the row, from 1, for errors.
            kind: what the method learns from.

        Raises:
            InputError: the row is not as the entry says.
        """
        return datasetinfo.convert(self.entry, row, number, self.path, kind) if self.entry else row

    @property
    def sample(self) -> int | None:
        """How many of the rows dataset_info.json wants; None for all."""
        return self.entry.num_samples if self.entry else None

    def sha256(self) -> str:
        """SHA-256 of the file; of several files the SHA-256 of their digests in order."""
        digests = [file_sha256(file) for file in self.files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def state(self) -> list[list[str | int]]:
        """Plain values that change when the files do, or what describes them: path, size and time of each."""
        files = [*self.files, *([self.described] if self.described else [])]
        stamps = [(file, Stamp.of(file)) for file in files]
        return [[str(file), stamp.size, stamp.mtime_ns] for file, stamp in stamps]

    @property
    def bytes(self) -> int:
        """Size of the files together."""
        return sum(Stamp.of(file).size for file in self.files)

    @property
    def by_line(self) -> bool:
        """Whether each line of a plain text file is a row: LLaMA-Factory reads the files that it describes so."""
        return self.entry is not None and self.count is None

    @property
    def is_text(self) -> bool:
        """Whether the rows are the documents of plain text files."""
        return self.count is None and is_plain_text(self.path)


def locate(source: DataSource, settings: Settings, confined: bool = False, fetch: Progress | None = None) -> Located:
    """Find the rows of a source.

    Args:
        source: one of `data.train`.
        settings: where uploads and fetched sets lie, and the folders of `confined`.
        confined: allow only files in `settings.roots`, also those that a dataset_info.json names. Sets of the Hub are
            allowed.
        fetch: told how far a download is; None to fetch nothing.

    Raises:
        InputError: there is no such file, set or entry, it may not be read, or it must be fetched first.
        StudioError: the download failed.
    """
    if (address := datasetinfo.split_address(source.path)) is not None:
        _refuse_hub_options(source, "dataset_info.json says them")
        described = resolve_path(address[0], settings, confined)
        entry = datasetinfo.read_entry(described, address[1])
        if isinstance(entry.source, HubSet):
            inner = _hub_set(entry.source, settings, fetch)
        else:
            inner = of_file(resolve_path(str(entry.source), settings, confined), by_line=True)
        return replace(inner, entry=entry, described=described)
    if is_hub_source(source.path, settings):
        name = source.path.strip()
        return _hub_set(HubSet(name, source.subset, source.split, source.revision), settings, fetch)
    path = resolve_path(source.path, settings, confined)
    if path.name == datasetinfo.FILE_NAME:
        raise datasetinfo.which_entry(path)
    _refuse_hub_options(source, "a file has none")
    return of_file(path)


def is_hub_source(path: str, settings: Settings) -> bool:
    """Whether a path means a set of the Hub: it has the form of an id, and there is no file or folder of that name."""
    text = path.strip()
    given = Path(text)
    here = given.parts[:1] == ("demo",) or exists(given) or exists(settings.uploads / given)
    return hubsets.is_set_name(text) and not here


def absolute(path: str, settings: Settings) -> str:
    """A path of the configuration as a job keeps it, so that it means the same in another folder.

    Raises:
        InputError: the file is not there.
    """
    if is_hub_source(path, settings):
        return path.strip()
    file, name = datasetinfo.split_address(path) or (path, "")
    found = resolve_path(file, settings)
    if found.is_relative_to(ASSETS):
        return path
    return f"{found}:{name}" if name else str(found)


def sources_of(config: DataConfig) -> list[DataSource]:
    """Return the sources of a run: those that are trained on, then the one that `data.validation` names, if it does.

    A set of the Hub that is trained on too is validated on at the same subset and revision. Where the
    first training source has columns or tags of its own, its rows are read with them, but for sets that say
    themselves what they are: the demo's, and those of a dataset_info.json.
    """
    path = config.validation
    if not isinstance(path, str):
        return list(config.train)
    same = next((one for one in config.train if one.path == path), None)
    values: dict[str, Any] = {"subset": same.subset, "revision": same.revision} if same else {}
    first = config.train[0]
    told = path.startswith("demo/") or any(datasetinfo.split_address(one) for one in (path, first.path))
    # Its plain texts are read as those that are trained on, or the loss would be that of other texts.
    values["reading"] = first.plain_reading
    if (first.columns or first.tags) and not told:
        values |= {"format": first.format, "columns": first.columns, "tags": first.tags}
    if hubsets.is_set_name(path.strip()) and not Path(path.strip()).exists():
        return [*config.train, DataSource(path=path, split=config.validation_split, **values)]
    return [*config.train, DataSource(path=path, **values)]


def fetch_sources(config: DataConfig, settings: Settings, report: Progress) -> None:
    """Fetch the sets of the Hub that a run names and that are not here yet.

    Args:
        config: section `data`.
        settings: of the home that keeps what is fetched.
        report: told the phase, how much is done, and the total, None while unknown.

    Raises:
        InputError: a set, or any other source, is not there.
        StudioError: a download failed.
    """
    for source in sources_of(config):
        locate(source, settings, fetch=report)


def confine_sources(config: DataConfig, settings: Settings) -> None:
    """Check that the page may read the files that a run names, before anything is said of them or their folders.

    Raises:
        InputError: one lies elsewhere.
    """
    for source in sources_of(config):
        if not is_hub_source(source.path, settings):
            file, _ = datasetinfo.split_address(source.path) or (source.path, "")
            resolve_path(file, settings, confined=True)


def absent_set(config: DataConfig, settings: Settings) -> str:
    """Return the name of the first set of the Hub that a run names and that is not here yet, "" if all are.

    Raises:
        InputError: a dataset_info.json cannot be read, or the page may not read it.
    """
    for source in sources_of(config):
        asked = None
        if (address := datasetinfo.split_address(source.path)) is not None:
            entry = datasetinfo.read_entry(resolve_path(address[0], settings, confined=True), address[1])
            asked = entry.source if isinstance(entry.source, HubSet) else None
        elif is_hub_source(source.path, settings):
            asked = HubSet(source.path.strip(), source.subset, source.split, source.revision)
        if asked is not None and hubsets.fetched(asked, settings) is None:
            return asked.name
    return ""


def of_file(path: Path, by_line: bool = False) -> Located:
    """Return a file, or a folder of files, as a source of rows; with `by_line` each line of plain text is a row."""
    return Located(path, (path,), lambda start: islice(_steady_rows(path, by_line), start, None))


def _steady_rows(path: Path, by_line: bool) -> Rows:
    """The rows of a file that stays as it is while it is read.

    Raises:
        InputError: it was written to meanwhile, so that some of its rows may be missing or halves.
    """
    before = Stamp.of(path)
    try:
        yield from read_rows(path, by_line)
    except InputError as error:
        if Stamp.of(path) == before:
            raise
        raise still_written(path) from error
    if Stamp.of(path) != before:
        raise still_written(path)


def still_written(path: Path) -> InputError:
    """Return the error for a file that did not stay as it was."""
    return InputError(
        "the file changed while it was read: it is still being written", where=str(path),
        fix="Wait until it is complete, and start again",
    )  # fmt: skip


def _hub_set(asked: HubSet, settings: Settings, fetch: Progress | None) -> Located:
    found = hubsets.fetched(asked, settings)
    if found is None:
        if fetch is None:
            raise hubsets.absent(asked)
        found = hubsets.fetch(asked, settings, fetch)
    files = found.files
    return Located(Path(asked.name), files, lambda start: hubsets.read_arrow(files, start), found.rows, found.commit)


def _refuse_hub_options(source: DataSource, why: str) -> None:
    for name in _HUB_ONLY:
        if getattr(source, name) != DataSource.model_fields[name].default:
            raise InputError(
                f"'{name}' is for datasets given by their Hub id; {why}",
                where=f"data.train, {source.path}",
                fix=f"Remove {name}, or give a Hub dataset (org/name)",
            )

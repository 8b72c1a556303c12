"""Rows as tokens, kept on disk: a set that was tokenized once is not tokenized again.

An entry is found by a fingerprint of everything that its tokens come from: the rows as they are understood, the
tokenizer, its template and how that renders today (some write the date), what is trained on, and the versions of the
libraries. Nothing else is trusted: not a file's name nor its time. Entries are Arrow files; the least used are removed
when all of them together grow too large. A damaged entry counts as none.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from studio.config.method import RowKind
from studio.data.formats import Example
from studio.data.masks import Masker
from studio.data.units import Encoded, Pair, Rated, Unit

LIMIT_BYTES = 4 * 1024**3
# Counted up when the same rows would become other tokens by the studio's own doing.
_FORMAT = 1
_ROWS_AT_ONCE = 4096
# What a unit is made of, beside the row that it is from. Prompts are few, and quickly tokenized.
_UNITS: dict[RowKind, tuple[Any, tuple[str, ...]]] = {
    "answers": (Encoded, ("input_ids", "labels")),
    "pairs": (Pair, ("prompt_ids", "chosen_ids", "rejected_ids")),
    "rated": (Rated, ("prompt_ids", "completion_ids", "label")),
}

logger = logging.getLogger(__name__)


class TokenCache:
    """The entries for one tokenizer and one kind of rows.

    Args:
        folder: where entries are kept; made when the first is written.
        masker: what turns rows into tokens.
        kind: what they become.
        limit_bytes: of all entries together.
    """

    def __init__(self, folder: Path, masker: Masker, kind: RowKind, limit_bytes: int = LIMIT_BYTES) -> None:
        self._folder, self._kind, self._limit = folder, kind, limit_bytes
        self._of = _UNITS.get(kind)
        self._maker = hashlib.sha256()
        for part in (_FORMAT, kind, *_versions(), masker.fingerprint()):
            self._maker.update(f"{part}\0".encode())

    def read(self, examples: Sequence[Example]) -> list[Unit] | None:
        """Return the units of these rows, in order; None if they have to be made."""
        if self._of is None or not (path := self._path(examples)).is_file():
            return None
        try:
            units = list(_units(path, *self._of, examples))
            os.utime(path)
        except Exception as error:  # a damaged file makes pyarrow raise anything
            logger.warning("the kept tokens %s cannot be read and are made again: %s", path.name, error)
            return None
        return units

    def write(self, examples: Sequence[Example], units: Sequence[Unit]) -> None:
        """Keep the units of these rows; a disk that is full is no reason to stop."""
        if self._of is None or not units:
            return
        path = self._path(examples)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._folder, prefix=".")
            try:
                with os.fdopen(handle, "wb") as file:
                    _write(file, self._of[1], units)
                os.replace(name, path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            self._prune()
        except OSError as error:
            logger.warning("the tokens are not kept for the next start: %s", error)

    def _path(self, examples: Sequence[Example]) -> Path:
        whole = self._maker.copy()
        for one in examples:
            said = (one.messages, one.trained_from, one.tools, one.prompt, one.completion, one.text, one.rejected)
            whole.update(repr((*said, one.label)).encode("utf-8", "surrogatepass"))
        return self._folder / f"{whole.hexdigest()}.arrow"

    def _prune(self) -> None:
        entries = sorted(self._folder.glob("*.arrow"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in entries:
            total += path.stat().st_size
            if total > self._limit:
                path.unlink(missing_ok=True)


def _versions() -> Iterator[str]:
    for name in ("transformers", "tokenizers", "jinja2"):
        yield f"{name} {importlib.metadata.version(name)}"


def _write(file: Any, names: Sequence[str], units: Sequence[Unit]) -> None:
    import pyarrow as pa

    types = {name: pa.bool_() if name == "label" else pa.list_(pa.int32()) for name in names}
    schema = pa.schema({**types, "notes": pa.list_(pa.string())})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(file, schema, options=options) as sink:
        for at in range(0, len(units), _ROWS_AT_ONCE):
            part = units[at : at + _ROWS_AT_ONCE]
            columns = [[getattr(unit, name) for unit in part] for name in schema.names]
            arrays = [pa.array(values, type=kind) for values, kind in zip(columns, schema.types, strict=True)]
            sink.write_batch(pa.record_batch(arrays, schema=schema))


def _units(path: Path, unit: Any, names: Sequence[str], examples: Sequence[Example]) -> Iterator[Unit]:
    """The kept units with the places of their rows.

    Raises:
        ValueError: they are not as many as the rows make.
    """
    import pyarrow as pa

    sources = iter(_sources(unit, examples))
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            columns = [batch.column(name).to_pylist() for name in names]
            for *values, notes in zip(*columns, batch.column("notes").to_pylist(), strict=True):
                example = next(sources, None)
                if example is None:
                    raise ValueError("there are more than the rows make")
                yield unit(*values, row=example.row, path=example.path, notes=tuple(notes))
    if next(sources, None) is not None:
        raise ValueError("there are fewer than the rows make")


def _sources(unit: Any, examples: Sequence[Example]) -> Iterator[Example]:
    """The row of each unit: a pair makes two rated answers (`units.encode`)."""
    for example in examples:
        yield example
        if unit is Rated and example.rejected is not None:
            yield example

"""Rows as tokens, kept on disk: a set that was tokenized once is not tokenized again.

An entry is found by a fingerprint of everything that its tokens come from: the rows as they are understood, the
tokenizer, its template and how that renders today (some write the date), what is trained on, and the versions of the
libraries. Nothing else is trusted: not a file's name nor its time. Entries are Arrow files; the least used are removed
when all of them together grow too large. A damaged entry counts as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import itertools
import logging
import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from studio.data.masks.masker import Masker
from studio.data.prepare.compact import kept
from studio.data.prepare.units import Encoded, Pair, Rated, Unit
from studio.data.sources.held import HeldExamples
from studio.methods import RowKind

LIMIT_BYTES = 4 * 1024**3
# Counted up when the same rows would become other tokens by the studio's own doing.
_FORMAT = 3
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
        self._maker = made_by(masker, kind)

    def read(self, examples: HeldExamples) -> list[Unit] | None:
        """Return the units of these rows, in order; None if they have to be made."""
        if self._of is None or not (path := self._path(examples)).is_file():
            return None
        try:
            units = list(_units(path, *self._of, examples))
            os.utime(path)
        except Exception as error:  # a damaged file makes pyarrow raise anything
            logger.warning("the token cache %s cannot be read and is rebuilt: %s", path.name, error)
            return None
        return units

    @contextlib.contextmanager
    def keeping(self, examples: HeldExamples) -> Iterator[Callable[[Sequence[Unit]], None]]:
        """Keep the units of these rows as they are made: what is given is called with some hundreds at a time.

        They are kept when the block ends, and not if it raises. A disk that is full is no reason to stop.
        """
        entry = None
        if self._of is not None and examples:
            try:
                entry = _Entry(self._folder, self._of[1])
            except OSError as error:
                _warn(error)
        try:
            yield entry.add if entry is not None else lambda units: None
        except BaseException:
            if entry is not None:
                entry.drop()
            raise
        if entry is not None and entry.close(self._path(examples)):
            self._prune()

    def _path(self, examples: HeldExamples) -> Path:
        whole = self._maker.copy()
        whole.update(examples.digest())
        return self._folder / f"{whole.hexdigest()}.arrow"

    def _prune(self) -> None:
        entries = sorted(self._folder.glob("*.arrow"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in entries:
            total += path.stat().st_size
            if total > self._limit:
                path.unlink(missing_ok=True)


def made_by(masker: Masker, kind: RowKind) -> Any:
    """Return a hash, to be added to, of all that tokens come from beside the rows themselves."""
    maker = hashlib.sha256()
    for part in (_FORMAT, kind, *_versions(), masker.fingerprint()):
        maker.update(f"{part}\0".encode())
    return maker


def _versions() -> Iterator[str]:
    for name in ("transformers", "tokenizers", "jinja2"):
        yield f"{name} {importlib.metadata.version(name)}"


class _Entry:
    """A file that is being written; after an error it takes in nothing more."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        import pyarrow as pa

        kinds = {name: pa.bool_() if name == "label" else pa.list_(pa.int32()) for name in names}
        self._schema = pa.schema({**kinds, "notes": pa.list_(pa.string())})
        self._names = names
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".")
        self._path, self._file = Path(name), os.fdopen(handle, "wb")
        self._sink = pa.ipc.new_file(self._file, self._schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
        self._broken = False

    def add(self, units: Sequence[Unit]) -> None:
        import pyarrow as pa

        if self._broken or not units:
            return
        try:
            notes = pa.array([unit.notes for unit in units], type=self._schema.field("notes").type)
            columns = [_column(units, name) for name in self._names]
            self._sink.write_batch(pa.record_batch([*columns, notes], schema=self._schema))
        except OSError as error:
            _warn(error)
            self._broken = True

    def close(self, path: Path) -> bool:
        """Put the file in its place; False if it was not written whole."""
        try:
            self._sink.close()
            self._file.close()
            if not self._broken:
                os.replace(self._path, path)
        except OSError as error:
            _warn(error)
            self._broken = True
        if self._broken:
            self.drop()
        return not self._broken

    def drop(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


def _warn(error: OSError) -> None:
    logger.warning("the tokens could not be cached: %s", error)


def _column(units: Sequence[Unit], name: str) -> Any:
    """One field of the units for Arrow, as the units keep it: ids, or the runs of labels."""
    import numpy as np
    import pyarrow as pa

    if name == "label":
        return pa.array([unit.label for unit in units if isinstance(unit, Rated)], type=pa.bool_())
    values = [kept(unit, name) for unit in units]
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
    flat = np.frombuffer(b"".join(map(memoryview, values)), dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, type=pa.int32()), pa.array(flat, type=pa.int32()))


def _units(path: Path, unit: Any, names: Sequence[str], examples: HeldExamples) -> Iterator[Unit]:
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
            columns = [_values(batch.column(name)) for name in names]
            for *values, notes in zip(*columns, batch.column("notes").to_pylist(), strict=True):
                source = next(sources, None)
                if source is None:
                    raise ValueError("there are more tokens than the rows have")
                yield unit(*values, row=source[0], path=source[1], notes=tuple(notes))
    if next(sources, None) is not None:
        raise ValueError("there are fewer tokens than the rows have")


def _values(column: Any) -> Iterable[Any]:
    """The values of a column of `_column`."""
    import pyarrow as pa

    if column.type == pa.bool_():
        yield from column.to_pylist()
        return
    # As bytes by numpy: Python does not cast the view of an empty array.
    flat, offsets = column.values.to_numpy().view("u1"), column.offsets.to_numpy()
    for begin, end in itertools.pairwise(4 * offsets.astype("i8")):
        ids = array("i")
        ids.frombytes(flat[begin:end])
        yield ids


def _sources(unit: Any, examples: HeldExamples) -> Iterator[tuple[int, str]]:
    """The row of each unit and its file: a pair makes two rated answers (`units.encode`)."""
    for row, path, is_pair in examples.places():
        yield row, path
        if unit is Rated and is_pair:
            yield row, path

"""What a data file is: told from its first bytes, and only for kinds that have no mark of their own by its ending."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple

from studio import reach
from studio.data.files.encoding import (
    ARROW,
    ARROW_STREAM,
    BINARY_KINDS,
    PARQUET,
    first_bytes_kind,
    foreign_text,
    require_text,
)
from studio.data.readers.bytestream import Packing, open_unpacked, packing_of
from studio.errors import InputError

Kind = Literal["json", "csv", "tsv", "text", "parquet", "arrow", "arrow_stream"]
ENDINGS: dict[str, Kind] = {
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "tsv", ".txt": "text", ".md": "text",
    ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow",
}  # fmt: skip
PACKED_ENDINGS = (".gz", ".zst", ".zstd")
NAMES: dict[Kind, str] = {
    "json": "JSON", "csv": "CSV", "tsv": "TSV", "text": "text", "parquet": "Parquet", "arrow": "Arrow",
    "arrow_stream": "Arrow",
}  # fmt: skip
_BINARY: dict[str, Kind] = {PARQUET: "parquet", ARROW: "arrow", ARROW_STREAM: "arrow_stream"}
# What lies beside the data in a folder that `datasets` or the Hub made.
_NOT_DATA = (
    "readme.md", "license.md", "license.txt", "changelog.md", "dataset_info.json", "dataset_infos.json",
    "dataset_dict.json", "state.json",
)  # fmt: skip
_HEAD_BYTES = 65536
_LIST_OF_OBJECTS = re.compile(rb'\[\s*\{\s*"[^"\\]*"\s*:')
_FILL: dict[Kind, str] = {
    "json": "Write one JSON object per line",
    "csv": "Put the column names in the first line and the rows below it",
    "tsv": "Put the column names in the first line and the rows below it",
    "text": "Put documents in it, separated by blank lines",
}


class FileKind(NamedTuple):
    """What a file holds, how it is packed, and its first unpacked bytes."""

    kind: Kind
    packing: Packing | None
    head: bytes

    @property
    def columnar(self) -> bool:
        """Whether it is Parquet or Arrow, not text."""
        return self.kind in ("parquet", "arrow", "arrow_stream")


def kind_by_name(name: str) -> Kind | None:
    """Return the kind that a file's ending says (`.gz` and `.zst` behind it are left out); None if it says none."""
    path = Path(name.lower())
    if path.suffix in PACKED_ENDINGS:
        path = path.with_suffix("")
    return ENDINGS.get(path.suffix)


def kind_of_file(path: Path) -> FileKind:
    """Return what a file is.

    Raises:
        InputError: it is empty, or binary of a kind that is not read, or its content contradicts its ending.
    """
    with reach.opened(path) as file:
        packing = packing_of(file.read(4))
    with open_unpacked(path) as stream:
        head = stream.read(_HEAD_BYTES)
    if packing is not None and packing_of(head) is not None:
        raise InputError("the archive contains another archive", where=str(path), fix="Unpack it once")
    binary = _BINARY.get(first_bytes_kind(head) or "")
    if binary is not None:
        return FileKind(binary, packing, head)
    require_text(head, path)
    kind = kind_by_name(path.name)
    if not head.removeprefix(b"\xef\xbb\xbf").strip() and len(head) < _HEAD_BYTES:
        raise InputError("the file is empty", where=str(path), fix=_FILL.get(kind or "json", _FILL["json"]))
    if (foreign := foreign_text(head, kind == "text")) is not None:
        raise InputError(f"this is {foreign}", where=str(path), fix=BINARY_KINDS[foreign])
    if kind in ("parquet", "arrow"):
        raise InputError(f"this is not {_a(NAMES[kind])} file", where=str(path), fix="Rename it to match its content")
    if kind in ("csv", "tsv", "text") and _begins_with_object(head):
        raise InputError(
            f"the file contains JSON, but its name says {NAMES[kind]}",
            where=str(path),
            fix=f"Rename it to {path.name.split('.')[0]}.{'json' if head.lstrip()[:1] == b'[' else 'jsonl'}",
        )
    return FileKind(kind or "json", packing, head)


def data_files(folder: Path) -> list[Path]:
    """Return the data files of a folder in the order of their names.

    Hidden files and what lies beside the data (README.md, dataset_info.json …) are no data; folders in it are not
    looked into.

    Raises:
        InputError: there is none, they are of several kinds, or one is a link that leads out of the folder.
    """
    try:
        entries = [folder / name for name in reach.entries(folder)]
    except PermissionError as error:
        raise InputError(
            "this user is not allowed to read the folder", where=str(folder), fix=f"chmod u+rx {folder}"
        ) from error
    files = [one for one in entries if _is_data(one)]
    if not files:
        raise InputError(
            "the folder has no data files",
            where=str(folder),
            fix=f"Give a file, or a folder of files ending in {', '.join(ENDINGS)}",
        )
    kinds = Counter(NAMES[kind] for one in files if (kind := kind_by_name(one.name)))
    if len(kinds) > 1:
        found = " and ".join(f"{count} {name}" for name, count in kinds.items())
        raise InputError(
            f"the folder has files of several kinds: {found}",
            where=str(folder),
            fix="List the files one by one, or move one kind to its own folder",
        )
    for one in files:
        # A link must not lead the page out of the folders it may read.
        if not one.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                "the link points outside its folder", where=str(one), fix="Give the file that it points to"
            )
    return files


def _is_data(path: Path) -> bool:
    name = path.name.lower()
    known = kind_by_name(name) is not None and name not in _NOT_DATA
    return known and not name.startswith(".") and path.is_file()


def _begins_with_object(head: bytes) -> bool:
    begun = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _LIST_OF_OBJECTS.match(begun):
        return True
    first = begun.split(b"\n", 1)[0]
    if not first.startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "AEIOU" else f"a {name}"

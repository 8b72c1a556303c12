"""Files that travel together, named by what is in them: a data file, a folder of rows, a model.

The digest of a parcel is the SHA-256 of the list of its files, as `sha256sum` prints it. Light: both machines use it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from studio.reach import opened

#: What the folder of a parcel ends in until all of it has arrived and was compared.
PARCEL = ".arriving"


@dataclass(frozen=True)
class Parcel:
    """A file or a folder that a run needs.

    Attributes:
        source: absolute path here.
        digest: of its content, which names its folder there.
        files: paths relative to that folder, with the file here of each.
        bytes: of all files.
    """

    source: Path
    digest: str
    files: tuple[tuple[str, Path], ...]
    bytes: int

    def place(self, folder: str) -> str:
        """Path of it there, below the folder of all parcels."""
        return f"{folder}/{self.digest}/{self.source.name}"


def make_parcel(source: Path) -> Parcel:
    """Read a file or folder and make its parcel; hidden files of a folder stay here.

    Raises:
        OSError: it cannot be read.
    """
    files = tuple(_files(source))
    return Parcel(source, _digest(files), files, sum(file.stat().st_size for _, file in files))


def digest_of(folder: Path) -> str:
    """The digest of what has arrived in a parcel's folder."""
    return _digest(tuple((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()))


def _files(source: Path) -> Iterator[tuple[str, Path]]:
    if not source.is_dir():
        yield source.name, source
        return
    inner = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    for path in inner:
        if not any(part.startswith(".") for part in path.parts):
            yield f"{source.name}/{path.as_posix()}", source / path


def _digest(files: tuple[tuple[str, Path], ...]) -> str:
    whole = hashlib.sha256()
    for inner, file in sorted(files):
        with opened(file) as content:
            whole.update(f"{hashlib.file_digest(content, 'sha256').hexdigest()}  {inner}\n".encode())
    return whole.hexdigest()

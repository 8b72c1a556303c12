"""The bytes of a data file, unpacked on the way if it is a gzip or Zstandard archive.

Nothing is unpacked whole. An archive that is cut off or damaged, or that unpacks to far more than any text would (a
decompression bomb), ends in a sentence.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, cast

from studio.errors import InputError
from studio.reach import opened

Packing = Literal["gzip", "zstd"]
# Text packs to a tenth, very repetitive text to a hundredth. An archive may be denser only while it is small.
MAX_RATIO = 300
_FREE_BYTES = 8 * 1024 * 1024
_CHUNK = 1 << 16
# zstd makes up to 128 KB of 4 bytes, and its decoder gives out all that its input makes: small bites bound it.
_ZSTD_BITE = 1 << 11
_MAGIC: tuple[tuple[bytes, Packing], ...] = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))


def packing_of(head: bytes) -> Packing | None:
    """Return how a file is packed by its first bytes; None if it is not."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file for reading its unpacked bytes; only an unpacked file can seek.

    Raises:
        InputError: (while reading) the archive is cut off, damaged, or unpacks to far too much.
    """
    file = opened(path)
    packing = packing_of(file.read(4))
    file.seek(0)
    if packing is None:
        return file
    return cast("IO[bytes]", io.BufferedReader(_Unpacked(path, file, packing), 1 << 18))


def skip_to(stream: IO[bytes], offset: int) -> None:
    """Move a stream forward to `offset`, counted from its beginning; an archive is unpacked up to there."""
    if stream.seekable():
        stream.seek(offset)
        return
    left = offset
    while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
        left -= len(chunk)


class _DamagedError(Exception):
    """The archive cannot be unpacked further; the text says why."""


class _Unpacked(io.RawIOBase):
    """The unpacked bytes of an archive, front to back."""

    def __init__(self, path: Path, file: IO[bytes], packing: Packing) -> None:
        self._path, self._file, self._packing = path, file, packing
        self._chunks = _gunzip(file) if packing == "gzip" else _unzstd(file)
        self._rest = memoryview(b"")
        self._total = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = memoryview(self._next())
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()

    def _next(self) -> bytes:
        try:
            chunk = next(self._chunks, b"")
        except _DamagedError as error:
            tool = "gunzip" if self._packing == "gzip" else "unzstd"
            raise InputError(
                f"the {self._packing} archive is damaged after {self._total:,} unpacked bytes: {error}",
                where=str(self._path),
                fix="If it is still being written, wait; otherwise copy or download it again: "
                f"`{tool} -t {self._path.name}` must print nothing",
            ) from error
        self._total += len(chunk)
        if self._total > max(_FREE_BYTES, MAX_RATIO * self._file.tell()):
            raise InputError(
                f"the {self._packing} archive unpacks to more than {MAX_RATIO} times its size, which no text does",
                where=str(self._path),
                fix="Check where it comes from; if this is intended, unpack it and use the unpacked file",
            )
        return chunk


def _gunzip(file: IO[bytes]) -> Iterator[bytes]:
    import gzip

    with gzip.GzipFile(fileobj=file) as unpacked:
        while True:
            try:
                chunk = unpacked.read(_CHUNK)
            except EOFError as error:
                raise _DamagedError("it is truncated") from error
            except (gzip.BadGzipFile, zlib.error) as error:
                raise _DamagedError(str(error)) from error
            if not chunk:
                return
            yield chunk


def _unzstd(file: IO[bytes]) -> Iterator[bytes]:
    import zstandard

    # The library's own stream ends without a word where a frame is cut off; one decoder a frame tells.
    frame = None
    while bite := file.read(_ZSTD_BITE):
        while bite:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                chunk = frame.decompress(bite)
            except (zstandard.ZstdError, MemoryError) as error:
                raise _DamagedError(str(error)) from error
            bite = b""
            if frame.eof:
                bite, frame = frame.unused_data, None
            if chunk:
                yield chunk
    if frame is not None:
        raise _DamagedError("it is truncated")

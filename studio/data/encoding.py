"""What the bytes of a data file are: UTF-8, another encoding of text, or no text at all.

Only UTF-8 is read. Everything else is named as precisely as its bytes allow, with the command that converts it;
nothing is converted silently, since a wrong guess would train on broken letters.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from studio.errors import InputError

_EXPORT = "Export the data as JSONL: one JSON object in each line, UTF-8"
PARQUET, ARROW, ARROW_STREAM = "a Parquet file", "an Arrow file", "an Arrow stream"
BINARY_KINDS = {
    "a ZIP archive (or an Excel file)": "Unpack it, or export the sheet as JSONL",
    "an XZ archive": "Unpack it with unxz",
    "a bzip2 archive": "Unpack it with bunzip2",
    "a tar archive": "Unpack it with tar -xf, and name a file or folder of it",
    "a GGUF model": "Name a data file here; models belong in model.path",
}
_MAGIC = (
    (b"PAR1", PARQUET),
    (b"ARROW1", ARROW),
    (b"\xff\xff\xff\xff", ARROW_STREAM),
    (b"PK\x03\x04", "a ZIP archive (or an Excel file)"),
    (b"\xfd7zXZ", "an XZ archive"),
    (b"BZh", "a bzip2 archive"),
    (b"GGUF", "a GGUF model"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "an SQLite database"),
)
_UNPACK = {".gz": "gunzip -c", ".zst": "zstd -dc", ".zstd": "zstd -dc"}
_HIGH_RUNS = re.compile(rb"[\x80-\xff]+")


def require_text(head: bytes, path: Path) -> None:
    """Refuse a file whose first bytes show that it is not UTF-8 text.

    Raises:
        InputError: it is binary (which kind is said), or text in UTF-16 or UTF-32.
    """
    if (kind := first_bytes_kind(head)) is not None:
        raise InputError(f"this is {kind}, which is not read", where=str(path), fix=BINARY_KINDS.get(kind, _EXPORT))
    if (wide := wide_encoding(head)) is not None:
        raise _not_utf8(path, 1, wide, f"the first bytes are {head[:4].hex(' ')} (offset 0, line 1)")


def first_bytes_kind(head: bytes) -> str | None:
    """Return what a file is by its first bytes if it is binary, None if it may be text in some encoding."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive"
    if b"\x00" in head and wide_encoding(head) is None:
        return "a binary file"
    return None


def wide_encoding(head: bytes) -> str | None:
    """Return UTF-16 or UTF-32 with its byte order if the first bytes look like it, else None."""
    for mark, name in (
        (b"\xff\xfe\x00\x00", "UTF-32LE"),
        (b"\x00\x00\xfe\xff", "UTF-32BE"),
        (b"\xff\xfe", "UTF-16"),
        (b"\xfe\xff", "UTF-16"),
    ):
        if head.startswith(mark):
            return name
    if len(head) >= 4 and head[:1] in b"[{ \r\n\t" and head[1] == 0:
        return "UTF-32LE" if head[1:4] == b"\x00\x00\x00" else "UTF-16LE"
    if len(head) >= 4 and head[0] == 0:
        return "UTF-32BE" if head[:3] == b"\x00\x00\x00" else "UTF-16BE"
    return None


def decode(data: bytes, path: Path, offset: int, row: int | None, line: int = 1) -> str:
    """Decode UTF-8.

    Args:
        data: the bytes.
        path: their file, for the error.
        offset: place of `data` in the file (bytes).
        row: number of the row that the bytes are, which is their line too; None where rows are not lines.
        line: number of the line that `data` begins in, where `row` is None.

    Raises:
        InputError: they are not UTF-8; it names the byte, the row, the likely encoding and the iconv command.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = (row or line) + data.count(b"\n", 0, error.start)
        likely = likely_encoding(data if len(data) < 1 << 20 else data[error.start : error.start + (1 << 20)], offset)
        found = f"byte 0x{data[error.start]:02x} at offset {offset + error.start} (line {line})"
        raise _not_utf8(path, line if row is not None else None, likely, found) from error


def whole_characters(data: bytes) -> int:
    """Return how many bytes of `data` are whole characters: 1 to 3 bytes less where its last one is cut."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needs = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if needs > back else len(data)
        if byte < 0x80:
            break
    return len(data)


def _not_utf8(path: Path, row: int | None, likely: str, found: str) -> InputError:
    name = shlex.quote(path.name)
    target = f"utf8-{path.name}"
    command = f"iconv -f {likely} -t UTF-8 {name}"
    if (unpack := _UNPACK.get(path.suffix.lower())) is not None:
        target = target.removesuffix(path.suffix)
        command = f"{unpack} {name} | iconv -f {likely} -t UTF-8"
    return InputError(
        f"not UTF-8: {found}; the file looks like {likely}",
        where=path.name if row is None else f"{path.name}, row {row}",
        fix=f"Run `{command} > {shlex.quote(target)}`, and use that file",
    )


def likely_encoding(data: bytes, offset: int = 0) -> str:
    """Name the encoding, as iconv calls it, that bytes which are not UTF-8 most likely have."""
    if offset == 0 and (wide := wide_encoding(data[:64])):
        return wide
    runs = _HIGH_RUNS.findall(data)
    if runs and all(len(run) % 2 == 0 for run in runs) and max(map(len, runs)) >= 4 and _is_chinese(runs):
        return "GB18030"
    # 0x80 to 0x9f are control characters in ISO-8859-1, but letters and quotes in Windows' variant of it.
    return "WINDOWS-1252" if any(re.search(rb"[\x80-\x9f]", run) for run in runs) else "ISO-8859-1"


def _is_chinese(runs: list[bytes]) -> bool:
    try:
        text = b"".join(runs).decode("gb18030")
    except UnicodeDecodeError:
        return False
    common = sum("\u4e00" <= letter <= "\u9fff" or "\u3000" <= letter <= "\u303f" for letter in text)
    return common >= 0.8 * len(text)

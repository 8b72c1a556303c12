"""What the bytes of a data file are: UTF-8, another encoding of text, or no text at all.

Only UTF-8 is read. Everything else is named as precisely as its bytes allow, with the command that converts it;
nothing is converted silently, since a wrong guess would train on broken letters.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from studio.errors import InputError

_EXPORT = "Export the data as JSONL: one JSON object per line, UTF-8"
PARQUET, ARROW, ARROW_STREAM = "a Parquet file", "an Arrow file", "an Arrow stream"
_PICKLE, _ZIP, _MODEL = "a Python pickle", "a ZIP archive", "a model's weights (safetensors)"
_OFFICE = "a legacy Office document (.doc, .xls)"
BINARY_KINDS = {
    _PICKLE: "Unpickling can run code, so pickles are never opened here. In the program that wrote it, write each row "
    "as a JSONL line: `json.dumps(row, ensure_ascii=False)`",
    _ZIP: "Unpack it and give a file or folder from it",
    "an Excel workbook": "Save the sheet as CSV (UTF-8)",
    "an OpenDocument spreadsheet": "Save the sheet as CSV (UTF-8)",
    _OFFICE: "Save the table as CSV (UTF-8), or the text as plain text (UTF-8)",
    "a Word document": "Save it as plain text (UTF-8)",
    "an OpenDocument text": "Save it as plain text (UTF-8)",
    "RTF": "Save it as plain text (UTF-8)",
    "a PowerPoint presentation": "Save its text as plain text (UTF-8)",
    "an e-book (EPUB)": "Save its text as plain text (UTF-8)",
    "a PDF": "Extract its text with `pdftotext` and check the result",
    "a PyTorch file": "Write its rows as JSONL in the program that wrote it; models go in model.path",
    "a NumPy file": "Write its rows as JSONL or Parquet in the program that wrote it",
    "an XZ archive": "Unpack it with unxz",
    "a bzip2 archive": "Unpack it with bunzip2",
    "a 7z archive": "Unpack it with `7z x`",
    "a RAR archive": "Unpack it with `unrar x`",
    "a tar archive": "Unpack it with tar -xf and give a file or folder from it",
    "a GGUF model": "Give a data file here; models go in model.path",
    _MODEL: "Give a data file here; models go in model.path",
    "an image": "Give a text file; only text is trained on",
    "an HTML page": "It is often a sign-in or error page that was saved instead of the file; download the file again",
    "XML": _EXPORT,
    "a Git LFS pointer, not the file itself": "Run `git lfs pull` in its repository, or download the file",
}
_MAGIC = (
    (b"PAR1", PARQUET),
    (b"ARROW1", ARROW),
    (b"\xff\xff\xff\xff", ARROW_STREAM),
    (b"PK\x03\x04", _ZIP),
    (b"\xfd7zXZ", "an XZ archive"),
    (b"BZh", "a bzip2 archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"GGUF", "a GGUF model"),
    (b"%PDF", "a PDF"),
    (b"{\\rtf", "RTF"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"Obj\x01", "an Avro file"),
    (b"\xd0\xcf\x11\xe0", _OFFICE),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
)
# What the names of the first files in a ZIP archive, which stand in it as they are, say of it.
_ZIPPED = (
    (b"word/", "a Word document"),
    (b"xl/", "an Excel workbook"),
    (b"ppt/", "a PowerPoint presentation"),
    (b"opendocument.text", "an OpenDocument text"),
    (b"opendocument.spreadsheet", "an OpenDocument spreadsheet"),
    (b"application/epub", "an e-book (EPUB)"),
    (b"data.pkl", "a PyTorch file"),
    (b".npy", "a NumPy file"),
)
# Protocols 2 to 5 begin with their number; older ones with a list, a dict or the import of a class.
_PICKLED = re.compile(
    rb"\x80[\x02-\x05]|\([dl]p\d+\n|[\]}]q\x00|c(?:copy_reg|__builtin__|builtins|collections|numpy|pandas)[\w.]*\n\w+\n"
)
_SAID_TEXTS = (
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer, not the file itself"),
    (re.compile(rb"<!doctype html|<html[\s>]", re.I), "an HTML page"),
    (re.compile(rb"<\?xml\s|<rows?[\s>]", re.I), "XML"),
)
_UNPACK = {".gz": "gunzip -c", ".zst": "zstd -dc", ".zstd": "zstd -dc"}
# What safetensors itself allows.
_MODEL_HEADER_BYTES = 100_000_000
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_HIGH_RUNS = re.compile(rb"[\x80-\xff]+")


def require_text(head: bytes, path: Path) -> None:
    """Refuse a file whose first bytes show that it is not UTF-8 text.

    Raises:
        InputError: it is binary (which kind is said), or text in UTF-16 or UTF-32.
    """
    kind = first_bytes_kind(head)
    if kind == "a binary file" and b"\0" not in (text := head.rstrip(b"\0")) and len(text) >= 16:
        raise InputError(
            f"from byte {len(text):,} on the file has only NUL bytes, so it was probably not fully written",
            where=str(path),
            fix="Wait until it is fully written, or copy or download it again",
        )
    if kind is not None:
        raise InputError(
            f"this is {kind}, which is not supported", where=str(path), fix=BINARY_KINDS.get(kind, _EXPORT)
        )
    if (wide := wide_encoding(head)) is not None:
        raise _not_utf8(path, 1, wide, f"the first bytes are {head[:4].hex(' ')} (offset 0, line 1)")


def first_bytes_kind(head: bytes) -> str | None:
    """Return what a file is by its first bytes if it is binary, None if it may be text in some encoding."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return next((inner for name, inner in _ZIPPED if name in head), kind) if kind == _ZIP else kind
    if _PICKLED.match(head):
        return _PICKLE
    if head[257:262] == b"ustar":
        return "a tar archive"
    if b"\x00" in head and wide_encoding(head) is None:
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _MODEL_HEADER_BYTES:
            return _MODEL
        return "a binary file"
    return "a binary file" if _is_binary(head) else None


def _is_binary(head: bytes) -> bool:
    """Whether bytes that are not UTF-8 hold more control characters than text of any encoding does."""
    if wide_encoding(head) is not None:
        return False
    try:
        head[: whole_characters(head)].decode("utf-8")
    except UnicodeDecodeError:
        return len(_CONTROL.findall(head)) > len(head) / 50
    return False


def foreign_text(head: bytes, is_text: bool) -> str | None:
    """Return what a file of text is that holds no rows (an HTML page, a Git LFS pointer), None if it may hold some.

    Args:
        head: its first bytes.
        is_text: whether its name says plain text, which may hold anything.
    """
    begun = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    found = next((kind for pattern, kind in _SAID_TEXTS if pattern.match(begun)), None)
    return None if is_text and found in ("an HTML page", "XML") else found


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
    # Of most letters of Latin script the upper byte is 0.
    pairs = head[: min(len(head), 512) // 2 * 2]
    letters = all(byte >= 32 or byte in b"\t\r\n" for byte in pairs[::2])
    if len(pairs) >= 16 and letters and pairs[1::2].count(0) >= 0.9 * len(pairs) / 2:
        return "UTF-16LE"
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
        other = _not_utf8(path, line if row is not None else None, likely, found, _shown(data, error.start, likely))
        if error.reason == "unexpected end of data":
            raise _ends_within(other, found) from error
        raise other from error


def _shown(data: bytes, at: int, encoding: str) -> str:
    """Some text around a byte as another encoding has it, which a person knows to be right or wrong; "" if none."""
    begun, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
    near = data[max(begun, at - 10) : min(len(data) if end < 0 else end, at + 20)]
    return near.decode(encoding, "replace").strip("\ufffd\r")


def _ends_within(other: InputError, found: str) -> InputError:
    """The error for text whose last character is not whole: more often a file cut off than one in another encoding."""
    return InputError(
        f"the text ends in the middle of a character: {found}; the file is truncated, still being written, or not "
        f"UTF-8",
        where=other.where,
        fix=f"Wait until it is fully written, or copy or download it again; if it is complete: {other.fix[:1].lower()}"
        f"{other.fix[1:]}",
    )


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


def _not_utf8(path: Path, row: int | None, likely: str, found: str, shown: str = "") -> InputError:
    name = shlex.quote(path.name)
    target = f"utf8-{path.name}"
    command = f"iconv -f {likely} -t UTF-8 {name}"
    if (unpack := _UNPACK.get(path.suffix.lower())) is not None:
        target = target.removesuffix(path.suffix)
        command = f"{unpack} {name} | iconv -f {likely} -t UTF-8"
    return InputError(
        f"not UTF-8: {found}; the file looks like {likely}",
        where=path.name if row is None else f"{path.name}, row {row}",
        fix=f"Run `{command} > {shlex.quote(target)}`, and use that file"
        + (f". That decodes to {shown!r} there; if that looks wrong, the encoding is a different one" if shown else ""),
    )


def likely_encoding(data: bytes, offset: int = 0) -> str:
    """Name the encoding, as iconv calls it, that bytes which are not UTF-8 most likely have."""
    if offset == 0 and (wide := wide_encoding(data[:64])):
        return wide
    runs = _HIGH_RUNS.findall(data)
    if runs and sum(map(len, runs)) >= 2 * len(runs) and max(map(len, runs)) >= 4:
        found = next((name for name, codec, script in _SCRIPTS if _is_script(data, codec, script)), None)
        if found is not None:
            return found
    # 0x80 to 0x9f are control characters in ISO-8859-1, but letters and quotes in Windows' variant of it.
    return "WINDOWS-1252" if any(re.search(rb"[\x80-\x9f]", run) for run in runs) else "ISO-8859-1"


def _is_script(data: bytes, codec: str, script: Callable[[str], float]) -> bool:
    """Whether bytes that are not UTF-8 are letters of a script, all but a few, in an encoding of it."""
    # A letter may be cut at either end of what is looked at.
    text = data.decode(codec, "replace").strip("\ufffd")
    letters = [letter for letter in text if letter > "\x7f"]
    return "\ufffd" not in letters and bool(letters) and script("".join(letters)) >= _OF_SCRIPT * len(letters)


def _count(*ranges: tuple[str, str]) -> Callable[[str], float]:
    return lambda text: sum(any(low <= letter <= high for low, high in ranges) for letter in text)


def _japanese(text: str) -> float:
    """Letters of Japanese, if enough of them are kana: its other letters are those of Chinese."""
    kana = sum("\u3041" <= letter <= "\u30ff" for letter in text)
    count = _count(("\u3000", "\u30ff"), ("\u4e00", "\u9fff"), ("\uff01", "\uff5e"))
    return count(text) if 4 * kana >= len(text) else 0


def _cyrillic(text: str) -> float:
    """Cyrillic letters, if most are small: in another of its encodings they come out as capitals, or as signs."""
    return sum(letter in _SMALL_CYRILLIC for letter in text) / 0.8


# How the C library calls an encoding, how Python does, and how many letters of a text are of its script.
_SMALL_CYRILLIC = frozenset(map(chr, range(0x430, 0x460))) | {"\u0491"}
_OF_SCRIPT = 0.9
_SCRIPTS: tuple[tuple[str, str, Callable[[str], float]], ...] = (
    ("WINDOWS-1251", "cp1251", _cyrillic),
    ("KOI8-R", "koi8_r", _cyrillic),
    ("SHIFT_JIS", "shift_jis", _japanese),
    ("EUC-JP", "euc_jp", _japanese),
    ("EUC-KR", "euc_kr", _count(("\uac00", "\ud7a3"), ("\u3000", "\u303f"))),
    ("GB18030", "gb18030", _count(("\u4e00", "\u9fff"), ("\u3000", "\u303f"), ("\uff01", "\uff5e"))),
    ("BIG5", "big5", _count(("\u4e00", "\u9fff"), ("\u3000", "\u303f"), ("\uff01", "\uff5e"))),
)

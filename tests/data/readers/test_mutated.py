"""500 damaged files: each gives rows or one sentence that names the file; nothing else is raised, and nothing hangs.

Everything comes from a seed, so a failure names a file that can be made again:
`python -m tests.data.readers.test_mutated GROUP SEED` writes it.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.config.data import DataSource
from studio.data.files.datafiles import read_rows
from studio.data.files.rowindex import row_index
from studio.data.formats.rows import kind_of
from studio.data.sources.locate import locate
from studio.data.sources.parsing import parse_source
from studio.errors import InputError, InputErrors
from studio.settings import Settings
from tests.data.readers.kinds import PACKINGS, WRITERS, Rows
from tests.data.rows import chat

SEEDS = 20
SECONDS = 10.0
ROWS: dict[str, Rows] = {
    "messages": [chat(f'question {n}, "á"\n', f"answer 🙂 {n}") for n in range(6)],
    "plain": [{"prompt": f"p {n}", "completion": f" c;{n}\t'x'"} for n in range(6)],
    "pairs": [{"prompt": f"p {n}", "chosen": "good", "rejected": "bad"} for n in range(6)],
    "text": [{"text": f"line {n}\nmore ö"} for n in range(6)],
}
GROUPS = [f"{file}{packing}" for file in WRITERS for packing in PACKINGS]
# Stretches that mean something to one of the readers.
BITS = [
    b"\x00", b"\x00" * 64, b"\xef\xbb\xbf", b"\xff\xfe", b"\xe9", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b'"', b'""',
    b"'", b"\r", b"\n", b"\r\n\n", b",", b"\t", b";", b"[", b"]", b"{", b"}", b"\\", b"\\ud800", b"\\x", b":", b"NaN",
    b"-Infinity", b"1e999", b"9" * 5000, b"[" * 300, b'{"a":' * 2000, b'{"a": 1, "a": 2}', b'{"data": [', b"null",
    b"PAR1", b"ARROW1", b"\xff\xff\xff\xff", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x1a",
    "é".encode("utf-16"), "é".encode("cp1252"),
]  # fmt: skip
VALUES: list[Any] = [
    None, True, 0, -1, 2**53, 1.5, "", " ", [], {}, [[]], [None], "\u0000", "a" * 70_000, [{"role": "user"}],
    [{"role": 5, "content": []}], {"from": "gpt", "value": "x"}, [{"role": "assistant", "content": {"text": "x"}}],
]  # fmt: skip


def wrong_values(rows: Rows, rng: random.Random) -> Rows:
    """Rows in which values, keys and messages have become something else."""

    def value() -> Any:
        # A copy: a value that is put into itself has no end.
        return copy.deepcopy(rng.choice(VALUES))

    rows = copy.deepcopy(rows)
    for _ in range(rng.randint(1, 3)):
        row = rng.choice(rows)
        key = rng.choice(list(row) or ["new"])
        what = rng.randrange(5)
        if what == 0:
            row[key] = value()
        elif what == 1:
            row[rng.choice(["", "label", "tools", "messages", "text", "é", "a" * 300])] = value()
        elif what == 2:
            row.pop(key, None)
        elif isinstance(row.get(key), list) and row[key]:
            message = rng.choice(row[key])
            if isinstance(message, dict):
                message[rng.choice(["role", "content", "weight", "x"])] = value()
        else:
            rows.append(row)
    return rows


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes that were cut, overwritten, moved, doubled or converted."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        at, to = sorted(rng.randint(0, len(data)) for _ in range(2))
        what = rng.randrange(8)
        if what == 0:
            data = data[:at]
        elif what == 1:
            data = data[:at] + rng.choice(BITS) + data[at:]
        elif what == 2:
            bit = rng.choice(BITS)
            data = data[:at] + bit + data[at + len(bit) :]
        elif what == 3:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif what == 4:
            data = data[:at] + data[to:]
        elif what == 5:
            data = data[:to] + data[at:]
        elif what == 6:
            data = data[:at] + b"\x00" * (to - at) + data[to:]
        else:
            text = data.decode("utf-8", "replace")
            data = text.encode(rng.choice(["latin-1", "cp1252", "utf-16", "utf-32-le", "utf-8-sig"]), "replace")
    return data


def mutated(group: str, seed: int) -> bytes:
    """The bytes of one file: wrong in its values, in its text, in its archive, or in several of them."""
    rng = random.Random(f"{group} {seed}")
    file = next(name for name in WRITERS if group.startswith(name))
    packing = group.removeprefix(file)
    rows = ROWS["text"] if file == "rows.txt" else ROWS[rng.choice(list(ROWS))]
    where = rng.choice(["values", "text", "archive"] if packing else ["values", "text"])
    if where == "values" and file != "rows.txt":
        try:
            rows = wrong_values(rows, rng)
            data = WRITERS[file](rows)
        except (ValueError, TypeError, NotImplementedError):
            # Columns of one type cannot hold these values; neither could the tool that wrote the file.
            data = damaged(WRITERS[file](ROWS["plain"]), rng)
    else:
        data = WRITERS[file](rows)
    if where == "text":
        data = damaged(data, rng)
    data = PACKINGS[packing](data)
    return damaged(data, rng) if where == "archive" else data


def outcome(path: Path, settings: Settings) -> str:
    """Read a file as a run and as the preview do; "rows", or the first sentence.

    Raises:
        AssertionError: rows that cannot be written again, a sentence without its parts, or too long a time.
    """

    def read() -> None:
        for _, row in read_rows(path):
            json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8")

    def parse() -> None:
        source = DataSource(path=str(path))
        kind = kind_of(next(read_rows(path))[1])
        parse_source(source, locate(source, settings), "train", kind=kind)

    def preview() -> None:
        index = row_index(path, settings)
        index.row(1)
        index.row(index.count)

    said = [_said(step, path) for step in (read, parse, preview)]
    assert said[0] != "rows" or said[2] == "rows", "the preview fails where reading does not"
    assert len(said[0]) < 1500, said[0][:1500]
    return next((one for one in said if one != "rows"), "rows")


def _said(step: Callable[[], None], path: Path) -> str:
    # Of this process, so that a busy machine changes nothing.
    began = time.process_time()
    error: InputError | None = None
    try:
        step()
    except InputErrors as several:
        error = several.errors[0]
    except InputError as one:
        error = one
    assert time.process_time() - began < SECONDS
    if error is None:
        return "rows"
    assert path.name in error.where, error.sentence
    assert error.what, error.sentence
    assert error.fix, error.sentence
    return error.sentence


@pytest.mark.parametrize("group", GROUPS)
def test_damaged_files(tmp_path: Path, settings: Settings, group: str) -> None:
    said = []
    for seed in range(SEEDS):
        path = tmp_path / f"{seed}-{group}"
        path.write_bytes(mutated(group, seed))
        try:
            said.append(outcome(path, settings))
        except Exception as error:
            raise AssertionError(f"{group}, seed {seed}: {error!r}") from error
    # Damage that nobody notices would prove nothing; damage of one sort little.
    assert said.count("rows") < 0.8 * SEEDS
    assert len(set(said)) > 4


MB = 1 << 20
SPECIAL: dict[str, Callable[[], bytes]] = {
    "line of 100 MB.jsonl": lambda: b'{"text": "a"}\n{"text": "' + b"a" * (100 * MB) + b'"}\n',
    "row of 100 MB.json": lambda: b'[{"text": "a"}, {"text": "' + b"a" * (100 * MB) + b'"}]',
    "cell of 100 MB.csv": lambda: b'text\na\n"' + b"a\n" * (50 * MB) + b'"\n',
    "line of 100 MB.txt": lambda: b"a\n\n" + b"a" * (100 * MB),
    "packed line of 100 MB.jsonl.gz": lambda: PACKINGS[".gz"](b'{"text": "' + b"a" * (100 * MB) + b'"}'),
    "packed line of 100 MB.jsonl.zst": lambda: PACKINGS[".zst"](b'{"text": "' + b"a" * (100 * MB) + b'"}'),
    "never closed.json": lambda: b'[{"text": "a"}, {"text": "' + b"a, b: c\\n " * (2 * MB),
    "never closed.csv": lambda: b'text\n"' + b"a, b\n" * (2 * MB),
    "deep.json": lambda: b'[{"a": ' + b"[" * (2 * MB),
    "deep keys.jsonl": lambda: b'{"a": ' * (2 * MB),
    "deep but closed.jsonl": lambda: b'{"a": ' * 900 + b"1" + b"}" * 900,
    "digits.jsonl": lambda: b'{"a": ' + b"9" * (2 * MB) + b"}",
    "blank lines.jsonl": lambda: b"\n" * (2 * MB),
    "blank.json": lambda: b" " * (4 * MB),
    "quotes.csv": lambda: b'"' * (2 * MB),
    "commas.csv": lambda: b"," * (2 * MB),
    "names.csv": lambda: b",".join(b"c%d" % n for n in range(20_000)) + b"\n1\n",
    "surrogates.jsonl": lambda: b'{"text": "' + b"\\ud800" * 100_000 + b'"}',
    "brackets.json": lambda: b"[" + b"{}," * 300_000 + b"{}",
    "many keys.jsonl": lambda: json.dumps({f"k{n}": n for n in range(100_000)}).encode(),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_files_made_to_hurt(tmp_path: Path, settings: Settings, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(SPECIAL[name]())
    assert outcome(path, settings) != "rows"
    path.unlink()


def test_there_are_500_files() -> None:
    assert len(GROUPS) * SEEDS + len(SPECIAL) == 500


if __name__ == "__main__":
    _, wanted, number = sys.argv
    Path(wanted).write_bytes(mutated(wanted, int(number)))

"""Cleaned copies: a cleaned copy of a run's data, with a manifest that says what was left out and why.

The copy has one row form per kind of method, reads back to the very same examples (each row is tried), and is never
written over another. The person's own files are only read.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from studio import __version__
from studio.config.data import DataConfig
from studio.data.files.datafiles import file_sha256, place
from studio.data.files.tables import Writer, writer_for
from studio.data.formats.answers import Example
from studio.data.formats.rows import detect_format, parse_row
from studio.data.masks.masker import Masker
from studio.data.prepare.duplicates import Doubles
from studio.data.prepare.findings import NOTES
from studio.data.prepare.units import encode
from studio.data.quality.contents import check_of, checks_of
from studio.data.quality.profile import all_rows
from studio.data.quality.secrets import hide_secrets
from studio.data.sandbox.bounds import OutOfBoundsError
from studio.data.sources.held import characters, in_blocks
from studio.data.sources.stream import Read, Source
from studio.errors import InputError, StudioError
from studio.methods import Method, RowKind
from studio.settings import Settings

Values = dict[str, Any]
MANIFEST = "manifest.json"
FORMATS = ("jsonl", "parquet")
_TEXT_CHECKS = ("empty_answer", "unusable", "answer_is_prompt", "broken_characters", "secret")
_TOKEN_CHECKS = ("too_long", "control_token", *NOTES)
DROPPABLE = (*_TEXT_CHECKS, *_TOKEN_CHECKS)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Keys that an answer was read from; a set of prompts has it in `answer`.
_OF_ANSWERS = ("messages", "conversations", "system", "instruction", "input", "output", "history", "completion")


@dataclass(frozen=True)
class Keep:
    """What is to be written; made by `checked`."""

    name: str
    format: str
    drop: tuple[str, ...]
    hide: bool

    @classmethod
    def checked(cls, name: str, format: str, drop: Iterable[str], hide: bool) -> Keep:
        """Return the request.

        Args:
            name: of the new dataset.
            format: one of `FORMATS`.
            drop: checks whose rows are left out; named twice counts once.
            hide: replace keys, passwords and email addresses.

        Raises:
            InputError: the name, the format or a check cannot be used.
        """
        require_name(name)
        if format not in FORMATS:
            raise InputError(f"'{format}' is not a format", where="format", fix=f"Use one of: {', '.join(FORMATS)}")
        for check in drop:
            if check not in DROPPABLE:
                about = "Duplicates are dropped by data.deduplicate. " if "dupl" in check or "leak" in check else ""
                raise InputError(
                    f"rows cannot be dropped by '{check}'", where="drop", fix=f"{about}Use {', '.join(DROPPABLE)}"
                )
        return cls(name, format, tuple(dict.fromkeys(drop)), hide)

    @property
    def needs_model(self) -> bool:
        """Whether a check counts tokens."""
        return any(check in _TOKEN_CHECKS for check in self.drop)


def write(
    keep: Keep,
    config: DataConfig,
    method: Method,
    sources: Sequence[Source],
    masker: Masker | None,
    settings: Settings,
    on_rows: Callable[[int], None],
) -> Values:
    """Write train.jsonl (or .parquet), validation.jsonl if the run has a file for it, and manifest.json.

    Args:
        keep: what is asked.
        config: section `data`: its sources, `deduplicate` and `max_length`.
        method: decides how rows are read and written.
        sources: the run's, opened.
        masker: of the model, where a check needs it.
        settings: the set lands in `settings.home / "data"`.
        on_rows: told how many rows were read; what it raises ends the work and removes what was written.

    Returns:
        path, and the values of the manifest.

    Raises:
        InputError: a row cannot be used and is not to be left out, or no row is left.
    """
    folder = _claim(settings.home / "data", keep.name)
    try:
        cleaning = _Cleaning(keep, config, method.rows, sources, masker)
        writers: dict[str, Writer] = {}
        for source, example in cleaning.rows(on_rows):
            part = sources[source].part
            if part not in writers:
                writers[part] = writer_for(folder / f"{part}.{keep.format}")
            writers[part].add(row_of(example, method.rows))
        for writer in writers.values():
            writer.close()
        if "train" not in writers:
            raise InputError("no rows are left to save", where="data.train", fix="Drop fewer of them")
        manifest = {
            "name": folder.name, "studio": __version__, "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": [
                {"file": one.path.name, "part": part, "rows": one.rows, "sha256": file_sha256(one.path)}
                for part, one in writers.items()
            ],
            "reading": "raw" if any(source.reading.read_as == "raw" for source in sources) else "auto",
            **cleaning.figures(),
            "settings": {
                "method": method.name, "data": config.model_dump(mode="json"), "format": keep.format,
                "drop": list(keep.drop), "hide_secrets": keep.hide,
                "model": masker.tokenizer.name_or_path if masker else None,
            },
        }  # fmt: skip
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder)
        raise
    return {"path": str(folder), **manifest}


class _Cleaning:
    """The rows that stay, and the counts of those that do not."""

    def __init__(
        self, keep: Keep, config: DataConfig, kind: RowKind, sources: Sequence[Source], masker: Masker | None
    ) -> None:
        self.keep, self.config, self.kind, self.sources, self.masker = keep, config, kind, sources, masker
        self.read = self.hidden = 0
        self.left_out: list[Counter[str]] = [Counter() for _ in sources]
        self.kept, self.unread = Counter[int](), Counter[str]()
        self._doubles = None if config.deduplicate == "none" else Doubles(near=config.deduplicate == "near")

    def rows(self, on_rows: Callable[[int], None]) -> Iterator[tuple[int, Example]]:
        """Yield (source, example) of the rows that stay."""
        for some in in_blocks(all_rows(self.sources), lambda read: characters(read.example)):
            self.read += len(some)
            clean = [(read.place.source, one) for read in some if (one := self._cleaned(read)) is not None]
            for source, example in self._within_tokens(clean):
                if self._doubles and self._doubles.add(example) is not None:
                    self.left_out[source]["duplicate"] += 1
                    continue
                self.kept[source] += 1
                self.unread.update(example.unused)
                yield source, example
            on_rows(self.read)

    def figures(self) -> Values:
        """What happened, for the manifest."""
        left_out: Counter[str] = sum(self.left_out, Counter())
        return {
            "rows": self.read, "kept": self.kept.total(), "left_out": dict(left_out), "hidden_secrets": self.hidden,
            "unread_keys": dict(self.unread),
            "sources": [
                {
                    "path": one.config.path, "file": str(one.located.files[0]), "part": one.part, "format": one.format,
                    "sha256": one.located.sha256(), "bytes": one.located.bytes,
                    "kept": self.kept[one.index], "left_out": dict(self.left_out[one.index]),
                }
                for one in self.sources
            ],
        }  # fmt: skip

    def _cleaned(self, read: Read) -> Example | None:
        """A row with its secrets hidden if asked, None if it is left out."""
        if read.error is not None:
            self._refused(read.error, check_of(read.error), read.place.source)
            return None
        if (example := read.example) is None:
            return None
        if self.keep.hide:
            example, count = _hidden(example)
            self.hidden += count
        found, _ = checks_of(example)
        return self._without(example, found, read.place.source)

    def _within_tokens(self, rows: list[tuple[int, Example]]) -> list[tuple[int, Example]]:
        """The rows that no check of the tokens leaves out."""
        if self.masker is None or not rows:
            return rows
        kept = []
        for source, example in rows:
            try:
                units = encode(self.kind, [example], self.masker)
            except OutOfBoundsError:
                raise
            except InputError as error:
                self._refused(error, check_of(error), source)
                continue
            found = [note for unit in units for note in unit.notes]
            found += ["too_long"] if any(unit.length > self.config.limit for unit in units) else []
            if self._without(example, found, source) is not None:
                kept.append((source, example))
        return kept

    def _without(self, example: Example, found: Sequence[str], source: int) -> Example | None:
        check = next((one for one in self.keep.drop if one in found), None)
        if check is None:
            return example
        self.left_out[source][check] += 1
        return None

    def _refused(self, error: InputError, check: str, source: int) -> None:
        if check not in self.keep.drop:
            raise InputError(
                error.what, where=error.where, fix=f"{error.fix}; or drop such rows with drop: {check}"
            ) from error
        self.left_out[source][check] += 1


def row_of(example: Example, kind: RowKind) -> Values:
    """Return the row that is written for an example.

    Raises:
        StudioError: it would not read back as the same example.
    """
    row = _written(example, kind)
    name = Path(example.path)
    try:
        back = parse_row(row, example.row, name, detect_format([(example.row, row)], name, kind), kind)
    except InputError as error:
        raise _lossy(example) from error
    if replace(back, format=example.format) != example:
        raise _lossy(example)
    return row


def _written(example: Example, kind: RowKind) -> Values:
    row = _plain_row(example, kind)
    return row if example.tools is None else {**row, "tools": example.tools}


def _plain_row(example: Example, kind: RowKind) -> Values:
    if example.text is not None:
        return {"text": example.text}
    start = example.trained_from
    before: Any = example.prompt if example.messages is None else example.messages[:start]
    after: Any = example.completion if example.messages is None else example.messages[start:]
    if kind == "prompts":
        columns = {key: value for key, value in example.columns.items() if key not in _OF_ANSWERS}
        row = {"prompt": example.prompt if example.messages is None else example.messages, **columns}
        return row if example.answer is None else {**row, "answer": example.answer}
    if example.rejected is not None:
        rejected = example.rejected if isinstance(example.rejected, str) else example.rejected[start:]
        return {"prompt": before, "chosen": after, "rejected": rejected}
    rated = {} if example.label is None else {"label": example.label}
    if example.messages is not None and not start:
        return {"messages": example.messages, **rated}
    return {"prompt": before, "completion": after, **rated}


def _lossy(example: Example) -> StudioError:
    return StudioError(
        "the row does not read back the same after writing",
        where=place(example.path, example.row),
        fix="Drop it, or use the file as it is; this is a bug in the studio, please report it with the row",
    )


def _hidden(example: Example) -> tuple[Example, int]:
    """The example with its secrets replaced, and how many there were."""
    count = 0

    def clean(text: str) -> str:
        nonlocal count
        shown, found = hide_secrets(text)
        count += found
        return shown

    def cleaned(value: Any) -> Any:
        if isinstance(value, str):
            return clean(value)
        return None if value is None else [{**one, "content": clean(one.get("content") or "")} for one in value]

    fields = {name: cleaned(getattr(example, name)) for name in ("messages", "prompt", "completion", "text", "answer")}
    rejected = example.rejected
    if isinstance(rejected, list):
        # The prompt stands in both; its secrets are counted once.
        shared = (fields["messages"] or [])[: example.trained_from]
        fields["rejected"] = shared + cleaned(rejected[example.trained_from :])
    else:
        fields["rejected"] = cleaned(rejected)
    return replace(example, **fields), count


def _claim(home: Path, name: str) -> Path:
    """Make the folder of a new set: NAME, or NAME-2, NAME-3 … where that is taken."""
    home.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = home / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("count never ends")


def require_name(name: str) -> None:
    """Refuse a name that could be a path.

    Raises:
        InputError: it has other characters than letters, digits, points and dashes.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"'{name}' is not a name", where="name", fix="Use letters, digits, dots and dashes, at most 64"
        )

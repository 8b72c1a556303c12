"""How the rows of a source become examples: mapped, their format found, understood, and made turns of a conversation
where they are a plain question and its answer and the model is one that is asked in turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.config.data import DataConfig, DataSource
from studio.data.files.datafiles import Row
from studio.data.formats.answers import Example, FormatName, as_conversation
from studio.data.formats.column_names import known_columns, side_columns
from studio.data.formats.columns import Columns
from studio.data.formats.conversations import LIST_KEYS
from studio.data.formats.rows import detect, parse_row
from studio.data.report import ReadAs
from studio.data.sources.locate import Located
from studio.errors import InputError
from studio.methods import MethodConfig, RowKind

# How the reason of a format begins that was told from the names of the columns.
COLUMNS_SAY = "the columns say "
# What a column that was told by its name need not have in every row.
_OPTIONAL = ("input", "system", "answer")
# Rows whose keys are looked at, and about how many characters of them at most.
_LOOKED_AT, _LOOKED_CHARACTERS = 100, 8_000_000


def source_named(data: Mapping[str, Any], path: str) -> DataSource:
    """Return a run's own source of that path, with its mapping of columns.

    Another path is read as the run's first source reads plain texts, since that is how the model was trained.

    Args:
        data: section `data` of the run, plain values.
        path: as the run has it, or where its file is.
    """
    sources = [DataSource.model_validate(values) for values in data.get("train") or []]
    found = next((source for source in sources if source.path == path), None)
    # A link, or a path with "..", may name the same file.
    found = found or next((source for source in sources if _same_file(source.path, path)), None)
    if found is None:
        found = DataSource(path=path, reading=sources[0].plain_reading if sources else "auto")
    markup = data.get("control_tokens") == "keep" and found.plain_reading == "auto"
    return found.model_copy(update={"reading": "raw"}) if markup else found


def _same_file(one: str, other: str) -> bool:
    """Whether two absolute paths are of one file."""
    try:
        return Path(one).is_absolute() and Path(other).is_absolute() and Path(one).samefile(other)
    except (OSError, ValueError):
        return False


def in_turns(template: Any, config: DataConfig | None = None, method: MethodConfig | None = None) -> bool:
    """Whether plain questions and answers become conversations where a source says nothing of its own.

    Args:
        template: the tokenizer's chat template, "" or None for none.
        config: section `data`; rows that may spell control tokens bring their own markup.
        method: section `method`; a method of plain text goes on reading texts as they are.
    """
    markup = config is not None and config.control_tokens == "keep"
    return bool(template) and not markup and (method is None or not method.kind.plain)


def first_keys(located: Located, first: Iterable[tuple[int, Row]] = ()) -> list[str]:
    """Return the keys of the first hundred rows of a source, in order; a key may be missing from its very first row.

    Args:
        located: where the source is.
        first: (number, row) of other rows of it, whose keys come before.
    """
    keys: dict[str, None] = {}
    size = 0
    try:
        for _, row in itertools.chain(first, itertools.islice(located.rows(0), _LOOKED_AT)):
            keys.update(dict.fromkeys(row))
            size += sum(len(value) for value in row.values() if isinstance(value, str))
            if keys.keys() & set(LIST_KEYS) or size > _LOOKED_CHARACTERS:  # turns: no column is told by its name
                break
    except InputError:
        pass  # the row that cannot be read is named where its turn comes
    return list(keys)


class Reading:
    """Reads the rows of one source for one kind of method.

    Args:
        source: as the configuration gives it.
        located: where its rows are.
        kind: what the method learns from.
        turns: whether plain questions and answers are conversations where the source leaves it to the model
            (`in_turns`).

    Raises:
        InputError: a line of the columns' mapping is not Jinja.
    """

    def __init__(self, source: DataSource, located: Located, kind: RowKind, turns: bool = False) -> None:
        # The validators of `DataSource` have made dicts of the texts.
        self._columns = Columns(source.columns if isinstance(source.columns, dict) else None)
        self._tags = source.tags if isinstance(source.tags, dict) else {}
        self._source, self._located, self._kind = source, located, kind
        self._turns = turns if source.plain_reading == "auto" else source.plain_reading == "conversation"
        self.read_as: ReadAs = ""
        self.reason = ""

    def mapped(self, row: Row, number: int) -> Row:
        """Return a stored row in a format of the studio: as dataset_info.json and the columns' mapping say."""
        path = self._located.path
        return self._columns.apply(self._located.studio_row(row, number, self._kind), number, path)

    def format(self, first: Sequence[tuple[int, Row]]) -> tuple[FormatName, str]:
        """Return the source's format and why: its own ("" then), or what the keys of the first rows say.

        Columns that are called question and answer, in whatever language, are taken for what they say, and so is what
        stands beside them: a context and a system prompt. Rows after the first may be those that have it, so the first
        hundred rows of the source are looked at, whichever rows are given.

        Raises:
            InputError: no format that the method can use has these keys.
        """
        if self._source.format != "auto":
            return self._source.format, ""
        inferred = ""
        beside: dict[str, str] = {}
        if first and not self._columns and self._located.entry is None:
            keys = first_keys(self._located, first)
            if not (found := known_columns(keys, self._kind)):
                found = beside = side_columns(keys, self._kind)
            if found:
                self._columns = Columns(found, _OPTIONAL)
                inferred = COLUMNS_SAY + ", ".join(f"{role}={column}" for role, column in found.items())
        shown = [(number, self.mapped(row, number)) for number, row in first]
        detected = detect(shown, self._located.path, self._kind)
        if beside:
            inferred += f"; {detected.reason}"
        self.reason = inferred or detected.reason
        return detected.format, self.reason

    def format_of_any(self, rows: Iterable[tuple[int, Row]]) -> tuple[FormatName, str]:
        """Return the format of the first of some rows that has one, and why, as `format` does.

        Raises:
            InputError: none has one; what is wrong with the first is said.
        """
        problem = None
        for one in rows:
            try:
                return self.format([one])
            except InputError as error:
                problem = problem or error
        if problem is None:
            return self.format([])
        raise problem

    def example(self, row: Row, number: int, format: FormatName) -> Example:
        """Return what a stored row means; `read_as` tells then how the last plain question and answer was read.

        Args:
            row: as it is stored.
            number: of the row, from 1, for errors.
            format: of the mapped row, from `format`.

        Raises:
            InputError: the row cannot be used.
        """
        path = self._located.path
        example = parse_row(self.mapped(row, number), number, path, format, self._kind, self._tags)
        if example.lost and self._source.columns:
            example = replace(example, lost=())  # who has named the columns knows which are left
        if example.prompt is None:
            return example
        self.read_as = "conversation" if self._turns else "raw"
        return as_conversation(example) if self._turns else example

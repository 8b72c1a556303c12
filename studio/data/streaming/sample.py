"""A look at a few rows of each file, for a plan or a preview: bounded in time whatever the files' size.

A run goes through its files before it starts, and knows then. Until that was done once, the first rows of up to eight
files of a source stand for all of them, and where no file says how many rows it has, that is estimated from its size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.config.data import DataConfig, DataSource
from studio.data.files.datafiles import Row, open_reader, reading
from studio.data.formats.answers import Example, Unread
from studio.data.masks.masker import Masker
from studio.data.masks.templates import template_findings, with_template
from studio.data.prepare.findings import Notes, reading_findings, text_findings, unused_keys
from studio.data.prepare.prepared import Estimate
from studio.data.prepare.units import Unit, encode
from studio.data.readers.columnar import columnar_count, columnar_rows
from studio.data.readers.kinds import kind_of_file
from studio.data.readers.row import RowNumber
from studio.data.report import DataReport, Finding, SourceReport, summarize_lengths
from studio.data.sources.held import characters, in_blocks
from studio.data.sources.locate import Located
from studio.data.sources.mixing import mixed_counts, rows_findings
from studio.data.sources.parsing import SHOWN_ERRORS, raise_all
from studio.data.sources.reading import in_turns
from studio.data.streaming.preparing import (
    MARGIN,
    OnPhase,
    Sources,
    files_of,
    is_indexed,
    prepare_streamed,
    streamed_findings,
    way_of,
)
from studio.data.streaming.rows import StreamedRows, within
from studio.data.streaming.shards import How
from studio.errors import InputError
from studio.methods import MethodConfig
from studio.settings import Settings

_FILES, _ROWS, _CHARACTERS = 8, 2048, 4_000_000  # of a source, looked at
_LONG_PASS = 200_000_000  # bytes that take ten seconds to go through
# Text packs to about a third.
_UNPACKED = 3


@dataclass
class _Head:
    """The first rows of some files of a source: understood, and how many rows all of its files have."""

    examples: list[Example]
    count: int
    exact: bool


def look(
    config: DataConfig, method: MethodConfig, tokenizer: Any, settings: Settings, here: Sources, tell: OnPhase,
    seed: int,
) -> tuple[Estimate, DataReport]:  # fmt: skip
    """Say about how much there is in a run's data that are streamed.

    Args:
        config: section `data`, with a number for `max_length`.
        method: section `method`.
        tokenizer: the model's.
        settings: of the home that keeps the indexes.
        here: the run's sources and where they are, those of training first.
        tell: told how far it is.
        seed: the run's.

    Raises:
        InputError: a file, or one of the rows that were looked at, cannot be used.
    """
    used = with_template(tokenizer, config.template, config.system)
    turns = in_turns(used.chat_template, config, method)
    if all(is_indexed(source, located, settings, turns) for source, located in here):
        done = prepare_streamed(config, method, tokenizer, settings, here, tell, seed)
        if isinstance(done.train, StreamedRows):
            done.train.pool.close()
        if done.estimate is not None:
            return done.estimate, done.report
    masker = Masker(used, method.kind.train_on(method), config.control_tokens)
    unread = Unread()
    reports: list[SourceReport] = []
    figures: list[tuple[bool, int, int, list[Unit]]] = []  # trained on, rows, characters looked at, their tokens
    exact = True
    for at, (source, located) in enumerate(here):
        how, reason = way_of(source, located, turns)
        head = _head(how, located)
        units: list[Unit] = []
        for block in in_blocks(head.examples, characters):
            units += encode("answers", block, masker)
            tell("tokenizing", len(units), None)
        for example in head.examples:
            unread.add(example)
        rows = min(head.count, source.rows or located.sample or head.count)
        trained, exact = at < len(config.train), exact and head.exact
        figures.append((trained, rows, len(units), units))
        reports.append(
            SourceReport(
                source.path,
                str(located.files[0]),
                "train" if trained else "validation",
                "",
                located.bytes,
                how.format,
                rows=head.count,
                chosen=rows,
                kept=rows,
                commit=located.commit,
                reason=reason,
                read_as=how.reading.read_as,
            )
        )
    estimate = _estimated(config, figures)
    looked = [unit for *_, units in figures for unit in units]
    report = DataReport(reports, estimate.count, estimate.validation_count)
    report.tokens = estimate.tokens + estimate.validation_tokens
    report.supervised_tokens = estimate.supervised + estimate.validation_supervised
    report.seed, report.lengths = seed, summarize_lengths([unit.length for unit in looked], config.limit)
    report.findings = streamed_findings(estimate, len(looked), config, "" if exact else "about ")
    report.findings += _pass_findings(sum(located.bytes for _, located in here))
    report.findings += Notes().add(looked).findings() + unused_keys(unread)
    report.findings += reading_findings(reports, [source for source, _ in here], bool(used.chat_template))
    if exact:  # else the number of rows is estimated
        report.findings += rows_findings([(*one, said) for one, said in zip(here, reports, strict=True)])
    report.findings += text_findings(zip((located for _, located in here), reports, strict=True))
    report.findings += template_findings(tokenizer, config.template)
    return estimate, report


def _pass_findings(size: int) -> list[Finding]:
    """Say of files of so many bytes that going through them is not in the plan's time."""
    if size < _LONG_PASS:
        return []
    text = f"the first run goes through all {size / 1e9:.1f} GB before it starts, which is not in the plan's time"
    return [Finding("info", 0, text, "Nothing to do: a later run over the same files begins at once")]


def look_at_one(
    source: DataSource, located: Located, config: DataConfig, method: MethodConfig, tokenizer: Any, settings: Settings,
    tell: OnPhase,
) -> tuple[Estimate, DataReport]:  # fmt: skip
    """Say about how much there is in one source, as `look` does of a run's.

    Args:
        source: as the run names it.
        located: where it is.
        config: section `data` of the run; its other sources, and what is kept for validation, are left aside.
        method: section `method`.
        tokenizer: the model's.
        settings: of the home that keeps the indexes.
        tell: told how far it is.

    Raises:
        InputError: the file, or one of the rows that were looked at, cannot be used.
    """
    alone = config.model_copy(update={"train": [source], "validation": 0.0, "truncation": "cut"})
    return look(alone, method, tokenizer, settings, [(source, located)], tell, seed=0)


def _estimated(config: DataConfig, figures: Sequence[tuple[bool, int, int, list[Unit]]]) -> Estimate:
    share = 0.0 if isinstance(config.validation, str) else config.validation
    cut = config.truncation == "cut"
    count = held = tokens = supervised = held_tokens = held_supervised = 0
    each: list[int] = []
    longest = 1
    aways = [round(rows * share) for trained, rows, *_ in figures if trained]
    mixed = mixed_counts(config, [rows - away for (_, rows, *_), away in zip(figures, aways, strict=False)])
    for at, (trained, rows, looked, units) in enumerate(figures):
        longest = max([longest, *(unit.length for unit in units)])
        kept = [one for one in (within(unit, config.limit, cut) for unit in units) if one is not None]
        # Of one row that was looked at, whether or not it is kept.
        length = sum(unit.tokens for unit in kept) / max(1, looked)
        answer = sum(unit.supervised for unit in kept) / max(1, looked)
        away = aways[at] if trained else rows
        held, held_tokens = held + away, held_tokens + round(away * length)
        held_supervised += round(away * answer)
        if trained:
            count, tokens = count + mixed[at], tokens + round(mixed[at] * length)
            supervised += round(mixed[at] * answer)
            each += [unit.length for unit in kept]
    if not each:
        raise InputError(
            f"none of the rows that were looked at has an answer within {config.limit} tokens", where="data.train",
            fix="Raise data.max_length, or use shorter rows",
        )  # fmt: skip
    most = min(config.limit, round(MARGIN * longest))
    return Estimate(
        count, held, tokens, supervised, held_tokens, held_supervised, most, most if held else 0, each
    )  # fmt: skip


def _head(how: How, located: Located) -> _Head:
    """Understand the first rows of some files of a source."""
    files = files_of(located)[: 1 if how.hub else None]  # whose rows are numbered throughout
    step = max(1, len(files) // _FILES)
    chosen = files[::step][:_FILES]
    examples: list[Example] = []
    errors: list[InputError] = []
    rows = size = 0
    known = True
    for file in chosen:
        most, left = _ROWS // len(chosen), _CHARACTERS // len(chosen)
        source = _Rows(file, how, located)
        for number, row in itertools.islice(source, most):
            try:
                example = how.reading.example(row, number, how.format)
            except InputError as error:
                errors.append(error)
                continue
            examples.append(example)
            left -= characters(example)
            if left <= 0:
                break
        rows, size, known = rows + source.count, size + file.stat().st_size, known and source.exact
    if errors and not how.some:
        raise_all(errors[:SHOWN_ERRORS], len(errors), how.path)
    if located.count is not None:
        return _Head(examples, located.count, True)
    whole = sum(file.stat().st_size for file in files)
    return _Head(examples, max(1, round(rows * whole / max(1, size))), known and len(chosen) == len(files))


class _Rows:
    """The rows of one file from its start, and once some were taken, how many it has.

    Attributes:
        count: rows of the file; where it does not say, as many as those that were taken let expect.
        exact: whether that is no estimate.
    """

    def __init__(self, file: Path, how: How, located: Located) -> None:
        self._file, self._how, self._located = file, how, located
        self.count, self.exact = 0, True

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        if self._how.hub:
            yield from self._located.rows(0)
            return
        with reading(self._file):
            kind = kind_of_file(self._file)
            if kind.columnar:
                self.count = columnar_count(self._file, kind)
                yield from map(self._numbered, columnar_rows(self._file, kind))
                return
            size = self._file.stat().st_size * (1 if kind.packing is None else _UNPACKED)
            taken = 0
            with open_reader(self._file, kind, self._how.by_line) as reader:
                for taken, numbered in enumerate(reader.rows(), 1):
                    self.count, self.exact = max(taken, round(taken * size / max(1, reader.position))), False
                    yield self._numbered(numbered)
                self.count, self.exact = taken, True

    def _numbered(self, numbered: tuple[int, Row]) -> tuple[int, Row]:
        number, row = numbered
        return (RowNumber(number, self._file) if self._how.in_folder else number), row

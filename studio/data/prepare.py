"""From the files of a configuration to masked token lists for training and validation.

Reading, parsing, leaving out doubles, masking, truncation, split, in that order, each counted in the report.
Truncation is never silent.
The split depends on the rows and the seed alone, so every model is validated on the same rows of the same files.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from studio.config.data import DataConfig, DataSource
from studio.config.method import ROWS, MethodConfig, RowKind
from studio.data.duplicates import deduplicate
from studio.data.findings import collect_findings
from studio.data.formats import Example, FormatName
from studio.data.masks import Masker, TrainOn
from studio.data.report import DataReport, SourceReport, summarize_lengths
from studio.data.rows import detect_format, parse_row
from studio.data.sources import file_sha256, place, read_rows, resolve_path
from studio.data.units import Unit, encode
from studio.errors import InputError, InputErrors
from studio.settings import Settings

# (phase name, rows done, rows in all or None while unknown)
OnPhase = Callable[[str, int, int | None], None]
SHOWN_ERRORS = 5
BATCH_ROWS = 256


@dataclass
class Prepared:
    """The result of `prepare_data`; `kind` says which units the rows are (`data.units`)."""

    train: list[Any]
    validation: list[Any]
    report: DataReport = field(default_factory=DataReport)
    kind: RowKind = "answers"


class Parsed(NamedTuple):
    """A file's rows, understood."""

    source: SourceReport
    examples: list[Example]


def prepare_data(
    config: DataConfig,
    method: MethodConfig,
    tokenizer: Any,
    settings: Settings,
    on_phase: OnPhase | None = None,
    seed: int = 42,
) -> Prepared:
    """Read, mask, truncate and split the data of a run.

    Args:
        config: section `data`.
        method: section `method`.
        tokenizer: the model's transformers tokenizer (fast backend).
        settings: for `demo/...` and uploaded files.
        on_phase: called with ("reading data" | "tokenizing", rows done, rows in all or None).
        seed: start of the random split; the run's `training.seed`.

    Raises:
        InputError: a file or a row cannot be used, or no row is left. Up to five bad rows are named at once.
    """
    tell = on_phase or (lambda name, done, total: None)
    kind = ROWS[method.name]
    masker = Masker(tokenizer, train_on(method))
    own_file = isinstance(config.validation, str)
    parsed = [
        parse_source(one, settings, "train", lambda done: tell("reading data", done, None), kind)
        for one in config.train
    ]
    if isinstance(config.validation, str):
        file = DataSource(path=config.validation)
        parsed.append(parse_source(file, settings, "validation", lambda done: tell("reading data", done, None), kind))
    deduplicate(parsed, config.deduplicate)
    total = sum(len(one.examples) for one in parsed)
    units: list[list[Unit]] = []
    for one in parsed:
        before = sum(map(len, units))
        units.append(encode_examples(kind, one.examples, masker, _from(tell, before, total)))
    flat = list(itertools.chain.from_iterable(units))
    report = DataReport([one.source for one in parsed], seed=seed, stop_text=_stop_text(masker, parsed))
    report.lengths = summarize_lengths([one.length for one in flat], config.max_length)
    if config.truncation == "error":
        _refuse_long(flat, config.max_length)

    trained = sum(len(rows) for one, rows in zip(parsed, units, strict=True) if one.source.part == "train")
    away = set(range(trained, len(flat))) if own_file else choose_validation(trained, float(config.validation), seed)
    train: list[Unit] = []
    validation: list[Unit] = []
    at = 0
    for one, rows in zip(parsed, units, strict=True):
        for row in rows:
            if (example := _within(row, config, one.source)) is not None:
                (validation if at in away else train).append(example)
            at += 1
    if not train:
        raise InputError(
            f"no row is left to train on: of {trained:,} rows none is within {config.max_length} tokens with an answer",
            where="data.train",
            fix=f"Raise data.max_length (the longest row has {report.lengths.longest} tokens), or give shorter rows",
        )
    report.train_rows, report.validation_rows = len(train), len(validation)
    report.tokens = sum(one.source.tokens for one in parsed)
    report.supervised_tokens = sum(one.source.supervised_tokens for one in parsed)
    collect_findings(report, config, [one.examples for one in parsed], flat, train, validation)
    return Prepared(train, validation, report, kind)


def parse_source(
    source: DataSource,
    settings: Settings,
    part: str,
    on_rows: Callable[[int], None] | None = None,
    kind: RowKind = "answers",
) -> Parsed:
    """Read a file and understand its rows.

    Raises:
        InputError: the file or one of its rows cannot be used.
        InputErrors: several rows cannot be used; the first five are named.
    """
    path = resolve_path(source.path, settings)
    rows = read_rows(path)
    first = list(itertools.islice(rows, 1))
    name: FormatName = detect_format(first, path, kind) if source.format == "auto" else source.format
    examples: list[Example] = []
    errors: list[InputError] = []
    bad = 0
    for count, (number, row) in enumerate(itertools.chain(first, rows), 1):
        try:
            examples.append(parse_row(row, number, path, name, kind))
        except InputError as error:
            bad += 1
            if len(errors) < SHOWN_ERRORS:
                errors.append(error)
        if on_rows and count % 1000 == 0:
            on_rows(count)
    if errors:
        _raise_all(errors, bad, path)
    report = SourceReport(
        path=source.path,
        file=str(path),
        part="validation" if part == "validation" else "train",
        sha256=file_sha256(path),
        bytes=path.stat().st_size,
        format=name,
        rows=len(examples),
    )
    if on_rows:
        on_rows(len(examples))
    return Parsed(report, examples)


def train_on(method: MethodConfig) -> TrainOn:
    """Which tokens of an example count: an option of sft, the whole text for pretrain, else every answer."""
    return method.train_on if method.name == "sft" else "all" if method.name == "pretrain" else "assistant"


def encode_examples(
    kind: RowKind, examples: Sequence[Example], masker: Masker, on_rows: Callable[[int], None] | None = None
) -> list[Unit]:
    """Return the examples as units of a kind, some hundreds at a time.

    Raises:
        InputError: a row cannot be masked.
    """
    units: list[Unit] = []
    for done, batch in enumerate(_batches(examples), 1):
        units += encode(kind, batch, masker)
        if on_rows:
            on_rows(min(done * BATCH_ROWS, len(examples)))
    return units


def choose_validation(rows: int, share: float, seed: int) -> set[int]:
    """Return the places (from 0) of the rows kept away from training.

    At least one and never all where the share is above 0 and there are two rows or more.
    """
    if share <= 0 or rows < 2:
        return set()
    count = min(rows - 1, max(1, round(rows * share)))
    return set(random.Random(seed).sample(range(rows), count))


def _from(tell: OnPhase, before: int, total: int) -> Callable[[int], None]:
    return lambda done: tell("tokenizing", before + done, total)


def _batches(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    for at in range(0, len(examples), BATCH_ROWS):
        yield examples[at : at + BATCH_ROWS]


def _within(unit: Unit, config: DataConfig, source: SourceReport) -> Unit | None:
    """The example within the limit, or None if it is left out; counted in `source`."""
    kept: Unit | None = unit
    if unit.length > config.max_length:
        if config.truncation == "drop":
            source.dropped += 1
            return None
        kept = unit.cut(config.max_length)
        if kept is None:
            source.dropped_unsupervised += 1
            return None
        source.cut += 1
    source.kept += 1
    source.tokens += kept.tokens if kept else 0
    source.supervised_tokens += kept.supervised if kept else 0
    return kept


def _refuse_long(rows: Sequence[Unit], limit: int) -> None:
    long = [row for row in rows if row.length > limit]
    if not long:
        return
    longest = max(row.length for row in long)
    named = ", ".join(f"{place(row.path, row.row)} ({row.length} tokens)" for row in long[:SHOWN_ERRORS])
    more = f" and {len(long) - SHOWN_ERRORS:,} more" if len(long) > SHOWN_ERRORS else ""
    are = "is" if len(long) == 1 else "are"
    what = f"{len(long):,} of {len(rows):,} rows {are} longer than {limit} tokens"
    raise InputError(
        f"{what}: {named}{more}; the longest has {longest}",
        where="data.max_length",
        fix=f"Set data.max_length to {longest}, or data.truncation to drop (leave them out) or cut (keep their start)",
    )


def _raise_all(errors: list[InputError], bad: int, path: Path) -> None:
    if len(errors) == 1:
        raise errors[0]
    if bad > len(errors):
        errors.append(InputError(f"{bad - len(errors):,} more rows cannot be used", where=path.name))
    raise InputErrors(errors)


def _stop_text(masker: Masker, parsed: Sequence[Parsed]) -> str | None:
    chat = any(example.messages is not None for one in parsed for example in one.examples[:1])
    return masker.stop_text() if chat and masker.train_on != "all" else None

"""A run's data where they are streamed: the same rows in the same order as without, of which only the first are tokens.

The split by the seed, the choice of rows and the mix are those of `prepare.pipeline`, decided by the number of rows.
The first rows in the order of the first epoch are made tokens before the start: they are refused as without streaming,
and what the plan has to know is estimated from them.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.config.data import DataConfig, DataSource
from studio.data.files.datafiles import data_files
from studio.data.formats.answers import Unread
from studio.data.masks.masker import Masker
from studio.data.masks.templates import template_findings, with_template
from studio.data.prepare.batch import epoch_order
from studio.data.prepare.findings import Notes, reading_findings, text_findings, unused_keys
from studio.data.prepare.prepared import Estimate, Prepared
from studio.data.prepare.split import choose_validation
from studio.data.prepare.units import Unit
from studio.data.report import DataReport, Finding, SourceReport, summarize_lengths
from studio.data.sources.held import in_blocks
from studio.data.sources.locate import Located
from studio.data.sources.mixing import choose_rows, is_mixed, mix, mix_findings, rows_findings
from studio.data.sources.parsing import SHOWN_ERRORS, raise_all
from studio.data.sources.reading import Reading, in_turns
from studio.data.streaming.rows import RowPool, StreamedRows
from studio.data.streaming.shards import How, Shard, are_open, joined_sha256, open_shards
from studio.errors import InputError
from studio.methods import MethodConfig
from studio.models.plan.batches import SEEN_ROWS
from studio.settings import Settings

OnPhase = Callable[[str, int, int | None], None]
Sources = Sequence[tuple[DataSource, Located]]
Looked = Sequence[tuple[Unit, int]]
# Of the rows that are made tokens before the start; a processor makes some 0.7 MB a second.
_LOOKED_CHARACTERS, _LOOKED_VALIDATION = 8_000_000, 1_000_000
# A longest row may have more tokens to a character than the rows that were looked at.
MARGIN = 1.25
_TRIED = 100  # first rows of which one must have a format, where only some rows are taken
# Rows kept for validation above which each validation takes as long as a good part of the training.
_MANY = 10_000


@dataclass(frozen=True)
class Opened:
    """A source whose shards are there.

    Attributes:
        source, located: as the run names it, and where it is.
        how: how its rows are read.
        reason: why its format was taken.
        shards: its files.
    """

    source: DataSource
    located: Located
    how: How
    reason: str
    shards: list[Shard]

    @property
    def count(self) -> int:
        """Rows of all shards."""
        return sum(shard.count for shard in self.shards)


def way_of(source: DataSource, located: Located, turns: bool) -> tuple[How, str]:
    """Return how a source's rows are read, and why its format was taken.

    Args:
        source: as the run names it.
        located: where it is.
        turns: whether plain questions and answers are conversations (`in_turns`).

    Raises:
        InputError: no row can be read, or no format has the keys of the first one.
    """
    reading = Reading(source, located, "answers", turns)
    some = bool(source.rows or located.sample)
    name, reason = reading.format_of_any(itertools.islice(located.rows(0), _TRIED if some else 1))
    told = source.model_dump(exclude={"path", "weight", "rows", "subset", "split", "revision"})
    hub = located.count is not None
    key = repr([told, located.entry, turns, name, reason, located.by_line, hub, *(["some"] if some else [])])
    in_folder = located.path.is_dir() and not hub
    return How(reading, name, key, located.path, in_folder, hub, located.by_line, some), reason


def files_of(located: Located) -> list[Path]:
    """Return the files of a source, those of a folder in the order of their names."""
    return [one for file in located.files for one in (data_files(file) if file.is_dir() else [file])]


def home_of(settings: Settings) -> Path:
    """Folder of the indexes and tokens of streamed files; what is missing there is made again."""
    return settings.home / "cache" / "streams"


def is_indexed(source: DataSource, located: Located, settings: Settings, turns: bool) -> bool:
    """Whether a source was gone through before, so that all of its rows are at hand.

    Args:
        source: as the run names it.
        located: where it is.
        settings: of the home that keeps the indexes.
        turns: whether plain questions and answers are conversations.
    """
    return are_open(files_of(located), way_of(source, located, turns)[0], home_of(settings))


def prepare_streamed(
    config: DataConfig, method: MethodConfig, tokenizer: Any, settings: Settings, sources: Sources, tell: OnPhase,
    seed: int,
) -> Prepared:  # fmt: skip
    """Prepare a run whose rows are read when the training comes to them.

    Args:
        config: section `data`, with a number for `max_length`.
        method: section `method`.
        tokenizer: the model's transformers tokenizer.
        settings: of the home that keeps the indexes.
        sources: all of them and where they are, those of training first.
        tell: told ("reading data" | "tokenizing", rows done, rows in all or None).
        seed: the run's `training.seed`.

    Raises:
        InputError: a file or a row cannot be used, or no row is left.
    """
    used = with_template(tokenizer, config.template, config.system)
    masker = Masker(used, method.kind.train_on(method), config.control_tokens)
    turns = in_turns(used.chat_template, config, method)
    opened: list[Opened] = []
    for source, located in sources:
        how, reason = way_of(source, located, turns)
        done = sum(one.count for one in opened)
        shards = open_shards(
            files_of(located), how, home_of(settings), lambda rows, done=done: tell("reading data", done + rows, None)  # type: ignore[misc]
        )  # fmt: skip
        opened.append(Opened(source, located, how, reason, shards))
    chosen = [_chosen(one, at, seed) for at, one in enumerate(opened)]
    train_places, held_places = _divided(config, [one.count for one in opened], chosen, seed)
    pool = RowPool([(one.how, one.shards) for one in opened], masker)
    cuts = config.truncation == "cut"
    train = StreamedRows(pool, train_places, config.limit, cuts)
    held = StreamedRows(pool, held_places, config.limit, cuts)
    order = epoch_order(len(train), seed, shuffle=config.shuffle, first=SEEN_ROWS)
    first = _looked(train, order, _LOOKED_CHARACTERS, lambda rows: tell("tokenizing", rows, None))
    some = _looked(held, range(min(len(held), SEEN_ROWS)), _LOOKED_VALIDATION, lambda rows: None)
    shards = [shard for one in opened for shard in one.shards]
    totals = pool.characters(train_places), pool.characters(held_places)
    estimate = _estimated(train, held, first, some, max(shard.longest for shard in shards), totals, config)
    report = _report(config, opened, chosen, estimate, [unit for unit, _ in (*first, *some)])
    _count_used(report.sources, [one.count for one in opened], train_places, held_places)
    report.seed = seed
    if any(one.chat for one in shards) and masker.train_on != "all":
        report.stop_text = masker.stop_text()
    template = bool(used.chat_template)
    report.findings += reading_findings(report.sources, [one.source for one in opened], template)
    report.findings += rows_findings(
        [(one.source, one.located, said) for one, said in zip(opened, report.sources, strict=True)]
    )
    report.findings += mix_findings(report.sources)
    report.findings += text_findings(zip((one.located for one in opened), report.sources, strict=True))
    report.findings += template_findings(tokenizer, config.template)
    kept = [row for row in map(train.within, (unit for unit, _ in (*first, *some))) if row is not None]
    return Prepared(train, held, report, "answers", used, estimate, kept)


def _chosen(one: Opened, at: int, seed: int) -> Any:
    """(N,) places of a source's rows that the run takes.

    Raises:
        InputError: one of them cannot be used.
        InputErrors: several; the first five are named.
    """
    import numpy as np

    wanted = one.source.rows or one.located.sample
    if not wanted:
        return np.arange(one.count, dtype=np.int64)
    rng = random.Random(f"{seed}/rows/{at}")
    places = np.array(choose_rows(one.count, wanted, rng), dtype=np.int64)
    errors, bad, start = list[InputError](), 0, 0
    for shard in one.shards:
        wrong = shard.unusable(places[(places >= start) & (places < start + shard.count)] - start)
        errors += [shard.problem(int(row)) for row in wrong[: SHOWN_ERRORS - len(errors)]]
        bad, start = bad + len(wrong), start + shard.count
    if errors:
        raise_all(errors, bad, one.how.path)
    return places


def _divided(config: DataConfig, counts: Sequence[int], chosen: Sequence[Any], seed: int) -> tuple[Any, Any]:
    """Numbers in the pool of the rows for training, mixed, and of those for validation.

    Args:
        config: section `data`.
        counts: rows of each source.
        chosen: (N,) places of those that are taken, for each source.
        seed: the run's.
    """
    import numpy as np

    starts = np.cumsum([0, *counts[:-1]])
    numbers = [start + places for start, places in zip(starts, chosen, strict=True)]
    many = len(config.train)
    trained = sum(len(one) for one in numbers[:many])
    if len(numbers) > many:
        pools, held = numbers[:many], np.concatenate(numbers[many:])
    else:
        share = 0.0 if isinstance(config.validation, str) else config.validation
        away = np.array(sorted(choose_validation(trained, share, seed)), dtype=np.int64)
        held = np.concatenate(numbers)[away]
        pools, before = [], 0
        for one in numbers:
            own = away[(away >= before) & (away < before + len(one))] - before
            pools.append(np.delete(one, own))
            before += len(one)
    if not is_mixed(config):
        return np.concatenate(pools), held
    order = mix(config, [len(pool) for pool in pools], seed)
    return np.fromiter((pools[at][row] for at, row in order), dtype=np.int64, count=len(order)), held


def _looked(
    rows: StreamedRows, places: Sequence[int], most: int, tell: Callable[[int], None]
) -> list[tuple[Unit, int]]:
    """Make the first of some rows tokens, up to so many characters; returns each with its characters."""
    found: list[tuple[Unit, int]] = []
    left = most
    for some in in_blocks(places, lambda place: rows.characters([place])[0]):
        sizes = rows.characters(some)
        found += zip(rows.look(some), sizes, strict=True)
        tell(len(found))
        left -= sum(sizes)
        if left <= 0:
            break
    return found


def _estimated(
    train: StreamedRows, held: StreamedRows, first: Looked, some: Looked, longest: int, totals: tuple[int, int],
    config: DataConfig,
) -> Estimate:  # fmt: skip
    """What follows for all rows from those that were looked at.

    Args:
        train, held: all rows of training and of validation.
        first, some: those of them that were looked at, with their characters.
        longest: characters of the longest row.
        totals: characters of all examples of an epoch, and of all rows of validation.
        config: section `data`.

    Raises:
        InputError: none of the rows that were looked at has an answer within the limit.
    """
    kept = [row for row in (train.within(unit) for unit, _ in first) if row is not None]
    if not kept:
        raise InputError(
            f"none of the first {len(first):,} rows has an answer within {config.limit} tokens", where="data.train",
            fix="Raise data.max_length, or use shorter rows",
        )  # fmt: skip
    tokens, characters = sum(unit.length for unit, _ in first), max(1, sum(size for _, size in first))
    # All examples have this many times the characters of those that were looked at.
    times = max(1.0, totals[0] / characters)
    held_kept = [row for row in (held.within(unit) for unit, _ in some) if row is not None]
    held_times = max(1.0, totals[1] / max(1, sum(size for _, size in some)))
    most = max(math.ceil(MARGIN * longest * tokens / characters), *(unit.length for unit, _ in (*first, *some)))
    return Estimate(
        count=len(train),
        validation_count=len(held),
        tokens=round(times * sum(row.tokens for row in kept)),
        supervised=round(times * sum(row.supervised for row in kept)),
        validation_tokens=round(held_times * sum(row.tokens for row in held_kept)),
        validation_supervised=round(held_times * sum(row.supervised for row in held_kept)),
        longest=min(config.limit, most),
        validation_longest=min(config.limit, most) if len(held) else 0,
        each=[row.length for row in kept],
    )


def _report(
    config: DataConfig, opened: Sequence[Opened], chosen: Sequence[Any], estimate: Estimate, looked: Sequence[Unit]
) -> DataReport:
    """The report, whose tokens are estimated."""
    taken = enumerate(zip(opened, chosen, strict=True))
    report = DataReport([_source(one, len(places), at < len(config.train)) for at, (one, places) in taken])
    report.lengths = summarize_lengths([unit.length for unit in looked], config.limit)
    report.train_rows, report.validation_rows = estimate.count, estimate.validation_count
    report.tokens = estimate.tokens + estimate.validation_tokens
    report.supervised_tokens = estimate.supervised + estimate.validation_supervised
    report.findings = streamed_findings(estimate, len(looked), config)
    report.findings += Notes().add(looked).findings()
    report.findings += unused_keys(sum((shard.unread for one in opened for shard in one.shards), Unread()))
    return report


def _count_used(sources: Sequence[SourceReport], counts: Sequence[int], train: Any, held: Any) -> None:
    """Count in each source's report which of its rows are used, and how often; numbers are those of the pool."""
    import numpy as np

    start = 0
    for source, count in zip(sources, counts, strict=True):
        own, away = (rows[(rows >= start) & (rows < start + count)] for rows in (train, held))
        used = len(np.unique(own))
        source.kept = used + len(away)
        source.unused, source.repeated = source.chosen - source.kept, len(own) - used
        start += count


def _source(one: Opened, chosen: int, trained: bool) -> SourceReport:
    located = one.located
    return SourceReport(
        path=one.source.path, file=str(located.files[0]), part="train" if trained else "validation",
        sha256=joined_sha256(one.shards, one.how), bytes=located.bytes, format=one.how.format, rows=one.count,
        chosen=chosen, kept=chosen, commit=located.commit, reason=one.reason, read_as=one.shards[-1].read_as,
    )  # fmt: skip


def streamed_findings(estimate: Estimate, looked: int, config: DataConfig, about: str = "") -> list[Finding]:
    """Say that rows are streamed, and what of the figures is estimated.

    Args:
        estimate: how much there is.
        looked: how many rows were looked at.
        config: section `data`.
        about: before the number of rows where that is estimated too.
    """
    rows = estimate.count + estimate.validation_count
    text = (
        f"the rows are streamed: {looked:,} of {about}{rows:,} rows were looked at, and the figures for tokens and "
        f"lengths are estimated from them"
    )
    fix = "A row that turns out to be unusable in training is named, counted and replaced by the next one"
    found = [Finding("info", 0, text, fix)]
    if config.validation != 0 and not estimate.validation_count:
        fix = "Use more rows, or a validation file"
        found.append(Finding("warning", 0, "no rows are left for validation, so there is no validation loss", fix))
    if estimate.validation_count > _MANY:
        text = f"each validation computes {about}{estimate.validation_count:,} rows"
        found.append(Finding("warning", 0, text, "Set data.validation to a smaller share, or to a file"))
    return found

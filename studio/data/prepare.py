"""From the files of a configuration to masked token lists for training and validation.

Reading, choosing rows, parsing, leaving out doubles, masking, split, truncation (or joining), mixing, in that order,
each counted in the report. Truncation is never silent. The split depends on the rows and the seed alone, so every
model is validated on the same rows of the same files; it comes before the mixing, so a row that is repeated is never
one of them.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from studio.config.data import DataConfig, DataSource
from studio.config.method import ROWS, MethodConfig, RowKind
from studio.data.duplicates import deduplicate
from studio.data.findings import collect_findings, reading_findings, text_findings
from studio.data.formats import Example
from studio.data.joining import join_documents, joins
from studio.data.limits import SHOWN_ERRORS, refuse_long, within
from studio.data.locate import Located, locate, sources_of
from studio.data.masks import Masker, TrainOn
from studio.data.mixing import choose_rows, mix, mix_findings
from studio.data.reading import Reading, in_turns
from studio.data.report import DataReport, SourceReport, summarize_lengths
from studio.data.templates import template_findings, with_template
from studio.data.tokencache import TokenCache
from studio.data.units import Unit, encode
from studio.errors import InputError, InputErrors
from studio.settings import Settings

# (phase name, rows done, rows in all or None while unknown)
OnPhase = Callable[[str, int, int | None], None]
BATCH_ROWS = 256


@dataclass
class Prepared:
    """The result of `prepare_data`.

    Attributes:
        kind: which units the rows are (`data.units`).
        tokenizer: the one given, with the run's chat template; saved with what is trained on these rows.
    """

    train: list[Any]
    validation: list[Any]
    report: DataReport = field(default_factory=DataReport)
    kind: RowKind = "answers"
    tokenizer: Any = None


class Parsed(NamedTuple):
    """A file's rows, understood."""

    source: SourceReport
    examples: list[Example]


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    """Let Python's collector rest while millions of lasting lists are made, all of which it would look through again
    and again (12 % of the time of 100,000 rows). Nothing here makes cycles: it finds some hundred objects after them.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_collector_off()
def prepare_data(
    config: DataConfig,
    method: MethodConfig,
    tokenizer: Any,
    settings: Settings,
    on_phase: OnPhase | None = None,
    seed: int = 42,
) -> Prepared:
    """Read, mask, split, truncate and mix the data of a run.

    Args:
        config: section `data`.
        method: section `method`.
        tokenizer: the model's transformers tokenizer (fast backend).
        settings: for `demo/...` and uploaded files.
        on_phase: called with ("reading data" | "tokenizing", rows done, rows in all or None).
        seed: start of the random choice of rows, split and mix; the run's `training.seed`.

    Raises:
        InputError: a file or a row cannot be used, a set of the Hub is not here yet, or no row is left. Up to five
            bad rows are named at once.
    """
    tell = on_phase or (lambda name, done, total: None)
    kind = ROWS[method.name]
    used = with_template(tokenizer, config.template, config.system)
    masker = Masker(used, train_on(method), config.control_tokens)
    cache = TokenCache(settings.tokens, masker, kind)
    named = sources_of(config)
    here = [locate(source, settings) for source in named]
    parsed = [
        parse_source(
            source, located, "train" if at < len(config.train) else "validation",
            lambda done: tell("reading data", done, None), kind, random.Random(f"{seed}/rows/{at}"),
            in_turns(used.chat_template, config, method),
        )
        for at, (source, located) in enumerate(zip(named, here, strict=True))
    ]  # fmt: skip
    deduplicate(parsed, config.deduplicate)
    total = sum(len(one.examples) for one in parsed)
    units: list[list[Unit]] = []
    for one in parsed:
        before = sum(map(len, units))
        tell_rows = _from(tell, before, total)
        kept = cache.read(one.examples)
        if kept is None:
            with cache.keeping(one.examples) as keep:
                kept = encode_examples(kind, one.examples, masker, tell_rows, keep)
        else:
            one.source.cached = True
            tell_rows(len(one.examples))
        units.append(kept)
    flat = list(itertools.chain.from_iterable(units))
    report = DataReport([one.source for one in parsed], seed=seed, stop_text=_stop_text(masker, parsed))
    report.lengths = summarize_lengths([one.length for one in flat], config.max_length)
    joined = joins(method)
    if config.truncation == "error" and not joined:
        refuse_long(flat, config.max_length, method.name)

    trained = sum(len(rows) for one, rows in zip(parsed, units, strict=True) if one.source.part == "train")
    share = 0.0 if isinstance(config.validation, str) else config.validation
    away = set(range(trained, len(flat))) or choose_validation(trained, share, seed)
    pools: list[list[Unit]] = [[] for _ in parsed]
    held: list[list[Unit]] = [[] for _ in parsed]
    at = 0
    for index, (one, rows) in enumerate(zip(parsed, units, strict=True)):
        for row in rows:
            example = row if joined else within(row, config, one.source)
            if example is not None:
                (held if at in away else pools)[index].append(example)
            at += 1
    if joined:
        pools = [list(join_documents(rows, config.max_length)) for rows in pools]
        held = [list(join_documents(rows, config.max_length)) for rows in held]
    if not any(pools):
        raise InputError(
            f"no row is left to train on: of {trained:,} rows none is within {config.max_length} tokens with an answer",
            where="data.train",
            fix=f"Raise data.max_length (the longest row has {report.lengths.longest} tokens), or give shorter rows",
        )
    order = Counter(mix_order := mix(config, [len(pool) for pool in pools[: len(config.train)]], seed))
    train = [pools[index][row] for index, row in mix_order]
    validation = list(itertools.chain.from_iterable(held))
    for index, one in enumerate(parsed):
        _count_used(one.source, pools[index], held[index], [order[index, row] for row in range(len(pools[index]))])
    report.train_rows, report.validation_rows = len(train), len(validation)
    report.tokens = sum(one.source.tokens for one in parsed)
    report.supervised_tokens = sum(one.source.supervised_tokens for one in parsed)
    once = [pools[index][row] for index, row in order]
    collect_findings(report, config, [one.examples for one in parsed], flat, once, validation)
    report.findings += reading_findings(report.sources, named, bool(used.chat_template))
    report.findings += mix_findings(report.sources)
    report.findings += text_findings(zip(here, report.sources, strict=True))
    report.findings += template_findings(tokenizer, config.template)
    return Prepared(train, validation, report, kind, used)


def parse_source(
    source: DataSource,
    located: Located,
    part: str,
    on_rows: Callable[[int], None] | None = None,
    kind: RowKind = "answers",
    rng: random.Random | None = None,
    turns: bool = False,
) -> Parsed:
    """Read a source and understand its rows.

    Args:
        source: as the configuration gives it.
        located: where it is.
        part: "train" or "validation".
        on_rows: told how many rows are read.
        kind: what the method learns from.
        rng: chooses the rows where only some are wanted; None to read all.
        turns: whether plain questions and answers are conversations, as the model has it (`in_turns`).

    Raises:
        InputError: the file or one of its rows cannot be used, or has fewer rows than are wanted.
        InputErrors: several rows cannot be used; the first five are named.
    """
    path = located.path
    wanted = (source.rows or located.sample) if rng else None
    have, places = _choice(source, located, wanted, rng) if rng and wanted else (None, None)
    rows = located.rows(0)
    if places is not None:
        rows = (one for at, one in enumerate(rows) if at in places)
    first = list(itertools.islice(rows, 1))
    reading = Reading(source, located, kind, turns)
    name, reason = reading.format(first)
    examples: list[Example] = []
    errors: list[InputError] = []
    bad = 0
    for count, (number, row) in enumerate(itertools.chain(first, rows), 1):
        try:
            examples.append(reading.example(row, number, name))
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
        file=str(located.files[0]),
        part="validation" if part == "validation" else "train",
        sha256=located.sha256(),
        bytes=located.bytes,
        format=name,
        rows=len(examples) if have is None else have,
        chosen=len(examples),
        commit=located.commit,
        reason=reason,
        read_as=reading.read_as,
    )
    if on_rows:
        on_rows(len(examples))
    return Parsed(report, examples)


def _choice(source: DataSource, located: Located, wanted: int, rng: random.Random) -> tuple[int, set[int]]:
    """(rows there are, places from 0 of those that are taken); a file is read once more for it, and not kept."""
    have = located.count if located.count is not None else sum(1 for _ in located.rows(0))
    return have, set(choose_rows(have, wanted, rng, f"data.train, {source.path}"))


def train_on(method: MethodConfig) -> TrainOn:
    """Which tokens of an example count: an option of sft, the whole text for pretrain, else every answer."""
    return method.train_on if method.name == "sft" else "all" if method.name == "pretrain" else "assistant"


def encode_examples(
    kind: RowKind,
    examples: Sequence[Example],
    masker: Masker,
    on_rows: Callable[[int], None] | None = None,
    on_units: Callable[[Sequence[Unit]], None] | None = None,
) -> list[Unit]:
    """Return the examples as units of a kind, some hundreds at a time.

    Two threads take turns: while the tokenizer, which is Rust, works on one's rows, the other renders.

    Raises:
        InputError: a row cannot be masked.
    """
    units: list[Unit] = []
    with ThreadPoolExecutor(2) as pool:
        try:
            for done, batch in enumerate(pool.map(lambda rows: encode(kind, rows, masker), _batches(examples)), 1):
                units += batch
                if on_units:
                    on_units(batch)
                if on_rows:
                    on_rows(min(done * BATCH_ROWS, len(examples)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return units


def choose_validation(rows: int, share: float, seed: int) -> set[int]:
    """Return the places (from 0) of the rows kept away from training.

    At least one and never all where the share is above 0 and there are two rows or more.
    """
    if share <= 0 or rows < 2:
        return set()
    count = min(rows - 1, max(1, round(rows * share)))
    return set(random.Random(seed).sample(range(rows), count))


def _count_used(source: SourceReport, pool: Sequence[Unit], held: Sequence[Unit], times: Sequence[int]) -> None:
    """Count what training and validation use of a source; `times` says how often each row of `pool` is trained on."""
    source.unused = times.count(0)
    source.kept = len(pool) - source.unused + len(held)
    source.repeated = sum(times) - (len(pool) - source.unused)
    for rows, often in ((pool, times), (held, [1] * len(held))):
        source.tokens += sum(unit.tokens * count for unit, count in zip(rows, often, strict=True))
        source.supervised_tokens += sum(unit.supervised * count for unit, count in zip(rows, often, strict=True))


def _from(tell: OnPhase, before: int, total: int) -> Callable[[int], None]:
    return lambda done: tell("tokenizing", before + done, total)


def _batches(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    for at in range(0, len(examples), BATCH_ROWS):
        yield examples[at : at + BATCH_ROWS]


def _raise_all(errors: list[InputError], bad: int, path: Path) -> None:
    if len(errors) == 1:
        raise errors[0]
    if bad > len(errors):
        errors.append(InputError(f"{bad - len(errors):,} more rows cannot be used", where=path.name))
    raise InputErrors(errors)


def _stop_text(masker: Masker, parsed: Sequence[Parsed]) -> str | None:
    chat = any(example.messages is not None for one in parsed for example in one.examples[:1])
    return masker.stop_text() if chat and masker.train_on != "all" else None

"""From the files of a configuration to masked token lists for training and validation.

Reading, choosing rows, parsing, leaving out doubles, masking, split, truncation (or joining), mixing, in that order,
each counted in the report. Truncation is never silent. The split depends on the rows and the seed alone, so every
model is validated on the same rows of the same files; it comes before the mixing, so a row that is repeated is never
one of them. Rows wait for their tokens as compressed text (`held`), tokens are kept as arrays (`units`).
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from studio.config.data import DataConfig
from studio.data.files.datafiles import place
from studio.data.formats.answers import Example, Unread
from studio.data.masks.masker import Masker
from studio.data.masks.templates import template_findings, with_template
from studio.data.prepare.duplicates import deduplicate
from studio.data.prepare.findings import collect_findings, reading_findings, text_findings
from studio.data.prepare.joining import join_documents
from studio.data.prepare.limit import limited
from studio.data.prepare.prepared import Prepared
from studio.data.prepare.split import choose_validation
from studio.data.prepare.tokencache import TokenCache
from studio.data.prepare.units import Unit, encode
from studio.data.report import DataReport, SourceReport, summarize_lengths
from studio.data.sources.held import characters
from studio.data.sources.locate import locate, sources_of
from studio.data.sources.mixing import mix, mix_findings, rows_findings
from studio.data.sources.parsing import SHOWN_ERRORS, Parsed, parse_source
from studio.data.sources.reading import in_turns
from studio.data.streaming.preparing import prepare_streamed
from studio.data.streaming.wanted import is_streamed, size_findings
from studio.errors import InputError
from studio.methods import MethodConfig, RowKind
from studio.settings import Settings

# (phase name, rows done, rows in all or None while unknown)
OnPhase = Callable[[str, int, int | None], None]
# Blocks of rows between reading and tokens: one for each thread and one that is ready.
_AT_WORK = 3
# While it is tokenized a text takes up to 200 bytes a character: a block of more is worked on while no other is read.
_LONG_CHARACTERS = 1 << 19


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
    config = limited(config, method, None)
    named = sources_of(config)
    here = [locate(source, settings) for source in named]
    if is_streamed(config, method, here):
        return prepare_streamed(
            config, method, tokenizer, settings, list(zip(named, here, strict=True)), tell, seed
        )  # fmt: skip
    kind = method.kind.rows
    used = with_template(tokenizer, config.template, config.system)
    masker = Masker(used, method.kind.train_on(method), config.control_tokens)
    cache = TokenCache(settings.tokens, masker, kind)
    parsed = [
        parse_source(
            source, located, "train" if at < len(config.train) else "validation",
            lambda done: tell("reading data", done, None), kind, random.Random(f"{seed}/rows/{at}"),
            in_turns(used.chat_template, config, method),
        )
        for at, (source, located) in enumerate(zip(named, here, strict=True))
    ]  # fmt: skip
    deduplicate(parsed, config.deduplicate, lambda done: tell("finding duplicates", done, None))
    total = sum(len(one.examples) for one in parsed)
    units: list[list[Unit]] = []
    for one in parsed:
        before = sum(map(len, units))
        tell_rows = _from(tell, before, total)
        kept = cache.read(one.examples)
        if kept is None:
            kept = []
            with cache.keeping(one.examples) as keep:
                for _, some in encoded(kind, one.examples.blocks(), masker):
                    keep(some)
                    kept += some
                    tell_rows(len(kept))
        else:
            one.source.cached = True
            tell_rows(len(one.examples))
        units.append(kept)
    flat = list(itertools.chain.from_iterable(units))
    report = DataReport([one.source for one in parsed], seed=seed, stop_text=_stop_text(masker, parsed))
    report.lengths = summarize_lengths([one.length for one in flat], config.limit)
    joined = method.kind.joins(method)
    if config.truncation == "error" and not joined:
        refuse_long(flat, config.limit, joinable=method.reads("documents"))

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
        pools = [list(join_documents(rows, config.limit)) for rows in pools]
        held = [list(join_documents(rows, config.limit)) for rows in held]
    if not any(pools):
        raise InputError(
            f"no rows are left to train on: none of {trained:,} rows has an answer within the first "
            f"{config.limit} tokens",
            where="data.train",
            fix=f"Raise data.max_length (the longest row has {report.lengths.longest} tokens), or use shorter rows",
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
    unread = sum((one.examples.unread for one in parsed), Unread())
    collect_findings(report, config, unread, flat, once, validation)
    report.findings += reading_findings(report.sources, named, bool(used.chat_template))
    report.findings += rows_findings(list(zip(named, here, report.sources, strict=True)))
    report.findings += mix_findings(report.sources)
    report.findings += text_findings(zip(here, report.sources, strict=True))
    report.findings += template_findings(tokenizer, config.template)
    report.findings += size_findings(config, method, here)
    return Prepared(train, validation, report, kind, used)


def encoded(
    kind: RowKind, blocks: Iterable[list[Example]], masker: Masker
) -> Iterator[tuple[list[Example], list[Unit]]]:
    """Yield examples with their units, some hundreds at a time and in order.

    Two threads take turns: while the tokenizer, which is Rust, works on one's rows, the other renders. No more blocks
    are taken than they work on.

    Args:
        kind: what the method learns from.
        blocks: examples, some hundreds in each.
        masker: shared by both threads.

    Raises:
        InputError: a row cannot be masked.
    """
    with ThreadPoolExecutor(2) as pool:
        at_work: deque[tuple[list[Example], Future[list[Unit]]]] = deque()
        try:
            for block in blocks:
                at_work.append((block, pool.submit(encode, kind, block, masker)))
                is_long = sum(map(characters, block)) > _LONG_CHARACTERS
                while len(at_work) > (0 if is_long else _AT_WORK):
                    examples, units = at_work.popleft()
                    yield examples, units.result()
            while at_work:
                examples, units = at_work.popleft()
                yield examples, units.result()
        finally:
            pool.shutdown(cancel_futures=True)


def within(unit: Unit, config: DataConfig, source: SourceReport) -> Unit | None:
    """Return the example within the limit, None if it is left out; what is cut or left out is counted in `source`.

    Args:
        unit: one example, as token ids.
        config: `max_length` and what becomes of longer examples.
        source: counts of the unit's source; changed.
    """
    kept: Unit | None = unit
    if unit.length > config.limit:
        if config.truncation == "drop":
            source.dropped += 1
            return None
        kept = unit.cut(config.limit)
        if kept is None:
            source.dropped_unsupervised += 1
            return None
        source.cut += 1
    return kept


def refuse_long(rows: Sequence[Unit], limit: int, joinable: bool) -> None:
    """Refuse rows over the limit.

    Args:
        rows: all of them, short ones included.
        limit: in tokens.
        joinable: whether splitting documents across examples can be suggested.

    Raises:
        InputError: there are some; the first of them are named, with the ways out.
    """
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
        fix=f"Set data.max_length to {longest}, or data.truncation to drop (drop these rows) or cut (truncate them)"
        + (", or method.documents to join (split them across examples)" if joinable else ""),
    )


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


def _stop_text(masker: Masker, parsed: Sequence[Parsed]) -> str | None:
    chat = any(one.examples.first is not None and one.examples.first.messages is not None for one in parsed)
    return masker.stop_text() if chat and masker.train_on != "all" else None

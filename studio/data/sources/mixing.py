"""Mixing several sets: which rows of each are taken, and in what order they follow each other.

Everything is decided by counts, weights and the seed; rows themselves are not looked at. Interleaving draws the sets
exactly as `datasets.interleave_datasets` does with the same probabilities and seed. Which rows of a set are drawn is
a random choice of the whole set (theirs are its first ones), so a sorted file is not taken from its start only.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from studio.config.data import DataConfig, DataSource
from studio.data.report import Finding, SourceReport
from studio.data.sources.locate import Located
from studio.errors import InputError

# (which set, which of its rows), both from 0.
Place = tuple[int, int]
_BLOCK = 1000
# More passes over the data than a run ever needs: a weight that asks for them is a slip of the pen.
MAX_PASSES = 100


def choose(have: int, wanted: int, rng: random.Random) -> list[int]:
    """Return `wanted` places below `have`, in order: whole passes, then a random choice without repeats.

    Args:
        have: places to choose from, at least 1.
        wanted: may be larger than `have`: places then repeat.
        rng: advanced by the draw.
    """
    passes, rest = divmod(wanted, have)
    return list(range(have)) * passes + sorted(rng.sample(range(have), rest))


def choose_rows(have: int, wanted: int, rng: random.Random) -> list[int]:
    """Return the places of the rows that a source's `rows` takes: at most `wanted` of `have`, in order, none twice.

    Args:
        have: rows of the source.
        wanted: rows asked for; all are taken where there are fewer (`rows_findings` says so).
        rng: advanced by the draw.
    """
    return choose(have, min(wanted, have), rng) if have else []


def is_mixed(config: DataConfig) -> bool:
    """Whether rows may be left out or repeated; if not, every row is taken once, set after set."""
    return len(config.train) > 1 and (config.mix == "interleave" or config.train[0].weight is not None)


def mix(config: DataConfig, counts: Sequence[int], seed: int) -> list[Place]:
    """Return the training examples in their order; a place that comes twice is a repeated row.

    Args:
        config: section `data`: the weights of its sources, `mix` and `stopping_strategy`.
        counts: (sets,) rows of each set that can be trained on.
        seed: of every random choice; the run's `training.seed`.

    Raises:
        InputError: a set has no row, or its share is less than one.
    """
    if not is_mixed(config):
        return [(at, row) for at, count in enumerate(counts) for row in range(count)]
    for source, count in zip(config.train, counts, strict=True):
        if not count:
            raise InputError(
                "no rows of this dataset are left to mix", where=f"data.train, {source.path}",
                fix="Remove the dataset, or raise data.max_length",
            )  # fmt: skip
    weights = [source.weight for source in config.train if source.weight is not None]
    shares = [weight / sum(weights) for weight in weights] if weights else None
    every = config.stopping_strategy == "all_exhausted"
    _require_modest(config, counts, shares, every)
    if config.mix == "interleave":
        order = _drawn(counts, shares, seed, every) if shares else _in_turn(counts, every)
    else:
        order = _one_after_another(counts, shares or [], every)
    wanted = Counter(order)
    rows = []
    for at, count in enumerate(counts):
        if not wanted[at]:
            raise InputError(
                "the share of this dataset in the mix is less than one row", where=f"data.train, "
                f"{config.train[at].path}",
                fix="Raise its weight, remove the dataset, or set data.stopping_strategy: all_exhausted",
            )  # fmt: skip
        rows.append(iter(choose(count, wanted[at], random.Random(f"{seed}/mix/{at}"))))
    return [(at, next(rows[at])) for at in order]


def mixed_counts(config: DataConfig, counts: Sequence[int]) -> list[int]:
    """Return about how many examples `mix` takes of each set, without making its order.

    Args:
        config: as `mix` has it.
        counts: (sets,) rows of each set that can be trained on.
    """
    if not is_mixed(config):
        return list(counts)
    weights = [source.weight or 1.0 for source in config.train]
    totals = [count / weight for count, weight in zip(counts, weights, strict=True)]
    whole = max(totals) if config.stopping_strategy == "all_exhausted" else min(totals)
    return [round(whole * weight) for weight in weights]


def rows_findings(sources: Sequence[tuple[DataSource, Located, SourceReport]]) -> list[Finding]:
    """Say of each source that has fewer rows than were asked for that all of them are used.

    Args:
        sources: as the run names each, where it is, and the report that knows how many rows it has.
    """
    found = []
    for source, located, report in sources:
        wanted = source.rows or located.sample or 0
        if wanted > report.rows:
            text = f"{wanted:,} rows were asked for, and the dataset has {report.rows:,}: all are used ({source.path})"
            found.append(Finding("info", report.rows, text))
    return found


def mix_findings(sources: Sequence[SourceReport]) -> list[Finding]:
    """Say how many rows the mix left unused, and how many examples repeat a row."""
    found = []
    for text, fix, counts in (
        (
            "unused by the mix", "Set data.stopping_strategy: all_exhausted, or other weights",
            [source.unused for source in sources],
        ),
        ("examples are rows repeated by the mix", "", [source.repeated for source in sources]),
    ):  # fmt: skip
        if sum(counts):
            named = ", ".join(
                f"{source.path} {count:,}" for source, count in zip(sources, counts, strict=True) if count
            )
            found.append(Finding("info", sum(counts), f"{text}: {named}", fix))
    return found


def _require_modest(config: DataConfig, counts: Sequence[int], shares: Sequence[float] | None, every: bool) -> None:
    if not every or not shares:
        return
    examples = max(count / share for count, share in zip(counts, shares, strict=True))
    if examples > MAX_PASSES * sum(counts):
        least = config.train[min(range(len(shares)), key=lambda at: shares[at] / counts[at])]
        raise InputError(
            f"with these weights, all rows are used only after {examples:,.0f} examples, of {sum(counts):,} rows",
            where=f"data.train, {least.path}",
            fix=f"Raise its weight ({least.weight:g}), or set data.stopping_strategy: first_exhausted",
        )


def _one_after_another(counts: Sequence[int], shares: Sequence[float], every: bool) -> list[int]:
    """Each set as often as its share of the whole says, the largest whole that repeats no row, or the least with all.

    The set that decides the whole keeps exactly its rows; others are rounded down, or up where all rows are wanted.
    """
    totals = [count / share for count, share in zip(counts, shares, strict=True)]
    decisive = totals.index(max(totals) if every else min(totals))
    order = []
    for at, (count, share) in enumerate(zip(counts, shares, strict=True)):
        exact = counts[decisive] * share / shares[decisive]
        # Within rounding errors of a whole number it is that number.
        near = round(exact) if abs(exact - round(exact)) < 1e-9 * max(1.0, exact) else int(exact) + every
        order += [at] * (count if at == decisive else near)
    return order


def _in_turn(counts: Sequence[int], every: bool) -> list[int]:
    rounds = max(counts) if every else min(counts)
    return list(range(len(counts))) * rounds


def _drawn(counts: Sequence[int], shares: Sequence[float], seed: int, every: bool) -> list[int]:
    """Sets drawn at random by their shares, until one has been drawn as often as it has rows, or all have.

    The same numbers from the same generator as `datasets.arrow_dataset._interleave_map_style_datasets`.
    """
    import numpy

    generator = numpy.random.default_rng(seed)
    left = list(counts)
    open_ = len(counts)
    order: list[int] = []
    while True:
        for at in generator.choice(len(counts), size=_BLOCK, p=shares).tolist():
            order.append(at)
            left[at] -= 1
            if left[at] == 0:
                open_ -= 1
                if not every or not open_:
                    return order

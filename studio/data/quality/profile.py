"""The profile of a run's data: what is in it, what will be done with each row, and what is worth a look.

Rows stream by; what is kept of one is its place, its lengths and the hashes of `duplicates`, about 1.2 kB. A sample
gives a first answer about everything but doubles, which only the whole can show. Nothing is changed.
"""

from __future__ import annotations

import itertools
import random
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from studio.config.data import DataConfig
from studio.data.formats.answers import Example
from studio.data.masks.masker import Masker
from studio.data.prepare import batch
from studio.data.prepare.duplicates import NEAR_ROWS, THRESHOLD, Doubles
from studio.data.prepare.findings import check_finding
from studio.data.prepare.joining import joined_lengths
from studio.data.prepare.split import choose_validation
from studio.data.prepare.units import Unit, encode
from studio.data.quality.contents import check_of, checks_of
from studio.data.report import Finding, Place, summarize_lengths
from studio.data.sandbox.bounds import OutOfBoundsError
from studio.data.sources.held import BLOCK_ROWS, characters, in_blocks
from studio.data.sources.stream import Read, Source, draw, read_source, understood
from studio.data.wire import error_to_dict
from studio.errors import InputError
from studio.methods import RowKind
from studio.models.plan.batches import Batching

Values = dict[str, Any]
NAMED = 50
_SHOWN_ERRORS = 5
_SAMPLE_BATCH = 64
_REFUSED = "refused: the run does not start"
_USED = "trained on as they are"


def sampled_rows(
    sources: Sequence[Source], count: int, seed: int, on_rows: Callable[[], None]
) -> tuple[list[Read], int | None]:
    """Return `count` rows drawn from all sources, mixed, and how many rows there are (None if that takes long).

    Args:
        sources: opened ones, at least one.
        count: rows in all, shared evenly; at least one is drawn from each.
        seed: of the draw and the order.
        on_rows: called now and then while rows are read; may raise to stop.
    """
    rows: list[Read] = []
    total: int | None = 0
    for source in sources:
        drawn = draw(source.located, max(1, count // len(sources)), seed, on_rows)
        rows += [understood(source, at, number, row) for at, number, row in drawn.rows]
        total = None if total is None or drawn.total is None else total + drawn.total
    random.Random(seed).shuffle(rows)
    return rows, total


def until(reads: Iterable[Read], deadline: float) -> Iterator[Read]:
    """Yield rows until a time of `time.monotonic`, some in any case, so that a first answer does not wait."""
    for done, read in enumerate(reads):
        if done >= _SAMPLE_BATCH and time.monotonic() > deadline:
            return
        yield read


def all_rows(sources: Sequence[Source]) -> Iterator[Read]:
    """Yield the rows of all sources; the file for validation comes first, as in `deduplicate`."""
    ordered = sorted(sources, key=lambda source: source.part == "train")
    return itertools.chain.from_iterable(read_source(source) for source in ordered)


class Profile:
    """Figures of the rows that were added.

    Args:
        config: section `data`.
        kind: what the method learns from.
        masker: of the model.
        parts: "train" or "validation" for each source.
        seed: `training.seed`, of the split and the order.
        batching: how much is computed at a time, for the padding.
        batch: rows of which those of like length are put together; 0 where they are not.
        doubles: look for doubles; not of use in a sample.
        joined: rows are joined and cut anew (`joining`), so none is too long.
    """

    def __init__(
        self, config: DataConfig, kind: RowKind, masker: Masker, parts: Sequence[str], *, seed: int, batching: Batching,
        batch: int = 0, doubles: bool = True, joined: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.kind, self.masker, self.parts = config, kind, masker, parts
        self.seed, self.batching, self.batch, self.joined = seed, batching, batch, joined
        self.rows = self.unusable = 0
        self.tokens: Counter[str] = Counter()
        self.turns: Counter[int] = Counter()
        self.roles: Counter[str] = Counter()
        self.secrets: dict[str, Values] = {}
        self.errors: list[InputError] = []
        self._counts: Counter[str] = Counter()
        self._places: dict[str, list[Place]] = {}
        self._details: dict[str, str] = {}
        self._without_answer = 0
        # Of each usable row: its place, the first row that it equals and the first that it resembles (itself if none).
        self._source, self._row, self._at = array("H"), array("I"), array("I")
        self._equal, self._like, self._share = array("I"), array("I"), array("f")
        # Of each unit: its row, the tokens of its longest sequence before and after truncation (0: left out), and those
        # of all its sequences after it, with how many of them the loss counts.
        self._owner, self._length, self._kept = array("I"), array("I"), array("I")
        self._tokens, self._trained = array("I"), array("I")
        self._doubles = Doubles(most=NEAR_ROWS) if doubles else None

    def add(self, reads: Iterable[Read], on_rows: Callable[[int], None]) -> None:
        """Take rows; `on_rows` is told how many there were, every few hundred."""
        many = BLOCK_ROWS if self._doubles else _SAMPLE_BATCH
        for some in in_blocks(reads, lambda read: characters(read.example), many):
            self.rows += len(some)
            usable = []
            for read in some:
                if read.example is not None:
                    usable.append((read, read.example))
                elif read.error is not None:
                    self._refuse(read.place, read.error)
            for read, example, units in self._encoded(usable):
                self._take(read.place, example, units)
            on_rows(self.rows)

    def result(self, more: Sequence[Finding] = ()) -> Values:
        """Return the figures and findings, with `more` of them, as plain values (docs/data.md, "Profile")."""
        out = self._left_out()
        lengths = asdict(summarize_lengths(self._length, self.config.limit))
        over = lengths["over_limit"]
        fate = {"error": "refused", "drop": "dropped", "cut": "cut"}[self.config.truncation]
        lengths |= {"refused": 0, "dropped": 0, "cut": 0, "without_answer": self._without_answer}
        lengths[fate] = 0 if self.joined else over - self._without_answer
        stays = [unit for unit, owner in enumerate(self._owner) if owner not in out]
        validation = self._validation(stays)
        kept = [self._kept[unit] for unit in stays if self._kept[unit] and unit not in validation]
        if self.joined:
            kept = joined_lengths(sum(kept), self.config.limit)
        order = batch.epoch_order(len(kept), self.seed, shuffle=self.config.shuffle)
        held = {self._owner[unit] for unit in validation}
        findings = [*self._findings(), *more]
        return {
            "rows": self.rows, "usable": len(self._row), "unusable": self.unusable,
            "train": len(kept), "validation": sum(bool(self._kept[unit]) for unit in validation),
            "tokens": {
                "total": self.tokens["total"], "trained": self.tokens["trained"],
                "kept": sum(self._tokens[unit] for unit in stays),
                "kept_trained": sum(self._trained[unit] for unit in stays),
            },
            "padding": batch.padding(kept, self.batching, order, self.batch) if kept else None,
            "packing": batch.packing(kept, self.config.limit) if kept else None,
            "lengths": lengths,
            "turns": {str(turns): count for turns, count in sorted(self.turns.items())},
            "roles": dict(self.roles),
            "secrets": self.secrets,
            "errors": [error_to_dict(error) for error in self.errors],
            **self._doubles_found(held, out, findings),
            "findings": [asdict(one) for one in sorted(findings, key=_severity)],
        }  # fmt: skip

    def rows_of(self, source: int) -> int:
        """Return how many usable rows came from a source."""
        return self._source.count(source)

    def _encoded(self, rows: list[tuple[Read, Example]]) -> Iterator[tuple[Read, Example, list[Unit]]]:
        """The rows with their units; a row that cannot be masked is counted and left out."""
        try:
            units = encode(self.kind, [example for _, example in rows], self.masker)
        except OutOfBoundsError:
            raise
        except InputError as error:
            if len(rows) == 1:
                self._refuse(rows[0][0].place, error)
                return
            for one in rows:
                yield from self._encoded([one])
            return
        at = 0
        for read, example in rows:
            many = 2 if self.kind == "rated" and example.rejected is not None else 1
            yield read, example, units[at : at + many]
            at += many

    def _refuse(self, place: Place, error: InputError) -> None:
        self.unusable += 1
        if len(self.errors) < _SHOWN_ERRORS:
            self.errors.append(error)
        check = check_of(error)
        self._details.setdefault(check, error.what if check == "unusable" else "")
        self._note(check, place)

    def _note(self, check: str, place: Place) -> None:
        self._counts[check] += 1
        named = self._places.setdefault(check, [])
        if len(named) < NAMED:
            named.append(place)

    def _take(self, place: Place, example: Example, units: Sequence[Unit]) -> None:
        number = len(self._row)
        self._source.append(place.source)
        self._row.append(place.row)
        self._at.append(place.at)
        twin = self._doubles.add(example) if self._doubles else None
        self._equal.append(twin.first if twin and twin.exact else number)
        self._like.append(number if twin is None else self._like[twin.first] if twin.exact else twin.first)
        self._share.append(twin.similarity if twin else 0.0)
        messages = [message for message in example.messages or [] if message["role"] != "system"]
        self.turns[len(messages) or (1 if example.text is not None or example.completion is None else 2)] += 1
        self.roles.update(message["role"] for message in example.messages or [])
        found, secrets = checks_of(example)
        for note in (*found, *dict.fromkeys(note for unit in units for note in unit.notes)):
            self._note(note, place)
        for kind, masked in secrets:
            one = self.secrets.setdefault(kind, {"count": 0, "shown": []})
            one["count"] += 1
            if len(one["shown"]) < _SHOWN_ERRORS:
                one["shown"].append(masked)
        over = False
        for unit in units:
            over |= self._measure(number, unit)
        if over:
            self._note("too_long", place)

    def _measure(self, number: int, unit: Unit) -> bool:
        """Count a unit; returns whether it is over the limit."""
        limit = self.config.limit
        over = unit.length > limit and not self.joined
        kept = (unit.cut(limit) if self.config.truncation == "cut" else None) if over else unit
        self._without_answer += over and self.config.truncation == "cut" and kept is None
        self._owner.append(number)
        self._length.append(unit.length)
        self._kept.append(kept.length if kept else 0)
        self._tokens.append(kept.tokens if kept else 0)
        self._trained.append(kept.supervised if kept else 0)
        self.tokens.update(total=unit.tokens, trained=unit.supervised)
        return over

    def _place(self, number: int) -> Place:
        source = self._source[number]
        named = [one.path for one in self.config.train] + [str(self.config.validation)]
        return Place(source, named[source], self._row[number], self._at[number])

    def _left_out(self) -> set[int]:
        """Rows that data.deduplicate leaves out."""
        first = {"none": None, "exact": self._equal, "near": self._like}[self.config.deduplicate]
        if first is None:
            return set()
        return {number for number, one in enumerate(first) if one != number or self._equal[number] != number}

    def _validation(self, units: Sequence[int]) -> set[int]:
        """Which of the units are kept away from training."""
        if isinstance(self.config.validation, str):
            return {unit for unit in units if self.parts[self._source[self._owner[unit]]] == "validation"}
        return {units[at] for at in choose_validation(len(units), self.config.validation, self.seed)}

    def _findings(self) -> list[Finding]:
        limit = self.config.limit
        too_long = {"error": _REFUSED, "drop": "dropped", "cut": f"truncated to their first {limit:,} tokens"}
        actions = dict.fromkeys(("unusable", "empty_answer", "control_token"), _REFUSED)
        actions["too_long"] = too_long[self.config.truncation]
        found = []
        for check, count in self._counts.items():
            detail = self._details.get(check, "")
            if check == "secret":
                detail = ", ".join(f"{one['count']:,} × {kind}" for kind, one in self.secrets.items())
            one = check_finding(check, count, actions.get(check, _USED), self._places[check], detail)
            found.append(replace(one, level="error") if one.action == _REFUSED else one)
        return found

    def _doubles_found(self, held: set[int], out: set[int], findings: list[Finding]) -> Values:
        """The doubles and the leaks, with their findings added; None for both in a sample."""
        if self._doubles is None:
            return {"duplicates": None, "leakage": None}
        numbers = range(len(self._row))
        exact = [n for n in numbers if self._equal[n] != n]
        near = [n for n in numbers if self._equal[n] == n and self._like[n] != n]
        leaked = self._crossing(self._equal, held, out)
        known = {second for _, second in leaked}
        near_leaked = [pair for pair in self._crossing(self._like, held, out) if pair[1] not in known]
        out_of = {"none": (), "exact": ("duplicate",), "near": ("duplicate", "near_duplicate")}[self.config.deduplicate]
        for check, rows in (
            ("duplicate", exact), ("near_duplicate", near), ("leak", [second for _, second in leaked]),
            ("near_leak", [second for _, second in near_leaked]),
        ):  # fmt: skip
            action = "dropped; the first one stays" if check in out_of else _USED
            action = "counted in the validation loss" if "leak" in check else action
            if rows:
                findings.append(check_finding(check, len(rows), action, [self._place(n) for n in rows[:NAMED]]))
        pairs = [self._pair(self._equal[n], n) for n in exact[:NAMED]]
        pairs += [self._pair(self._like[n], n) for n in near[:NAMED]]
        leaks = [self._pair(*pair) for pair in (leaked + near_leaked)[:NAMED]]
        compared = min(len(self._row), NEAR_ROWS)
        return {
            "duplicates": {
                "exact": len(exact), "near": len(near), "near_among": compared, "threshold": THRESHOLD, "pairs": pairs,
            },
            "leakage": {"exact": len(leaked), "near": len(near_leaked), "pairs": leaks},
        }  # fmt: skip

    def _crossing(self, first: array[int], held: set[int], out: set[int]) -> list[tuple[int, int]]:
        """(row of the training, row of the validation) for each of the latter that has a like in the former."""
        several = {one for number, one in enumerate(first) if one != number}
        train: dict[int, int] = {}
        for number, one in enumerate(first):
            if one in several and number not in held and number not in out:
                train.setdefault(one, number)
        return [(train[first[number]], number) for number in sorted(held) if first[number] in train]

    def _pair(self, first: int, second: int) -> Values:
        one, other = self._equal[first], self._equal[second]
        share = 1.0 if one == other else None  # two that resemble a third were not compared
        if self._like[other] == one != other:
            share = self._share[other]
        elif self._like[one] == other != one:
            share = self._share[one]
        return {
            "first": asdict(self._place(first)), "second": asdict(self._place(second)),
            "similarity": None if share is None else round(share, 3), "exact": one == other,
        }  # fmt: skip


def _severity(finding: Finding) -> tuple[int, int]:
    return ("error", "warning", "info").index(finding.level), -finding.count

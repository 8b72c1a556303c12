"""Rows as compressed text and tokens as arrays: nothing is lost, and both read as they were written."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import settings as law
from hypothesis import strategies as st

from studio.data.formats.answers import Example
from studio.data.masks.overlay import IGNORED, counted, cut_runs, labels_of, runs_of
from studio.data.prepare.compact import kept
from studio.data.prepare.units import Encoded, Pair
from studio.data.sources.held import BLOCK_ROWS, HeldExamples, characters, in_blocks

TOKENS = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), max_size=40)


def examples(count: int) -> list[Example]:
    made: list[Example] = []
    for n in range(1, count + 1):
        said: Any = [{"role": "user", "content": f"ü {n}\ud800"}, {"role": "assistant", "content": "b", "weight": 0.5}]
        made.append(Example(n, "x", "messages", messages=said, columns={"n": n}, unused=("id",) if n % 2 else ()))
    return made


def test_rows_come_back_in_order() -> None:
    for count in (0, 1, BLOCK_ROWS, 2 * BLOCK_ROWS + 3):
        rows = examples(count)
        held = HeldExamples(rows)
        assert list(held) == rows == list(held)
        assert [one.columns for one in held] == [one.columns for one in rows]
        assert len(held) == count and held.first == (rows[0] if rows else None)
        assert held.unread.counts["id"] == (count + 1) // 2
        assert [place[0] for place in held.places()] == [one.row for one in rows]
        assert [len(block) for block in held.blocks()] == [len(block) for block in in_blocks(rows, characters)]


def test_the_digest_is_of_what_is_said_and_not_of_where() -> None:
    rows = examples(3)
    elsewhere = [Example(one.row + 5, "y", "messages", messages=one.messages) for one in rows]
    assert HeldExamples(rows).digest() == HeldExamples(elsewhere).digest()
    assert HeldExamples(rows).digest() != HeldExamples(reversed(rows)).digest()
    kept_rows = HeldExamples(rows).kept(lambda one: one.row != 2)
    assert [one.row for one in kept_rows] == [1, 3]
    assert kept_rows.digest() == HeldExamples([rows[0], rows[2]]).digest()


@law(max_examples=200, deadline=None)
@given(TOKENS, st.integers(0, 40), st.integers(0, 40))
def test_labels_survive_as_runs(tokens: list[tuple[int, bool]], start: int, length: int) -> None:
    ids = [token for token, _ in tokens]
    labels = [token if trained else IGNORED for token, trained in tokens]
    runs = runs_of(labels)
    assert labels_of(ids, runs) == labels
    assert counted(runs) == sum(trained for _, trained in tokens)
    inside = cut_runs(runs, start, start + length)
    assert labels_of(ids[start : start + length], inside) == labels[start : start + length]


@law(max_examples=100, deadline=None)
@given(TOKENS, st.integers(1, 45))
def test_units_read_as_lists_and_are_kept_as_arrays(tokens: list[tuple[int, bool]], limit: int) -> None:
    ids = [token for token, _ in tokens]
    labels = [token if trained else IGNORED for token, trained in tokens]
    unit = Encoded(ids, labels, 3, "x")
    assert (unit.input_ids, unit.labels, unit.length) == (ids, labels, len(ids))
    assert unit.supervised == len(labels) - labels.count(IGNORED)
    assert kept(unit, "input_ids").itemsize == 4
    assert unit == Encoded(kept(unit, "input_ids"), kept(unit, "labels"), 3, "x")
    cut = unit.cut(limit)
    if all(label == IGNORED for label in labels[:limit][1:]):
        assert cut is None
    else:
        assert cut is not None and (cut.input_ids, cut.labels) == (ids[:limit], labels[:limit])


def test_keys_of_rows_tell_where_a_part_ends() -> None:
    assert Pair([1], [2], [3], 1, "x").key == Pair([1], [2], [3], 9, "y").key
    assert Pair([1], [2], [3], 1, "x").key != Pair([1, 2], [], [3], 1, "x").key

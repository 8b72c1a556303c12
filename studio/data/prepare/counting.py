"""The tokens of one source, counted as its rows stream by: what `inspect` says of a file with a model.

None are kept, so a file of any size takes the memory of some blocks of rows.
"""

from __future__ import annotations

from array import array
from dataclasses import asdict

from studio.data.formats.answers import Example, Unread
from studio.data.masks.masker import Masker
from studio.data.prepare.findings import Notes, limit_findings
from studio.data.prepare.pipeline import encoded
from studio.data.report import Finding, summarize_lengths
from studio.data.sources.held import characters, in_blocks
from studio.data.sources.parsing import OpenedSource
from studio.data.wire import Values
from studio.errors import InputError
from studio.methods import RowKind
from studio.models.catalog.child import Progress


def count_tokens(
    kind: RowKind, opened: OpenedSource, masker: Masker, max_length: int, unread: Unread, progress: Progress
) -> tuple[Values, list[Finding]]:
    """Count the tokens of rows as they stream by.

    Args:
        kind: what the method learns from.
        opened: the rows, none of which was taken yet.
        masker: of the model.
        max_length: the limit that lengths are compared with.
        unread: the rows' keys that are not read are added to it.
        progress: told after each block of rows.

    Returns:
        lengths (figures and histogram), tokens, supervised_tokens and stop_text; and what is worth saying.

    Raises:
        InputError: a row cannot be used. One that cannot even be read is named first.
    """
    lengths, notes = array("I"), Notes()
    tokens = supervised = rows = 0
    first: Example | None = None
    examples = opened.examples(lambda done: progress("counting rows", done, opened.total) if opened.bad else None)
    try:
        for some, units in encoded(kind, in_blocks(examples, characters), masker):
            first = first or some[0]
            for example in some:
                unread.add(example)
            lengths.extend(one.length for one in units)
            tokens += sum(one.tokens for one in units)
            supervised += sum(one.supervised for one in units)
            notes.add(units)
            rows += len(some)
            progress("tokenizing", rows, opened.total)
    except InputError:
        for _ in examples:  # a row that cannot even be read is named first
            pass
        raise
    progress("tokenizing", rows, rows)
    chat = first is not None and first.messages is not None
    told: Values = {
        "lengths": asdict(summarize_lengths(lengths, max_length)), "tokens": tokens, "supervised_tokens": supervised,
        "stop_text": masker.stop_text() if chat and masker.train_on != "all" else None,
    }  # fmt: skip
    return told, notes.findings() + limit_findings(told["lengths"])

"""Which of a run's training rows are computed for its importance matrix: a bounded, fixed sample, as training saw them.

Whole rows count, whatever the loss counted: a prompt goes through the same weights as its answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import islice
from typing import Any

from pydantic import BaseModel

from studio.config.data import DataSource
from studio.config.jobs import DEMO_TRAIN
from studio.data.formats.answers import Example
from studio.data.masks.masker import Masker
from studio.data.sources.locate import is_hub_source, locate
from studio.data.sources.reading import Reading, in_turns
from studio.errors import InputError
from studio.export.proof.material import readable, spread
from studio.export.source import where_it_lies
from studio.methods import METHODS, RowKind
from studio.settings import Settings

# A matrix of 16,384 tokens of the demo was no better than one of 4,096, and a large model computes them for an hour.
ROWS, TOKENS, ROW_TOKENS = 256, 4096, 512
ROWS_READ = 2000  # of each source, from its beginning


class TrainingRows(BaseModel):
    """What of a run's configuration says how its training rows are read; travels to a step as JSON.

    Attributes:
        sources: by the paths where their files are.
        names: of the sources, for others to read: no folders of this machine.
        kind: what its method learns from.
        markup: rows may spell control tokens.
        plain: its method reads texts as they are.
    """

    sources: list[DataSource]
    names: list[str]
    kind: RowKind
    markup: bool
    plain: bool


def training_rows(config: Mapping[str, Any], settings: Settings) -> TrainingRows:
    """Find the training rows of a run that are still there.

    Args:
        config: of the run, as job.yaml has it.
        settings: of the home.

    Raises:
        InputError: none are.
    """
    data, method = config.get("data") or {}, METHODS.get(str((config.get("method") or {}).get("name")))
    found: list[DataSource] = []
    names, missing = [], None
    for values in data.get("train") or [{"path": DEMO_TRAIN}]:
        source = DataSource.model_validate(values)
        try:
            found.append(where_it_lies(source, settings))
            names.append(_name_of(source, settings))
        except InputError as error:
            missing = missing or error
    if not found:
        raise InputError(
            f"the training rows, from which an importance matrix is made, are no longer there: {missing.what}"
            if missing
            else "the run has no training rows, from which an importance matrix is made",
            where=missing.where if missing else "data.train",
            fix="Restore them, or export types that need no matrix, with imatrix: off",
        )
    kind: RowKind = method.rows if method else "answers"
    markup = data.get("control_tokens") == "keep"
    plain = method.plain if method else False
    return TrainingRows(sources=found, names=names, kind=kind, markup=markup, plain=plain)


def sample_rows(asked: TrainingRows, tokenizer: Any, settings: Settings) -> list[list[int]]:
    """Choose rows evenly from each source, in an order that is always the same; returns the token ids of each.

    At most `ROWS` rows and `TOKENS` tokens in all.

    Args:
        asked: of the run; of pairs the better answer is taken, of rows without an answer the prompt.
        tokenizer: the run's.
        settings: of the home.

    Raises:
        InputError: a row cannot be used any more.
    """
    share = -(-ROWS // len(asked.sources))
    masker = Masker(tokenizer, "all", "keep" if asked.markup else "refuse")
    rows: list[list[int]] = []
    for source in asked.sources:
        examples = _examples(source, asked, tokenizer, share, settings)
        if asked.kind == "prompts":
            rows += [masker.prompt(one).input_ids for one in examples]
        else:
            rows += [one.input_ids for one in masker.encode(examples)]
    random.Random(0).shuffle(rows)
    kept: list[list[int]] = []
    left = TOKENS
    for ids in rows[:ROWS]:
        if left <= 0:
            break
        kept.append(ids[: min(ROW_TOKENS, left)])
        left -= len(kept[-1])
    return kept


def _name_of(source: DataSource, settings: Settings) -> str:
    """The Hub id, or the file's own name."""
    whole = is_hub_source(source.path, settings) or source.path.startswith("demo/")
    return source.path if whole else source.path.replace("\\", "/").rpartition("/")[2]


def _examples(
    source: DataSource, asked: TrainingRows, tokenizer: Any, wanted: int, settings: Settings
) -> list[Example]:
    located = locate(source, settings)
    turns = in_turns(tokenizer.chat_template) and not asked.markup and not asked.plain
    reading = Reading(source, located, asked.kind, turns)
    rows = list(islice(located.rows(0), ROWS_READ))
    format_name, _ = reading.format(rows[:1])
    chosen = [rows[i] for i in spread(len(rows), wanted)]
    return [readable(reading.example(row, number, format_name), tokenizer) for number, row in chosen]

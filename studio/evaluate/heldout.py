"""The rows that a run held out for validation, found again as the run chose them, to be asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.config.jobs import CHOOSE_ROWS, COMPARED
from studio.config.load import build
from studio.data.formats.answers import Example
from studio.data.prepare.limit import limited_by
from studio.data.prepare.pipeline import prepare_data
from studio.data.prepare.units import Rated, both_answers
from studio.data.sources.locate import locate
from studio.data.sources.reading import Reading, in_turns
from studio.data.tokens.pretrained import load_tokenizer
from studio.errors import InputError
from studio.jobs import JobFolder
from studio.methods import RowKind
from studio.settings import Settings


def held_out(run: JobFolder, tokenizer: Any, settings: Settings, limit: int | None = None) -> list[Example]:
    """Return a run's validation rows: pairs or rated answers where it learned from those, else with their answers.

    Args:
        run: with a share of its rows held out.
        tokenizer: of the trained model.
        settings: home and folders, as the run had them.
        limit: first rows only; None for all.

    Raises:
        InputError: it held out none, or rows that expect no answer; its files are gone; or two of them have one
            name, so that rows cannot be told apart.
    """
    config = build(RunConfig, run.training, "job.yaml")
    base = Path(run.environment()["base_model"]["path"])
    data = limited_by(base, config)
    used = load_tokenizer(base, config.model.trust_remote_code)  # the run's split is that of its rows as it read them
    prepared = prepare_data(data, config.method, used, settings, seed=config.training.seed)
    wanted: dict[tuple[str, int], list[Any]] = {}
    for unit in prepared.validation:
        wanted.setdefault((unit.path, unit.row), []).append(unit)
    if not wanted:
        raise InputError(f"run '{run.request.name}' held out no rows", where="data", fix=CHOOSE_ROWS)
    files = [Path(source.path).name for source in data.train]
    if len(set(files)) < len(files):
        raise InputError(
            "two of the run's files have the same name, so its validation rows cannot be told apart", where="data",
            fix=CHOOSE_ROWS,
        )  # fmt: skip
    examples: list[Example] = []
    kind: RowKind = prepared.kind if prepared.kind in COMPARED else "answers"
    turns = in_turns(tokenizer.chat_template, data, config.method)
    for source in data.train:
        located = locate(source, settings)
        reading = Reading(source, located, kind, turns)
        with askable(run):
            format_name, _ = reading.format([next(located.rows(0))])
        name = located.path.name  # as the rows of it are named
        for number, row in located.rows(0):
            if units := wanted.get((name, number)):
                example = reading.example(row, number, format_name)
                examples += _rated(example, units) if kind == "rated" else [example]
    return examples[:limit]


@contextmanager
def askable(run: JobFolder) -> Iterator[None]:
    """Say of rows that a run could be trained on, and that expect no answer, that others have to be chosen.

    Texts of pretraining and prompts alone are such rows: nothing could be compared with what a model writes.

    Args:
        run: whose rows they are.

    Raises:
        InputError: the rows cannot be asked; it has the reason.
    """
    try:
        yield
    except InputError as error:
        raise InputError(
            f"run '{run.request.name}' held out rows that cannot be asked: {error.what}", where=error.where,
            fix=CHOOSE_ROWS,
        ) from error  # fmt: skip


def _rated(example: Example, units: list[Rated]) -> list[Example]:
    """The rated answers of a row that were held out: of a pair, each answer is drawn by itself."""
    labels = {unit.label for unit in units}
    if example.rejected is None:
        return [example]
    return [
        replace(one, rejected=None, label=good)
        for one, good in zip(both_answers(example), (True, False), strict=True)
        if good in labels
    ]

"""The rows that a run held out for validation, found again as the run chose them, to be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.config.load import build
from studio.data.prepare.limit import limited_by
from studio.data.prepare.pipeline import prepare_data
from studio.data.sources.locate import locate
from studio.data.sources.reading import Reading, in_turns
from studio.data.tokens.pretrained import load_tokenizer
from studio.errors import InputError
from studio.evaluate.questions import Question, questions_of
from studio.jobs import JobFolder
from studio.settings import Settings


def held_out(run: JobFolder, tokenizer: Any, settings: Settings, limit: int | None = None) -> list[Question]:
    """Return a run's validation rows as questions: of each conversation the last answer is expected.

    Args:
        run: trained on answers, with a share of its rows held out.
        tokenizer: of the trained model.
        settings: home and folders, as the run had them.
        limit: first rows only; None for all.

    Raises:
        InputError: it held out none, its files are gone, or two of them have one name, so that rows cannot be told
            apart.
    """
    config = build(RunConfig, run.request.config, "job.yaml")
    base = Path(run.environment()["base_model"]["path"])
    data = limited_by(base, config)
    used = load_tokenizer(base, config.model.trust_remote_code)  # the run's split is that of its rows as it read them
    prepared = prepare_data(data, config.method, used, settings, seed=config.training.seed)
    wanted = {(unit.path, unit.row) for unit in prepared.validation}
    if not wanted:
        raise InputError(
            f"run '{run.request.name}' held out no rows", where="data", fix="Choose a file of rows with answers"
        )
    files = [Path(source.path).name for source in data.train]
    if len(set(files)) < len(files):
        raise InputError(
            "two of the run's files have the same name, so its validation rows cannot be told apart", where="data",
            fix="Choose a file of rows with answers",
        )  # fmt: skip
    examples, turns = [], in_turns(tokenizer.chat_template, data, config.method)
    for source in data.train:
        located = locate(source, settings)
        reading = Reading(source, located, "answers", turns)
        format_name, _ = reading.format([next(located.rows(0))])
        name = located.path.name  # as the rows of it are named
        examples += [
            reading.example(row, number, format_name) for number, row in located.rows(0) if (name, number) in wanted
        ]
    return questions_of(examples[:limit], tokenizer)

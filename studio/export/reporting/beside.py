"""Puts the trained model's answers beside those of what was exported, at the end of an export that answered rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studio.export.reporting.worst import Known, differing_rows, known_answers, rows_to_ask

if TYPE_CHECKING:
    from studio.export.making import Making

COMPARING = "comparing answers"


def set_beside(making: Making) -> None:
    """Enter in each line of the report which rows were answered in another way, with both answers.

    The trained model is only asked where no evaluation knows its answers, and for a few rows.
    """
    evaluation = None
    if making.rows is not None and making.source.step is None:
        evaluation = making.source.origin.evaluation_on(making.context.settings, making.rows)
    files, known = making.report["files"], known_answers(evaluation)
    if not known and (rows := rows_to_ask(files)):
        known = _asked(making, rows)
    for entry in files:
        entry["rows"] = differing_rows(entry.get("exact_match"), known, evaluation is not None)


def _asked(making: Making, rows: list[int]) -> dict[int, Known]:
    """The trained model's answers to some rows; {} where it could not be asked, which fails nothing."""
    request = {"tokenizer": str(making.source.tokenizer), "folder": str(making.work), "rows": rows}
    result = making.step(COMPARING, "reporting.answers", making.trained() | request, "rows")
    if result.code != 0:
        making.context.notice("warning", f"wrong answers stand alone in the report: {making.failure(result)}")
    return {one["row"]: Known(one["answer"], one["right"]) for one in result.answer.get("answers", [])}

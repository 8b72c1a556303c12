"""The trained model's own answers to a few rows, in a process with torch: what stands beside a wrong answer.

Only asked for where no evaluation of the run knows them. Rows come as the export read them (cases.json).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio.data.tokens.pretrained import load_tokenizer
from studio.evaluate.answers import answer_all
from studio.evaluate.questions import Question
from studio.export.proof.material import SPARE_TOKENS
from studio.export.proof.reference import trained_model
from studio.export.steps import Report, serve_step


def answers_of(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Answer some rows of cases.json greedily.

    Args:
        request: {"base", "adapter"|null, "tokenizer", "folder" (of cases.json), "rows" (their numbers)}.
        report: called with (rows done, rows in all).

    Returns:
        {"answers": [{"row", "answer", "right"}]}.
    """
    cases = json.loads((Path(request["folder"]) / "cases.json").read_text(encoding="utf-8"))
    questions = [Question(**row) for row in cases["rows"] if row["row"] in request["rows"]]
    most = max(len(question.answer_ids) for question in questions) + SPARE_TOKENS
    model, _ = trained_model(request)
    tokenizer = load_tokenizer(Path(request["tokenizer"]))
    answers = answer_all(model, tokenizer, questions, most, lambda done: report(done, len(questions)))
    pairs = zip(questions, answers, strict=True)
    return {"answers": [{"row": one.row, "answer": answer.text, "right": answer.right} for one, answer in pairs]}


if __name__ == "__main__":
    raise SystemExit(serve_step(answers_of))

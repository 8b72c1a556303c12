"""A GGUF answers held-out rows, in a process with llama.cpp: how many answers are exactly right?

Each row is first read once with its expected answer: if the most likely token is the expected one at every place, end
of turn included, then greedy generation gives that answer. Only the other rows are generated, which is also how the
wrong answer gets known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.evaluate.score import exact_match
from studio.export.proof.material import SHOWN_WRONG, SPARE_TOKENS
from studio.export.proof.model import GgufModel
from studio.export.steps import Report, serve_step


def forced_right(model: GgufModel, prompt: Sequence[int], answer: Sequence[int]) -> bool:
    """Would greedy generation after `prompt` give exactly the ids `answer`?

    Args:
        model: the GGUF file, opened.
        prompt, answer: token ids of one row.
    """
    ids = [*prompt, *answer[:-1]]
    chosen = model.logits(ids, len(prompt) - 1).argmax(axis=1)
    return bool((chosen == answer).all())


def answer_rows(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Answer all rows of cases.json.

    Args:
        request: {"file", "lora" (may be left out), "folder", "threads"}.
        report: called with (rows done, rows in all).

    Returns:
        {"correct", "total", "exact_match", "unfinished", "wrong": [{"row", "prompt", "expected", "answer"}, ...],
        "wrong_rows"}: at most 20 wrong ones, and the numbers of all; `unfinished` answers were cut because they did not
        end.

    Raises:
        StudioError: llama.cpp cannot load or run the file.
    """
    rows = json.loads((Path(request["folder"]) / "cases.json").read_text(encoding="utf-8"))["rows"]
    most = max(len(row["answer_ids"]) for row in rows) + SPARE_TOKENS
    context = max(len(row["prompt_ids"]) for row in rows) + most + 8
    model = GgufModel(Path(request["file"]), context, request["threads"], lora_path=request.get("lora"))
    correct, unfinished = 0, 0
    wrong: list[dict[str, Any]] = []
    missed: list[int] = []
    try:
        for done, row in enumerate(rows, 1):
            if forced_right(model, row["prompt_ids"], row["answer_ids"]):
                correct += 1
            else:
                ids, ended = model.greedy(row["prompt_ids"], most)
                answer = model.decode(ids)
                unfinished += not ended
                if ended and exact_match(row["expected"], answer):
                    correct += 1
                else:
                    missed.append(row["row"])
                    shown = {key: row[key] for key in ("row", "prompt", "expected")}
                    wrong += [shown | {"answer": answer}] if len(wrong) < SHOWN_WRONG else []
            report(done, len(rows))
    finally:
        model.close()
    return {
        "correct": correct,
        "total": len(rows),
        "exact_match": round(correct / len(rows), 4),
        "unfinished": unfinished,
        "wrong": wrong,
        "wrong_rows": missed,
    }


if __name__ == "__main__":
    raise SystemExit(serve_step(answer_rows))

"""A GGUF answers held-out rows, in a process with llama.cpp: how many answers are exactly right?

Each row is first read once with its expected answer: if the most likely token is the expected one at every place, end
of turn included, then greedy generation gives that answer. Only the other rows are generated, from the token on that
differs, which is also how the wrong answer gets known. Rows are computed side by side (`proof.together`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.evaluate.score import exact_match
from studio.export.proof.material import SHOWN_WRONG, SPARE_TOKENS
from studio.export.proof.model import GgufModel
from studio.export.proof.together import Together
from studio.export.steps import Report, serve_step

_OWN_CONTEXT = 8  # tokens; rows are computed in a context beside the file's own


def begun(model: GgufModel, answer: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """How greedy generation begins where it does not give `answer`: up to the first token that differs, or its end.

    Args:
        model: the GGUF file, opened.
        answer: token ids.
        chosen: what is the likeliest at each of its places, after the tokens of `answer` before it.
    """
    found: list[int] = []
    for expected, token in zip(answer, chosen, strict=True):
        found.append(token)
        if token != expected or model.is_end(token):
            break
    return found


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
    model = GgufModel(Path(request["file"]), _OWN_CONTEXT, request["threads"], lora_path=request.get("lora"))
    correct, unfinished = 0, 0
    wrong: list[dict[str, Any]] = []
    missed: list[int] = []
    try:
        with Together(model, [row["prompt_ids"] for row in rows], most) as together:
            left: list[tuple[dict[str, Any], list[int]]] = []
            expected = together.chosen([(row["prompt_ids"], row["answer_ids"]) for row in rows])
            for row, chosen in zip(rows, expected, strict=True):
                beginning = begun(model, row["answer_ids"], chosen)
                if beginning == row["answer_ids"] and model.is_end(beginning[-1]):
                    correct += 1
                    report(correct, len(rows))
                else:
                    left.append((row, beginning))
            asked = [(row["prompt_ids"], beginning) for row, beginning in left]
            for (row, _), (ids, ended) in zip(left, together.written(asked, most), strict=True):
                answer = model.decode(ids)
                unfinished += not ended
                if ended and exact_match(row["expected"], answer):
                    correct += 1
                else:
                    missed.append(row["row"])
                    shown = {key: row[key] for key in ("row", "prompt", "expected")}
                    wrong += [shown | {"answer": answer}] if len(wrong) < SHOWN_WRONG else []
                report(correct + len(missed), len(rows))
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

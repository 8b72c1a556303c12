"""Parents and child answer the same rows, one model in memory at a time, in a process of its own.

Each model reads the rows with its own tokenizer and chat template, as it would be asked; an answer counts if it is
exactly the expected one, as in an evaluation.
"""

from __future__ import annotations

import gc
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from studio.data.tokens.pretrained import load_tokenizer
from studio.evaluate.loading import computing, load_model
from studio.evaluate.measures import ExactMatch
from studio.evaluate.questions import read_questions
from studio.export.steps import Report, serve_step
from studio.models.device.machine import device_info
from studio.models.inspect.adapters import require_quick_adapter
from studio.settings import read_settings

SPARE_TOKENS = 16


def score_models(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Ask every model every row.

    Args:
        request: {"models": [{"name", "weights", "adapter" (None for a whole model), "tokenizer"}], "rows"}.
        report: called with (answers given, answers in all).

    Returns:
        {"total", "scores": [{"name", "correct", "exact_match", "seconds"}], "rows": [{"row", "prompt", "expected",
        "answers", "right"}]}; answers and right are in the order of the models.

    Raises:
        InputError: the rows cannot be used.
    """
    dtype = torch.bfloat16 if device_info(read_settings()).bf16_fast else torch.float32
    rows: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for number, model in enumerate(request["models"]):
        tokenizer = load_tokenizer(Path(model["tokenizer"]))
        questions = read_questions(Path(request["rows"]), tokenizer)
        if not rows:
            rows = [{"row": one.row, "prompt": one.prompt, "expected": one.expected, "answers": [], "right": []}
                    for one in questions]  # fmt: skip
        count, total = len(questions), len(questions) * len(request["models"])
        most = max(len(one.answer_ids) for one in questions) + SPARE_TOKENS
        began, loaded = time.monotonic(), _load(model, dtype)
        with computing(dtype):
            done = partial(_told, report, number * count, total)
            answers = ExactMatch(questions, tokenizer, most).ask(loaded, done)
        for row, answer in zip(rows, answers, strict=True):
            row["answers"].append(answer.text)
            row["right"].append(answer.right)
        correct = sum(answer.right for answer in answers)
        scores.append({
            "name": model["name"], "correct": correct, "exact_match": round(correct / count, 4),
            "seconds": round(time.monotonic() - began, 2),
        })  # fmt: skip
        del loaded
        gc.collect()
    return {"total": len(rows), "scores": scores, "rows": rows}


def _told(report: Report, before: int, total: int, done: int) -> None:
    report(before + done, total)


def _load(model: dict[str, Any], dtype: torch.dtype) -> Any:
    loaded = load_model(Path(model["weights"]), dtype)
    if not model["adapter"]:
        return loaded
    require_quick_adapter(Path(model["adapter"]), loaded)
    return PeftModel.from_pretrained(loaded, model["adapter"], local_files_only=True).eval()


if __name__ == "__main__":
    raise SystemExit(serve_step(score_models))

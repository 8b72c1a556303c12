"""Parents and child answer the same rows, one model in memory at a time, in a process of its own.

Each model reads the rows with its own tokenizer and chat template, as it would be asked, and what counts is what
`studio evaluate` counts: exact matches, or, of pairs and rated answers, whether the better one is the likelier one.
"""

from __future__ import annotations

import gc
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from studio.config import RunConfig
from studio.config.load import build
from studio.data.sources.reading import source_named
from studio.data.tokens.pretrained import load_tokenizer
from studio.evaluate.loading import computing, load_model
from studio.evaluate.measures import measure_of
from studio.evaluate.questions import read_examples
from studio.export.steps import Report, serve_step
from studio.models.device.machine import device_info
from studio.models.inspect.adapters import require_quick_adapter
from studio.settings import read_settings

# Of a row beside what a model made of it.
_SAID = ("before", "after", "before_ok", "after_ok")


def score_models(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Ask every model every row.

    Args:
        request: {"models": [{"name", "weights", "adapter" (None for a whole model), "tokenizer"}], "rows", "data" (the
            file as it was named), "like" (options of the training that the models come from, {} for none)}.
        report: called with (answers given, answers in all).

    Returns:
        {"measure" (exact_match or preference_accuracy), "of" (rows, pairs or answers), "total", "scores": [{"name",
        "score" (0 to 1), "correct" (not of rated answers), "seconds"}], "rows": [{"row", "prompt", and "expected",
        "chosen" and "rejected", or "answer" and "good", "answers", "right"}]}; answers (texts, margins or
        log-probabilities) and right are in the order of the models.

    Raises:
        InputError: the rows cannot be used.
    """
    dtype = torch.bfloat16 if device_info(read_settings()).bf16_fast else torch.float32
    trained = build(RunConfig, request["like"], "job.yaml")
    source = source_named(request["like"].get("data") or {}, request["data"])
    found: dict[str, Any] = {"scores": [], "rows": []}
    for number, model in enumerate(request["models"]):
        tokenizer = load_tokenizer(Path(model["tokenizer"]))
        kind, examples = read_examples(Path(request["rows"]), tokenizer, None, source, trained.method.kind.rows)
        measure = measure_of(kind, examples, tokenizer, request["data"], trained.data)
        began, loaded = time.monotonic(), _load(model, dtype)
        with computing(dtype):
            told = partial(_told, report, number * measure.count, measure.count * len(request["models"]))
            answers: list[Any] = measure.ask(loaded, told)
        # The child is compared with several models and not with one: each is reported by itself.
        alone = measure.report(answers, answers)
        key = "preference_accuracy" if "preference_accuracy" in alone["after"] else "exact_match"
        found |= {"measure": key, "of": alone.get("of", "rows"), "total": alone["after"]["total"]}
        _add_rows(found["rows"], alone["rows"], rated=found["of"] == "answers")
        right = {} if found["of"] == "answers" else {"correct": sum(row["after_ok"] for row in alone["rows"])}
        found["scores"].append({
            "name": model["name"], "score": alone["after"][key], **right, "seconds": round(time.monotonic() - began, 2),
        })  # fmt: skip
        del loaded
        gc.collect()
    return found


def _add_rows(rows: list[dict[str, Any]], told: list[dict[str, Any]], rated: bool) -> None:
    """Put what one model made of each row beside what the others made of it; a rated answer is not right by itself."""
    if not rows:
        for one in told:
            fixed = {key: value for key, value in one.items() if key not in _SAID}
            rows.append({**fixed, "answers": []} | ({} if rated else {"right": []}))
    for row, one in zip(rows, told, strict=True):
        row["answers"].append(one["after"])
        if not rated:
            row["right"].append(one["after_ok"])


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

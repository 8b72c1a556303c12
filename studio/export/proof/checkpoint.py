"""A checkpoint or adapter against the trained model, in a process with torch: loaded as a stranger would load it.

The folder's own tokenizer must make the same ids of the prompts and carry the same template, its generation_config (for
an adapter: its tokenizer) must end answers at the end of the turn, the next-token distributions must be close to those
of base and adapter, and greedy answers equal. The arithmetic is float32, whatever the weights are stored in, so that
only their rounding shows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM

from studio.data.tokens.pretrained import load_tokenizer
from studio.evaluate.answers import answer_all
from studio.evaluate.questions import Question
from studio.export.proof.distance import compare_texts, in_words
from studio.export.proof.greedy import greedy_answers, parted
from studio.export.proof.material import SHOWN_WRONG, SPARE_TOKENS, ids_of
from studio.export.proof.reference import logits_of, precision
from studio.export.steps import Report, serve_step
from studio.models.inspect.attention import answer_options
from studio.models.inspect.headers import SAFE, read_config


def check(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Compare a folder, or answer rows with it.

    Args:
        request: {"checkpoint", "base"|null (folder of the model that an adapter is added to), "folder" (of cases.json
            and reference.npy), "near_tie" (nats, of `gates`), "rows"}: whether rows are answered instead.
        report: called with (positions or rows done, in all).

    Returns:
        What `verify.verify` returns, `greedy`, `generation_ends` (by generation_config alone) and `ends_by_itself`
        (False for an adapter: where its answers end is its base model's); or what `rows.answer_rows` returns.
    """
    folder, checkpoint = Path(request["folder"]), Path(request["checkpoint"])
    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(checkpoint)
    whole = Path(request["base"]) if request["base"] else checkpoint
    dtype, device = precision(whole)
    options = answer_options(read_config(whole))
    model: Any = AutoModelForCausalLM.from_pretrained(whole, dtype=dtype, **options, **SAFE)
    if request["base"]:
        model = PeftModel.from_pretrained(model, checkpoint, local_files_only=True)
    model = model.to(device).eval()
    if request["rows"]:
        answered: dict[str, Any] = _rows(model, tokenizer, cases["rows"], report)
        return answered
    return _compared(model, tokenizer, cases, request, report)


def _compared(
    model: Any, tokenizer: Any, cases: dict[str, Any], request: dict[str, Any], report: Report
) -> dict[str, Any]:
    folder = Path(request["folder"])
    trained = np.load(folder / "reference.npy", mmap_mode="r")
    found = compare_texts(
        cases["texts"], trained, lambda text: logits_of(model, text["ids"], len(text["supervised"])), report
    )
    firm = [prompt for prompt in cases["prompts"] if not prompt["rare"]]
    other = [prompt["name"] for prompt in firm if ids_of(tokenizer, _text(tokenizer, prompt)) != prompt["ids"]]
    known = model.generation_config.eos_token_id
    ends = known if isinstance(known, list) else [] if known is None else [known]
    generation_ends = cases["end"] in ends
    if request["base"] and tokenizer.eos_token_id is not None:  # servers end there, too
        ends = [*ends, tokenizer.eos_token_id]
    return {
        **found,
        "places": in_words(found["places"], folder / "tokenizer.json"),
        "prompts_compared": len(firm),
        "prompts_equal": len(firm) - len(other),
        "differences": [_difference(other)] if other else [],
        "template_carried": (tokenizer.chat_template or "") == cases["template"],
        "end_of_turn_stops": cases["end"] is not None and cases["end"] in ends,
        "generation_ends": generation_ends,
        "ends_by_itself": not request["base"],
        "greedy": _greedy(model, tokenizer, cases, ends, request["near_tie"]),
    }


def _text(tokenizer: Any, prompt: dict[str, Any]) -> str:
    if prompt["messages"] is None:
        return str(prompt["text"])
    try:
        return str(tokenizer.apply_chat_template(prompt["messages"], tokenize=False, add_generation_prompt=True))
    except Exception:  # a template raises whatever it likes; that of the run did not
        return ""


def _difference(names: list[str]) -> dict[str, Any]:
    return {
        "prompts": names, "rare": False, "kind": "tokenizer", "example": names[0],
        "cause": "the folder's tokenizer or template gives other ids than that of the model it was made of",
        "fix": "Export again; if it stays so, the tokenizer files of the model or of its base model were changed",
    }  # fmt: skip


def _greedy(model: Any, tokenizer: Any, cases: dict[str, Any], ends: list[int], near_tie: float) -> dict[str, Any]:
    """Compare answers: {"equal", "total", "unsure", "worst", "parted"}.

    `parted` are those that part, first where the trained model was surest, and `worst` is the first of them.
    """
    trained = cases["answers"]
    prompts = [(answer["name"], answer["prompt"]) for answer in trained]
    questions = {prompt["name"]: prompt for prompt in cases["prompts"]}
    found: dict[str, Any] = {"equal": 0, "total": len(trained), "unsure": 0}
    parts: list[dict[str, Any]] = []
    for asked, answer in zip(trained, greedy_answers(model, prompts, ends), strict=True):
        gap = parted(asked, answer.ids)
        if gap is None:
            found["equal"] += 1
            continue
        found["unsure"] += gap <= near_tie
        said = [tokenizer.decode(ids, skip_special_tokens=False) for ids in (asked["ids"], answer.ids)]
        prompt = questions[asked["name"]]
        question = prompt["text"] if prompt["messages"] is None else prompt["messages"][-1]["content"]
        parts.append({
            "prompt": asked["name"], "question": str(question), "nats": min(gap, 99.0), "sure": gap > near_tie,
            "trained": said[0], "exported": said[1],
        })  # fmt: skip
    parts.sort(key=lambda one: -one["nats"])
    return found | {"worst": parts[0] if parts else None, "parted": parts}


@torch.inference_mode()
def _rows(model: Any, tokenizer: Any, rows: list[dict[str, Any]], report: Report) -> dict[str, Any]:
    questions = [Question(**row) for row in rows]
    most = max(len(question.answer_ids) for question in questions) + SPARE_TOKENS
    answers = answer_all(model, tokenizer, questions, most, lambda done: report(done, len(questions)))
    pairs = list(zip(questions, answers, strict=True))
    correct = sum(answer.right for answer in answers)
    wrong = [
        {"row": one.row, "prompt": one.prompt, "expected": one.expected, "answer": answer.text}
        for one, answer in pairs
        if not answer.right
    ]
    share = round(correct / len(rows), 4)
    missed = [one["row"] for one in wrong]
    return {
        "correct": correct, "total": len(rows), "exact_match": share, "wrong": wrong[:SHOWN_WRONG],
        "wrong_rows": missed,
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(serve_step(check))

"""The evaluation of a model at a service: base and tuned model are asked each row there, and compared as here.

Answers are asked for at temperature 0, a few at a time; each question costs what the service takes for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.chat.client import as_taken
from studio.config.jobs import HELD_OUT, EvaluateConfig
from studio.config.load import build
from studio.config.remote import OpenAIConfig, asked_elsewhere
from studio.data.files.datafiles import resolve_path
from studio.errors import InputError
from studio.evaluate.report import write_report
from studio.evaluate.score import exact_match
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.remote.client import Patience, connect
from studio.remote.prepare import held_rows
from studio.remote.record import Record, read_record
from studio.remote.rows import Row, rows_of

AT_A_TIME = 4
USUAL_TOKENS = 1024


@dataclass(frozen=True)
class Asked:
    """A row as a question: its number, the messages before the last answer, and that answer."""

    row: int
    messages: list[dict[str, Any]]
    expected: str
    tools: Any = None

    @property
    def prompt(self) -> str:
        """The last message before the answer."""
        return str(self.messages[-1].get("content") or "")


def evaluate_elsewhere(context: JobContext, config: EvaluateConfig, run: JobFolder) -> None:
    """Run the evaluation of a model at a service.

    Args:
        context: of the evaluation.
        config: what is asked.
        run: the job that tuned the model.

    Raises:
        InputError: it has no model yet, or the rows cannot be used.
        StudioError: the service refuses to answer.
    """
    record = read_record(run)
    if not record.tuned:
        raise InputError(
            f"'{run.request.name}' has no tuned model (it is {record.status or run.state().status})",
            fix="Wait until it is done, or choose another run",
        )
    with context.phase("reading data", unit="rows"):
        data, questions = _questions(context, config, run)
    answers: dict[str, list[tuple[str, bool]]] = {}
    seconds: dict[str, float] = {}
    most = USUAL_TOKENS if config.max_new_tokens == "auto" else int(config.max_new_tokens)
    for side, model in (("base", record.base), ("tuned", record.tuned)):
        with context.phase(f"answers of the {side} model", len(questions), "rows") as phase:
            began = time.monotonic()
            answers[side] = _ask(context, record, model, questions, most, phase.set)
            seconds[side] = round(time.monotonic() - began, 2)
    rows = [
        {
            "row": one.row, "prompt": one.prompt, "expected": one.expected, "before": base[0], "after": tuned[0],
            "before_ok": base[1], "after_ok": tuned[1],
        }
        for one, base, tuned in zip(questions, answers["base"], answers["tuned"], strict=True)
    ]  # fmt: skip
    scores = {side: _score(rows, f"{side}_ok") for side in ("before", "after")}
    write_report(context, run, {"data": data, "measure": "exact_match", **scores, "rows": rows}, seconds)


def _questions(context: JobContext, config: EvaluateConfig, run: JobFolder) -> tuple[str, list[Asked]]:
    asked = build(OpenAIConfig, run.request.config, "job.yaml")
    data = asked_elsewhere(config.data, run.request.config, run.request.name)
    if data == HELD_OUT:
        found = list(enumerate(held_rows(asked, context.settings), 1))
    else:
        path = Path(resolve_path(data, context.settings))
        found = [(sent.number, sent.row) for sent in rows_of(path, "supervised")]  # {} for one that cannot be used
    found = found[: config.limit]
    asked_of = {number: _question(number, row) for number, row in found}
    questions = [one for one in asked_of.values() if one is not None]
    if not questions:
        raise InputError("no row has a question and an expected answer", where=data, fix="Choose another file of rows")
    if left := [number for number, one in asked_of.items() if one is None]:
        what = f"{len(left)} of {len(found)} rows do not end with a text as the answer to a question, and are left out"
        context.notice("warning", f"{what}, the first of them row {left[0]}")
    return data, questions


def _question(number: int, row: Row) -> Asked | None:
    """The row as a question; None where there is no text to expect."""
    if preferred := row.get("preferred_output"):
        messages = [*row["input"]["messages"], *preferred]
    else:
        messages = row.get("messages") or []
    if len(messages) < 2 or messages[-1].get("role") != "assistant" or not isinstance(messages[-1].get("content"), str):
        return None
    before = [{key: value for key, value in one.items() if key != "weight"} for one in messages[:-1]]
    return Asked(number, before, messages[-1]["content"], row.get("tools"))


def _ask(
    context: JobContext, record: Record, model: str, questions: list[Asked], most: int, on_done: Callable[[int], None]
) -> list[tuple[str, bool]]:
    """The answers, and which of them are right; one that was cut at the limit is not."""
    client = connect(record.base_url)
    options = as_taken(model, {"temperature": 0, "max_tokens": most})
    create: Any = client.chat.completions.create

    def answer(one: Asked) -> tuple[str, bool]:
        patience = Patience(lambda level, text: context.notice(level, text), context.check_stop)
        tools = {"tools": one.tools} if one.tools else {}
        said = patience.ask("get an answer", lambda: create(model=model, messages=one.messages, **options, **tools))
        text = str(said.choices[0].message.content or "")
        return text, said.choices[0].finish_reason != "length" and exact_match(one.expected, text)

    found = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for said in pool.map(answer, questions):
            found.append(said)
            on_done(len(found))
    return found


def _score(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    right = sum(row[key] for row in rows)
    return {"exact_match": round(right / len(rows), 4), "correct": right, "total": len(rows)}

"""Rows that are answered in another way than by the trained model, with what an evaluation knows or without one."""

from __future__ import annotations

from typing import Any

from studio.export.reporting.worst import ASKED_ROWS, Known, differing_rows, known_answers, rows_to_ask


def missed(*rows: int, answer: str = "wrong") -> dict[str, Any]:
    wrong = [{"row": row, "prompt": f"p{row}", "expected": "right", "answer": answer} for row in rows]
    return {"wrong": wrong, "wrong_rows": list(rows), "total": 9, "correct": 9 - len(rows)}


def evaluation(**answers: str) -> dict[str, Any]:
    return {
        "rows": [
            {
                "row": int(row[1:]), "prompt": f"p{row[1:]}", "expected": "right", "before": "", "before_ok": False,
                "after": answer, "after_ok": answer == "right",
            }
            for row, answer in answers.items()
        ]
    }  # fmt: skip


def test_what_was_lost_comes_before_what_was_gained() -> None:
    known = known_answers(evaluation(r1="right", r2="right", r3="other", r4="wrong", r5="no"))
    found = differing_rows(missed(2, 3, 4), known, True)
    assert found is not None and (found["lost"], found["gained"]) == (1, 1)
    assert [(one["row"], one["trained"], one["exported"]) for one in found["rows"]] == [
        (2, "right", "wrong"), (3, "other", "wrong"), (5, "no", "right"),
    ], "row 4 is answered alike, row 1 is right in both"  # fmt: skip
    assert found["rows"][2]["expected"] == "right" and found["rows"][2]["prompt"] == "p5"


def test_rows_beyond_those_with_an_answer_are_counted() -> None:
    match = missed(1) | {"wrong_rows": [1, 2]}
    found = differing_rows(match, known_answers(evaluation(r1="right", r2="right")), True)
    assert found is not None and found["lost"] == 2 and [one["row"] for one in found["rows"]] == [1]


def test_without_an_evaluation_the_rows_that_most_files_miss_are_asked_for() -> None:
    files = [{"exact_match": missed(*range(1, 10))}, {"exact_match": missed(8, 9)}, {"exact_match": None}]
    assert rows_to_ask(files) == [1, 2, 3, 4, 8, 9] and ASKED_ROWS == 6
    found = differing_rows(missed(8, 9), {8: Known("right", True), 9: Known(" wrong\n", False)}, False)
    assert found is not None and (found["lost"], found["gained"]) == (None, None)
    assert [one["row"] for one in found["rows"]] == [8], "an answer that differs by blanks is none"
    assert rows_to_ask([{"exact_match": missed()}]) == [] and differing_rows(None, {}, False) is None

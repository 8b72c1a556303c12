"""What a sweep found: the score of each child over the value that was varied, and that of the models beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from studio.jobs import JobFolder
from studio.jobs.store.files import read_json

# How a score is called, by the measure of an evaluation.
MEASURES = {"exact_match": "Exact match", "preference_accuracy": "Preference accuracy"}


def curve_of(jobs: Iterable[JobFolder]) -> dict[str, Any]:
    """Return the curve of a sweep.

    Args:
        jobs: its merges, in any order; others are passed over.

    Returns:
        {"place", "data", "measure", "of", "total", "parents": [{"name", "score", "correct", "seconds"}], "points":
        [{"value", "id", "name", "status", "reason", "score" (None until it is known), "correct", "seconds"}], "best"
        (ids of the children with the highest score)}; points are in the order of their values. Measure, of and total
        are those of the first merge that has answered, and empty before.
    """
    curve: dict[str, Any] = {"place": "", "data": "", "measure": "", "of": "", "total": 0, "parents": []}
    points = []
    for job in sorted(jobs, key=lambda one: one.id):
        varied = job.request.config.get("varied")
        if job.request.kind != "merge" or not isinstance(varied, dict) or not varied:
            continue
        place, value = next(iter(varied.items()))
        curve["place"] = curve["place"] or place
        curve["data"] = curve["data"] or str(job.request.config.get("evaluate") or "")
        state, evaluation = job.state(), evaluation_of(job)
        point = {"value": value, "id": job.id, "name": job.name, "status": state.status, "reason": state.reason}
        if evaluation is None:
            points.append(point | {"score": None})
            continue
        *models, child = evaluation["scores"]
        curve |= {key: curve[key] or evaluation[key] for key in ("measure", "of", "total")}
        curve["parents"] = curve["parents"] or models or evaluation.get("models") or []
        points.append({**child, **point})
    points.sort(key=lambda one: one["value"])
    known = [one["score"] for one in points if one["score"] is not None]
    best = [one["id"] for one in points if known and one["score"] == max(known)]
    return {**curve, "points": points, "best": best}


def in_words(evaluation: Mapping[str, Any], score: Mapping[str, Any]) -> str:
    """Return what one model scored: '93 of 120 rows', or a share where answers are not right by themselves.

    Args:
        evaluation: total, and what it counts.
        score: of the model.
    """
    if "correct" in score:
        return f"{score['correct']} of {evaluation['total']} {evaluation['of']}"
    return f"{score['score']:.1%} of {evaluation['total']} {evaluation['of']}"


def evaluation_of(job: JobFolder) -> dict[str, Any] | None:
    """Return what the models and the child of a merge answered; None where they have not."""
    try:
        found = (read_json(job.report / "merge.json") or {}).get("evaluation")
    except (ValueError, AttributeError):  # it is being written, or somebody has edited it
        return None
    return found if isinstance(found, dict) and found.get("scores") else None

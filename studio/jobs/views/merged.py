"""Merges beside trainings in a comparison: the recipe in place of settings, and what its models and child scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ruamel.yaml.error import YAMLError

from studio.foreign import parse_yaml
from studio.jobs.store.files import read_json
from studio.jobs.store.folder import JobFolder
from studio.jobs.views.differences import NONE, Row

# Rows of the comparison, by what `_recipe` gives.
_TITLES = {"merge_method": "Merge method", "merged_models": "Merged models", "merge_parameters": "Merge parameters"}


def is_merge(job: JobFolder) -> bool:
    """Whether a job is a merge."""
    return job.request.kind == "merge"


def recipe_rows(jobs: Sequence[JobFolder]) -> list[Row]:
    """Return what differs between the recipes of merges; trainings have none.

    Args:
        jobs: in the order of the columns.
    """
    told = [_recipe(job) if is_merge(job) else {} for job in jobs]
    rows = [Row(key, title, [one.get(key) or NONE for one in told]) for key, title in _TITLES.items()]
    return [row for row in rows if len(set(row.values)) > 1]


def merge_scores(jobs: Sequence[JobFolder]) -> Iterator[tuple[str, str, Any, dict[str, Any]]]:
    """Yield what merges found of their models and their child: id of the job, measure, score, and the whole evaluation.

    Args:
        jobs: merges among others.
    """
    for job in filter(is_merge, jobs):
        try:
            report = read_json(job.report / "merge.json") or {}
            evaluation = report.get("evaluation") or {}
            *models, child = evaluation.get("scores") or [None]
            if child is None:
                continue
            asked = [str(one["id"]) for one in report["parents"]] if models else []
            for name, score in [*zip(asked, models, strict=True), (job.id, child)]:
                yield name, str(evaluation["measure"]), score["score"], evaluation
        except (OSError, AttributeError, KeyError, TypeError, ValueError):  # somebody has edited it
            continue


def _recipe(job: JobFolder) -> dict[str, str]:
    """The method, the models with their weights, and the other numbers of a recipe, as text."""
    try:
        raw = parse_yaml(str(job.request.config.get("recipe") or ""))
        models = raw.get("models")
        shown = ", ".join(map(_model, models)) if isinstance(models, list) else ", ".join(_parents(job))
        base = f"; base {raw['base_model']}" if raw.get("base_model") else ""
        parameters = raw.get("parameters")
        numbers = ", ".join(f"{key} {value}" for key, value in parameters.items()) if parameters else ""
        return {
            "merge_method": str(raw.get("merge_method") or "merge and unload"), "merged_models": f"{shown}{base}",
            "merge_parameters": numbers,
        }  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError, YAMLError):
        return {"merge_method": "unknown", "merged_models": ", ".join(_parents(job)), "merge_parameters": ""}


def _model(one: dict[str, Any]) -> str:
    given = ", ".join(f"{key} {value}" for key, value in (one.get("parameters") or {}).items())
    return f"{one['model']} ({given})" if given else str(one["model"])


def _parents(job: JobFolder) -> list[str]:
    parents = job.request.config.get("parents")
    return [str(name) for name in parents] if isinstance(parents, dict) else []

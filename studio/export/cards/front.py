"""The front matter of a model card, as the Hub reads it (huggingface.co/docs/hub/model-cards).

A base model that is no Hub id, and a license that is not known, are left out: the Hub refuses a card with such values.
The language is left out as well, since nobody has said which one it is.
"""

from __future__ import annotations

import re
from typing import Any

from studio.escaping import quoted
from studio.models.catalog.hubaccess import is_hub_id

_WORD = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_NO_TEXT = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))  # what YAML 1.1 reads else
TAG = "finetune-studio"


def front_matter(
    base: str, relation: str, library: str, tags: list[str], license: dict[str, str], datasets: list[str],
    results: list[dict[str, Any]], name: str,
) -> str:  # fmt: skip
    """Return it with its `---` lines.

    Args:
        base: name of the base model; left out if it is no Hub id.
        relation: of this model to it: adapter, finetune.
        library: that loads it, as the Hub calls it.
        tags: method, tuning.
        license: as `license.license_of` returns it; empty where it is not known.
        datasets: Hub ids of the data.
        results: of evaluations, as `scores.results` returns them.
        name: of the model, for the results.
    """
    values: dict[str, Any] = {"base_model": base, "base_model_relation": relation} if is_hub_id(base) else {}
    values |= {"library_name": library, "pipeline_tag": "text-generation", "tags": [TAG, *tags]}
    values |= license
    values |= {"datasets": datasets} if datasets else {}
    values |= {"model-index": [{"name": name, "results": results}]} if results else {}
    return "\n".join(["---", *_lines(values), "---"]) + "\n"


def _lines(values: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_lines(value, f"{indent}  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{indent}{key}:")
            for one in value:
                first, *rest = _lines(one, f"{indent}  ")
                lines += [f"{indent}- {first.removeprefix(f'{indent}  ')}", *rest]
        elif isinstance(value, list):
            lines.append(f"{indent}{key}: [{', '.join(map(_scalar, value))}]")
        else:
            lines.append(f"{indent}{key}: {_scalar(value)}")
    return lines


def _scalar(value: str | float) -> str:
    if not isinstance(value, str):
        return repr(value)
    return value if _WORD.fullmatch(value) and value not in _NO_TEXT else quoted(value)

"""Rewards: what scores an answer in ppo and grpo. Each gets the rows' places and the answers' texts.

Checkable ones compare with the row's answer or look at the form; `model` is a reward model of the studio; `python`
is a function from a file that the person has allowed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.data.prepare.units import Prompt
from studio.patterns import engine
from studio.train.rewards.python import load_function
from studio.train.rewards.schema import read_schema, validator_of
from studio.train.setup import Setup

# A minus is not the hyphen of 10-15, and a comma stands between thousands only.
_NUMBER = re.compile(r"(?<!\d)[-−]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


@dataclass(frozen=True)
class Reward:
    """One reward over the rows of a run.

    Attributes:
        name: its word in the config.
        score: (prompts, answers) → one number each, None where a row cannot be scored.
        rows: the prompts, looked up by place.
    """

    name: str
    score: Any
    rows: Sequence[Prompt]

    def __call__(self, places: Sequence[int], answers: Sequence[str]) -> list[float | None]:
        """Score answers to the rows at these places."""
        scored: list[float | None] = self.score([self.rows[place] for place in places], answers)
        return scored


def make_rewards(setup: Setup, rows: Sequence[Prompt]) -> list[Reward]:
    """Return the rewards of `method.rewards`, in its order.

    Raises:
        InputError: one lacks what it needs; `checks` says the same before the start.
    """
    return [Reward(name, _scorer(name, setup), rows) for name in setup.config.method.rewards]


def exact_match(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
    """1 where the answer is the row's, blanks at its ends aside, else 0."""
    return [float(said.strip() == (row.answer or "").strip()) for row, said in zip(prompts, answers, strict=True)]


def numeric(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
    """1 where the last number of the answer equals the last number of the row's answer, else 0."""
    return [
        float((wanted := last_number(row.answer or "")) is not None and last_number(said) == wanted)
        for row, said in zip(prompts, answers, strict=True)
    ]


def last_number(text: str) -> float | None:
    """The last number in a text, with commas between thousands; None if there is none."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace("−", "-")) if found else None


def json_scorer(schema: dict[str, Any] | None) -> Any:
    """1 where the answer is JSON that fits the schema, 0.2 where it is JSON only, else 0; without a schema 1 or 0."""
    validator = None if schema is None else validator_of(schema)

    def score(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        return [_json_score(said, validator) for said in answers]

    return score


def _json_score(text: str, validator: Any) -> float:
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):  # a thousand brackets, which a model may well write
        return 0.0
    try:
        return 1.0 if validator is None or validator.is_valid(value) else 0.2
    except RecursionError:  # deeper than a schema that refers to itself can be followed
        return 0.2


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")  # which Python reads all the same


def regex_scorer(pattern: str) -> Any:
    """1 where the pattern fits the whole answer, blanks at its ends aside, else 0."""
    compiled = engine(pattern, across_lines=True)

    def score(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        return [float(compiled.fullmatch(said.strip()) is not None) for said in answers]

    return score


def length_scorer(wanted: int, tokenizer: Any) -> Any:
    """1 at the wanted number of tokens, falling to 0 at none and at twice as many."""

    def score(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        lengths = [len(tokenizer(said, add_special_tokens=False)["input_ids"]) for said in answers]
        return [max(0.0, 1.0 - abs(length - wanted) / wanted) for length in lengths]

    return score


def _scorer(name: str, setup: Setup) -> Any:
    method = setup.config.method
    if name == "exact_match":
        return exact_match
    if name == "numeric":
        return numeric
    if name == "json":
        return json_scorer(None if method.reward_schema is None else read_schema(Path(method.reward_schema)))
    if name == "regex":
        return regex_scorer(method.reward_pattern or "")
    if name == "length":
        return length_scorer(method.reward_length or 1, setup.tokenizer)
    if name == "python":
        return load_function(method.reward_python or "")
    from studio.train.rewards.scoring import model_scorer

    return model_scorer(setup)

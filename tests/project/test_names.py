"""The check that no module knows a method by name finds what it is for, and nothing else."""

from __future__ import annotations

import pytest

from tests.project.names import main, names_in


@pytest.mark.parametrize(
    "line",
    [
        'config.method.name == "dpo"', '"kto" != method',
        'name in ("ppo", "grpo")', 'known.config.tuning.name not in ["full"]',
        '(config.get("method") or {}).get("name") == "reward"', 'str(values["tuning"]) == "qlora"',
        'rates = {"sft": 1, "dpo": 2}', 'match method.name:\n    case "sft": pass',
        'sheet.value("method.name") == "sft"',
    ],
)  # fmt: skip
def test_names_are_found(line: str) -> None:
    assert [at for at, _ in names_in(f"x = 1\n{line}\n")] == [2]


@pytest.mark.parametrize(
    "line",
    [
        'method.grpo_loss == "grpo"', 'cost.logits == "full"', 'name == "demo"', 'titles = {"full": "Full"}',
        'print("dpo")',
    ],
)  # fmt: skip
def test_words_of_options_are_no_names(line: str) -> None:
    assert list(names_in(line)) == []


def test_the_studio_has_none() -> None:
    assert main() == 0

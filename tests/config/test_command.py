"""The command that the page shows trains exactly the run that the form shows."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.config import RunConfig
from studio.config.command import train_command
from studio.config.load import build
from studio.config.presets import load_named, preset_names

TEXTS = st.one_of(st.none(), st.sampled_from(["null", "true", "1e5", " a ", "'q'", "it's: {x}", "", "[a]", "é"]))


def trained(command: str) -> RunConfig:
    words = shlex.split(command)
    assert words[:2] == ["studio", "train"]
    assert set(words[3::2]) <= {"--set"}
    return load_named(words[2], words[4::2])


@pytest.mark.parametrize("name", preset_names())
def test_of_each_preset(name: str) -> None:
    config = load_named(name)
    assert trained(train_command(config)) == config
    if name.startswith("demo/"):
        assert train_command(config) == f"studio train {name}"


@settings(max_examples=15)
@given(
    st.sampled_from(["sft", "dpo", "grpo"]), st.sampled_from(["full", "lora", "qlora"]), TEXTS,
    st.sampled_from(["a/b", "my file.jsonl", "--x", "$HOME/x"]), st.sampled_from(["auto", 1e-4, 1.5e-7]),
    st.sampled_from(["all-linear", ["q_proj", "v_proj"]]), st.sampled_from([[], ["wandb", "mlflow"]]),
)  # fmt: skip
def test_of_any_values(method: str, tuning: str, text: Any, path: str, rate: Any, layers: Any, trackers: Any) -> None:
    config = build(RunConfig, {
        "data": {"train": [{"path": path, "rows": 3}], "system": text}, "method": {"name": method},
        "tuning": {"name": tuning, "target_modules": layers},
        "training": {"learning_rate": rate, "report_to": trackers},
    })  # fmt: skip
    assert trained(train_command(config)) == config

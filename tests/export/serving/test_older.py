"""The settings of a checkpoint are read by transformers 4 too, and by transformers 5 as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, Gemma3TextConfig, LlamaConfig, Phi3Config, PreTrainedConfig, Qwen2Config

from studio.export.serving.older import unread_by_older, with_older_names, write_older_config

SCALED = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
CONFIGS: dict[str, PreTrainedConfig] = {
    "plain": LlamaConfig(rope_parameters={"rope_type": "default", "rope_theta": 100000.0}, dtype="bfloat16"),
    "scaled": LlamaConfig(rope_parameters=SCALED, dtype="float16"),
    "qwen": Qwen2Config(rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    "gemma": Gemma3TextConfig(),
    "phi": Phi3Config(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_older_names_say_the_same(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    config.save_pretrained(tmp_path)
    before = AutoConfig.from_pretrained(tmp_path).to_dict()
    write_older_config(tmp_path)
    after = AutoConfig.from_pretrained(tmp_path).to_dict()
    assert {name: after[name] for name in before} == before, "transformers 5 reads what it read"
    written: dict[str, Any] = json.loads((tmp_path / "config.json").read_text())
    rope = before["rope_parameters"]
    full = rope.get("full_attention", rope)
    assert written["rope_theta"] == full["rope_theta"]
    if name == "scaled":
        assert written["rope_scaling"] == {key: value for key, value in SCALED.items() if key != "rope_theta"}
    else:
        assert "rope_scaling" not in written
    if name == "gemma":
        assert written["rope_local_base_freq"] == rope["sliding_attention"]["rope_theta"]
    if before["dtype"]:
        assert written["torch_dtype"] == before["dtype"]
    assert not unread_by_older(written)


def test_what_is_there_stays() -> None:
    config = {"rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}, "rope_theta": 7.0, "dtype": "float16"}
    assert with_older_names(config) == config | {"torch_dtype": "float16"}
    assert with_older_names({"hidden_size": 3}) == {"hidden_size": 3}
    inside = with_older_names({"text_config": {"rope_parameters": {"rope_theta": 5.0}}})
    assert inside["text_config"]["rope_theta"] == 5.0


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({"rope_parameters": {"rope_theta": 1e5, "rope_type": "default"}}, True),
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}, False),
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn", "factor": 2.0}}, True),
        ({"rope_theta": 1e5}, False),
        ({"text_config": {"rope_parameters": {"rope_theta": 1e5}}}, True),
        ({"model_type": "gpt2"}, False),
    ],
)
def test_what_would_be_read_wrongly_is_known(config: dict[str, Any], wrong: bool) -> None:
    assert unread_by_older(config) is wrong

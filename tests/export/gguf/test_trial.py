"""A small random model says whether llama.cpp and transformers mean the same by a config."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from studio.export.gguf.toolchain import find_toolchain
from studio.export.gguf.trial import LIMIT, divergence, shrunk
from studio.models.inspect.takeaway import COMPUTING
from studio.processes import child_environment
from studio.settings import Settings

FEW: dict[str, Any] = {"num_hidden_layers": 4}
ALL_FULL = {"layer_types": ["full_attention"] * 4, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}
LAGUNA = {**FEW, **ALL_FULL, "num_attention_heads_per_layer": [4] * 4}


@pytest.mark.long
@pytest.mark.parametrize(
    ("model_type", "options", "same"),
    [
        ("llama", FEW, True),
        ("phi", FEW, True),
        ("gpt2", {"n_layer": 4}, True),
        ("gemma3_text", {"num_hidden_layers": 6}, True),
        # The window is in every layer but each sixth, whatever the config says.
        ("gemma3_text", {**FEW, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]}, False),
        ("glm", FEW, True),
        ("laguna", LAGUNA, True),
        ("afmoe", {**FEW, "mup_enabled": True}, True),
        ("afmoe", {**FEW, "mup_enabled": False}, False),
        ("exaone4", FEW, False),  # llama.cpp gives every layer positions unless there are 64 of them
        ("olmoe", {**FEW, "norm_topk_prob": True}, False),
    ],
)
def test_what_llama_cpp_computes_is_measured(
    model_type: str, options: dict[str, Any], same: bool, tmp_path: Path, settings: Settings
) -> None:
    tools = find_toolchain(settings)
    assert tools is not None
    apart = divergence(tools, AutoConfig.for_model(model_type, **options).to_dict(), tmp_path)
    assert apart is not None
    assert apart < LIMIT / 10 if same else apart > 5 * LIMIT


# Half of a head's width turns, and llama.cpp ends the process where that is odd.
ODD = """
import sys
from pathlib import Path
from transformers import AutoConfig
from studio.export.gguf.toolchain import find_toolchain
from studio.export.gguf.trial import divergence
from studio.settings import read_settings
config = AutoConfig.for_model("glm4_moe", num_hidden_layers=2, head_dim=42, partial_rotary_factor=0.5)
divergence(find_toolchain(read_settings()), config.to_dict(), Path(sys.argv[1]))
print("it went on")
"""


@pytest.mark.long
def test_a_crash_of_llama_cpp_is_known_as_one(tmp_path: Path) -> None:
    environment = child_environment(GGML_NO_BACKTRACE="1")
    done = subprocess.run(
        [sys.executable, "-c", ODD, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode != 0 and done.stdout.split() == [COMPUTING], done.stderr[-2000:]


@pytest.mark.parametrize(
    ("model_type", "options", "heads"),
    [
        ("llama", {"num_attention_heads": 32, "num_key_value_heads": 8}, (4, 2)),
        ("llama", {"num_attention_heads": 32, "num_key_value_heads": 32}, (2, 2)),
        ("llama", {"num_attention_heads": 32, "num_key_value_heads": 1}, (2, 1)),
        (
            "gemma2",
            {"hidden_size": 4608, "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128},
            (4, 2),
        ),
    ],
)
def test_what_decides_the_arithmetic_stays(model_type: str, options: dict[str, Any], heads: tuple[int, int]) -> None:
    whole = AutoConfig.for_model(model_type, **options)
    small = shrunk(whole, narrow=True)
    assert small is not None
    assert (small.num_attention_heads, small.num_key_value_heads) == heads
    assert small.hidden_size / small.num_attention_heads == whole.hidden_size / whole.num_attention_heads
    kept = ("num_hidden_layers", "head_dim", "rms_norm_eps", "rope_parameters", "tie_word_embeddings")
    assert {name: getattr(small, name, None) for name in kept} == {name: getattr(whole, name, None) for name in kept}


def test_sizes_that_depend_on_each_other_otherwise_are_left_alone(tmp_path: Path, settings: Settings) -> None:
    assert shrunk(AutoConfig.for_model("mamba"), narrow=True) is None
    tools = find_toolchain(settings)
    assert tools is not None and divergence(tools, {"model_type": "no such model"}, tmp_path) is None

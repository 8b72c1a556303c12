"""Which model is trained, and in which numbers it is held."""

from __future__ import annotations

from typing import Literal

from studio.option import Options, option

EMBEDDED_MODEL = "smollm2-135m-instruct"


class ModelConfig(Options):
    """Section `model`."""

    path: str = option(
        EMBEDDED_MODEL,
        "The embedded model's name, the name of a run or merge that saved full weights, a folder with a Hugging Face "
        "checkpoint, or a Hub id such as org/name.",
        title="Model",
        tier="basic",
        min_length=1,
    )
    revision: str = option(
        "main", "Branch, tag or commit of a Hub model.", title="Revision", min_length=1
    )  # fmt: skip
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto",
        "Data type of the frozen weights; auto takes bfloat16 where this device is faster with it.",
        title="Data type",
        differs="TRL loads float32 and turns bf16 autocast on everywhere, even where a CPU only emulates it.",
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"] = option(
        "auto",
        "auto takes the fastest that device and model support: FlashAttention, sdpa, else eager.",
        title="Attention implementation",
    )
    rope_scaling: Literal["none", "linear", "dynamic", "yarn", "llama3"] = option(
        "none",
        "Scale the rotary positions to read longer texts than the model was trained on. Short prompts get slightly "
        "worse, most with linear.",
        title="RoPE scaling",
    )
    rope_factor: float = option(
        2.0, "How many times longer the context gets: 2 makes 4,096 tokens 8,192.", title="RoPE factor",
        gt=1, le=64, needs=("rope_scaling", ("linear", "dynamic", "yarn", "llama3")),
    )  # fmt: skip
    trust_remote_code: bool = option(
        False,
        "Run Python code that comes with the model. It can do anything you can: leave it off unless you have read it.",
        title="Trust remote code",
    )

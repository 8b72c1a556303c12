"""What the jobs after training are asked: evaluate and export."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from studio.option import Options, option

GgufType = Literal[
    "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q4_0", "q3_k_m", "q2_k",
]  # fmt: skip
DEFAULT_TYPES: tuple[GgufType, ...] = ("q4_k_m",)
DEMO_TEST = "demo/test.jsonl"


class EvaluateConfig(Options):
    """An evaluation: the same rows answered before and after."""

    run: str = option(..., "The training run (its id or name) whose result is measured.", title="Run", min_length=1)
    data: str = option(
        DEMO_TEST, "File of rows with expected answers that were not trained on.", title="Rows", tier="basic",
        min_length=1,
    )  # fmt: skip
    limit: int | None = option(None, "Only the first N rows; empty for all.", title="Row limit", unit="rows", ge=1)
    max_new_tokens: int | Literal["auto"] = option(
        "auto",
        "Maximum length of an answer; a longer one is cut and counts as wrong. auto is the longest expected answer "
        "plus 16.",
        title="Maximum new tokens",
        unit="tokens",
    )


class ExportConfig(Options):
    """An export of a run to GGUF files."""

    run: str = option(..., "The training run (its id or name) that is exported.", title="Run", min_length=1)
    to: Literal["gguf"] = option("gguf", "gguf: files for llama.cpp, Ollama and LM Studio.", title="Destination")
    types: list[GgufType] = Field(
        default_factory=lambda: list(DEFAULT_TYPES),
        min_length=1,
        title="GGUF types",
        description="GGUF types to make: q4_k_m is small, q8_0 close to the original, f16 exact.",
        json_schema_extra={"unit": None, "tier": "basic", "methods": [], "tunings": [], "differs": None},
    )
    evaluate: str | None = option(
        None, "File of rows on which each GGUF answers too (exact match); empty for none.", title="Rows"
    )  # fmt: skip

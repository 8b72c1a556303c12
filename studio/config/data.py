"""Which examples are trained on, and how they become tokens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from studio.config.option import Options, option

Format = Literal[
    "auto", "messages", "prompt_completion", "instruction", "text", "preference", "rated", "prompts"
]  # fmt: skip


class DataSource(Options):
    """One file of examples."""

    path: str = option(..., "JSON or JSONL file.", title="File", tier="basic", min_length=1)
    format: Format = option(
        "auto",
        "Shape of a row: messages (chat), prompt_completion, instruction (alpaca), text, preference (chosen and "
        "rejected), rated (with a label) or prompts; auto looks at the keys.",
        title="Format",
    )


class DataConfig(Options):
    """Section `data`."""

    train: list[DataSource] = Field(
        default_factory=lambda: [DataSource(path="demo/train.jsonl")],
        min_length=1,
        title="Training data",
        description="Files of examples that are trained on; demo/… names the studio's own demo set.",
        json_schema_extra={"unit": None, "tier": "basic", "methods": [], "tunings": [], "differs": None},
    )
    validation: float | str = option(
        0.1,
        "Share of the rows kept away from training (0.1 = 10 %), or a file of rows for it; 0 for none.",
        title="Validation",
        tier="basic",
    )
    max_length: int = option(
        1024,
        "Longest example. What happens to longer ones is said by truncation.",
        title="Longest example",
        unit="tokens",
        tier="basic",
        ge=8,
        le=1_048_576,
    )
    truncation: Literal["error", "drop", "cut"] = option(
        "error",
        "For an example over the limit: error refuses the data, drop leaves the row out, cut keeps its start; counted.",
        title="Too long examples",
        differs="TRL cuts without a word; a cut answer teaches the model to stop in mid-sentence.",
    )
    deduplicate: Literal["none", "exact", "near"] = option(
        "none",
        "Leave out rows that repeat an earlier one: exact (equal but for blanks), near (four fifths of the word "
        "triples in common) or none; counted.",
        title="Double rows",
    )
    shuffle: bool = option(True, "Mix the rows before each epoch.", title="Shuffle")

    @field_validator("validation")
    @classmethod
    def _share_or_file(cls, value: float | str) -> float | str:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                return value
        if not 0 <= value < 1:
            raise ValueError("a share from 0 to below 1 (0.1 = 10 %), or the path of a file")
        return value

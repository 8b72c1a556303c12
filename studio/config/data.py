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

    path: str = option(
        ...,
        "JSON or JSONL file, org/name of a set on the Hugging Face Hub, or dataset_info.json:NAME.",
        title="File",
        tier="basic",
        min_length=1,
    )
    format: Format = option(
        "auto",
        "Shape of a row: messages (chat), prompt_completion, instruction (alpaca), text, preference (chosen and "
        "rejected), rated (with a label) or prompts; auto looks at the keys.",
        title="Format",
    )
    subset: str | None = option(
        None, "Configuration of a set on the Hub; empty where it has only one.", title="Subset", min_length=1
    )
    split: str = option("train", "Which part of a set on the Hub.", title="Split", min_length=1)
    revision: str = option("main", "Branch, tag or commit of a set on the Hub.", title="Revision", min_length=1)
    weight: float | None = option(
        None,
        "Share of this set in the mix, next to the other sets' weights; empty takes each row once.",
        title="Weight",
        gt=0,
    )
    rows: int | None = option(
        None, "Take so many rows, chosen by the run's seed; empty takes all.", title="Rows taken", unit="rows", ge=1
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
    shuffle: bool = option(True, "Mix the rows before each epoch.", title="Shuffle")
    mix: Literal["concatenate", "interleave"] = option(
        "concatenate",
        "How several sets follow each other: one after the other, or interleaved (in turn, or drawn by weight).",
        title="Order of the sets",
    )
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = option(
        "first_exhausted",
        "With weights or interleave: first_exhausted ends when a set is used up and leaves rows of others unused; "
        "all_exhausted uses every row and repeats those of smaller sets. Both are counted.",
        title="End of the mix",
    )
    validation_split: str = option(
        "validation", "Split, where validation names a set on the Hub.", title="Split for validation", min_length=1
    )

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

    @field_validator("train")
    @classmethod
    def _weights_for_all(cls, value: list[DataSource]) -> list[DataSource]:
        weighed = sum(source.weight is not None for source in value)
        if 0 < weighed < len(value):
            raise ValueError(f"{weighed} of {len(value)} sets have a weight; give one to each, or to none")
        return value

"""Which examples are trained on, and how they become tokens."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from studio.methods import METHODS
from studio.option import Options, option

Format = Literal[
    "auto", "messages", "prompt_completion", "instruction", "text", "preference", "rated", "prompts"
]  # fmt: skip


TemplateName = Literal["auto", "chatml", "llama3", "mistral", "gemma", "phi", "plain"]
LEAST_LENGTH, MOST_LENGTH = 8, 1_048_576
# What a column of a file can be to a row, whatever the column is called.
COLUMN_ROLES = (
    "messages", "system", "tools", "prompt", "completion", "instruction", "input", "output", "history", "text",
    "chosen", "rejected", "label", "answer",
)  # fmt: skip
# What a file calls the parts of a turn: its two keys, and the words that stand for each role.
TAG_NAMES = ("role", "content", "user", "assistant", "system", "observation", "function")


class DataSource(Options):
    """One file of examples."""

    path: str = option(
        ...,
        "JSON or JSONL file, org/name of a dataset on the Hugging Face Hub, or dataset_info.json:NAME.",
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
    reading: Literal["auto", "conversation", "raw"] = option(
        "auto",
        "How a prompt and its answer that are plain text (prompt and completion, chosen, rejected) are read: "
        "conversation is a user turn and an assistant turn in the model's chat template, raw is the text as it is. "
        "auto is conversation where there is a template; raw where the format is named, control_tokens is keep, or "
        "the method is pretrain.",
        title="Read plain text as",
        differs="TRL reads it raw: an instruct model would be trained on text without its turn markers.",
    )
    subset: str | None = option(
        None, "Configuration of a Hub dataset; empty if it has only one.", title="Subset", min_length=1
    )
    split: str = option("train", "Which split of a Hub dataset.", title="Split", min_length=1)
    revision: str = option("main", "Branch, tag or commit of a Hub dataset.", title="Revision", min_length=1)
    weight: float | None = option(
        None,
        "Weight of this dataset in the mix, relative to the other datasets; empty takes each row once.",
        title="Sampling weight",
        gt=0,
    )
    rows: int | None = option(
        None,
        "Use at most this many rows, sampled with the run's seed; empty uses all.",
        title="Row limit",
        unit="rows",
        ge=1,
    )
    columns: str | dict[str, str] | None = option(
        None,
        "Which column holds what, such as prompt=question, completion=answer; a value with {{ }} is a Jinja template "
        "over the columns, such as text={{ title }}: {{ body }}. Empty goes by the names of the columns.",
        title="Column mapping",
    )
    tags: str | dict[str, str] | None = option(
        None,
        "Keys and roles of a message where they are not the usual ones, such as role=speaker, content=utterance, "
        "user=customer, assistant=agent.",
        title="Message keys",
    )

    @property
    def plain_reading(self) -> Literal["auto", "conversation", "raw"]:
        """How plain texts are read; a format that was named means what it means to TRL."""
        named = self.format in ("prompt_completion", "preference", "rated", "prompts")
        return "raw" if named and self.reading == "auto" else self.reading

    @field_validator("columns", mode="before")
    @classmethod
    def _columns(cls, value: object) -> object:
        return named_values(value, COLUMN_ROLES, "prompt=question, completion=answer")

    @field_validator("tags", mode="before")
    @classmethod
    def _tags(cls, value: object) -> object:
        return named_values(value, TAG_NAMES, "role=speaker, content=utterance")


class DataConfig(Options):
    """Section `data`."""

    train: list[DataSource] = Field(
        default_factory=lambda: [DataSource(path="demo/train.jsonl")],
        min_length=1,
        title="Training data",
        description="Files of training examples; demo/… names the studio's own demo dataset.",
        json_schema_extra={"unit": None, "tier": "basic", "methods": [], "tunings": [], "differs": None},
    )
    validation: float | str = option(
        0.1,
        "Share of the rows held out for validation (0.1 = 10 %), or a file of validation rows; 0 for none.",
        title="Validation",
        tier="basic",
    )
    max_length: int | Literal["auto"] = option(
        "auto",
        "Maximum length of an example; auto is the model's context length, and 1,024 for texts that are joined. "
        "truncation says what happens to longer ones.",
        title="Maximum length",
        unit="tokens",
        tier="basic",
        differs="TRL: 1,024, and longer rows are truncated.",
    )
    truncation: Literal["error", "drop", "cut"] = option(
        "error",
        "For an example over the limit: error refuses the data, drop skips the row, cut keeps its start; counted.",
        title="Truncation",
        differs="TRL truncates silently; a truncated answer teaches the model to stop in mid-sentence.",
    )
    template: TemplateName = option(
        "auto",
        "How a conversation is formatted: auto is the model's own chat template; the others are for a model without "
        "one. It is saved with the result, for chat and export.",
        title="Chat template",
    )
    system: str | None = option(
        None,
        "System prompt for conversations without one; it becomes part of the saved chat template. Empty adds none.",
        title="System prompt",
    )
    control_tokens: Literal["refuse", "keep"] = option(
        "refuse",
        "A row whose text spells a control token, such as <|im_end|>: refuse it, or keep it as that token (only in "
        "rows of plain text, which bring their own markup).",
        title="Control tokens in text",
        differs="TRL silently reads them as control tokens.",
    )
    deduplicate: Literal["none", "exact", "near"] = option(
        "none",
        "Skip rows that duplicate an earlier one: exact (equal up to whitespace), near (four fifths of the word "
        "trigrams in common) or none; counted.",
        title="Duplicate rows",
    )
    shuffle: bool = option(True, "Shuffle the rows before each epoch.", title="Shuffle")
    streaming: Literal["auto", "on", "off"] = option(
        "auto",
        "Read rows from disk as the training comes to them, instead of holding all of them in memory; the rows, their "
        "order and the losses are the same. auto turns it on when the files total 1 GB or more, where data.truncation, "
        "data.deduplicate and method.documents allow it.",
        title="Streaming",
        methods=tuple(name for name, one in METHODS.items() if one.rows == "answers"),
        differs="datasets: a shuffled buffer of rows; here every row is at hand, so the order is that of all rows.",
    )
    mix: Literal["concatenate", "interleave"] = option(
        "concatenate",
        "How several datasets are combined: one after the other, or interleaved (in turn, or sampled by weight).",
        title="Dataset mixing",
    )
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = option(
        "first_exhausted",
        "With weights or interleave: first_exhausted ends when a dataset is used up and leaves rows of others unused; "
        "all_exhausted uses every row and repeats those of smaller datasets. Both are counted.",
        title="Stopping strategy",
    )
    validation_split: str = option(
        "validation", "Split, where validation names a Hub dataset.", title="Validation split", min_length=1
    )

    @field_validator("max_length")
    @classmethod
    def _length(cls, value: int | str) -> int | str:
        if value != "auto" and not LEAST_LENGTH <= int(value) <= MOST_LENGTH:
            raise ValueError(f"a whole number from {LEAST_LENGTH} to {MOST_LENGTH:,}, or auto")
        return value

    @property
    def limit(self) -> int:
        """Tokens of an example at most; where `max_length` is auto and nobody has resolved it, there is no limit."""
        return MOST_LENGTH if self.max_length == "auto" else self.max_length

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

    @field_validator("train", mode="before")
    @classmethod
    def _paths_alone(cls, value: object) -> object:
        """Take a path where a source with nothing but a path is meant, in a list or alone."""
        listed = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str | dict | DataSource) for one in listed):
            raise ValueError("each set is the path of a file, or a mapping with path")
        return [{"path": one} if isinstance(one, str) else one for one in listed]

    @field_validator("train")
    @classmethod
    def _weights_for_all(cls, value: list[DataSource]) -> list[DataSource]:
        weighed = sum(source.weight is not None for source in value)
        if 0 < weighed < len(value):
            raise ValueError(f"{weighed} of {len(value)} sets have a weight; give one to each, or to none")
        return value


def named_values(value: object, names: tuple[str, ...], example: str) -> object:
    """Return `name=value, name=value` as a dict, and check the names of a dict; a comma may stand in a value.

    Args:
        value: text of a form or `--set`, or a dict; anything else is returned for pydantic to refuse.
        names: allowed ones.
        example: for the error.

    Raises:
        ValueError: a text without a name, or a name that is none of `names`.
    """
    if isinstance(value, str):
        if not value.strip():
            return None
        at = list(re.finditer(rf"(?:^|,)\s*({'|'.join(names)})\s*=", value))
        if not at or at[0].start() != 0:
            raise ValueError(f"name=value with commas between them, such as {example}; names are {', '.join(names)}")
        ends = [*(found.start() for found in at[1:]), len(value)]
        pairs = [(found.group(1), value[found.end() : end].strip()) for found, end in zip(at, ends, strict=True)]
        if len(dict(pairs)) < len(pairs):
            raise ValueError("each name may be given once")
        value = dict(pairs)
    if isinstance(value, dict):
        unknown = [str(name) for name in value if name not in names]
        if unknown:
            raise ValueError(f"'{unknown[0]}' is not one of {', '.join(names)}")
        if any(not isinstance(given, str) or not given.strip() for given in value.values()):
            raise ValueError("each name needs a value")
        return value or None
    return value

"""The options that adapters share. The terms are PEFT's (Hu et al. 2021, arXiv:2106.09685, for rank and alpha)."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from studio.option import Options, option

# Values of `init` that begin with a part of the base weights and take it out of the base.
CHANGES_BASE = ("pissa", "olora")
# No model has so many blocks, or layers with names of their own.
_MOST_BLOCKS, _MOST_PATTERNS = 2000, 2000
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


class AdapterOptions(Options):
    """What every adapter reads."""

    rank: int = option(
        16,
        "Rank of the adapter: 8 for simple tasks, 16 is usual, 32 for complex tasks, 64 for a new domain.",
        title="Rank",
        tier="basic",
        ge=1,
        le=1024,
        differs="PEFT: 8. 16 learned the demo in fewer steps.",
    )
    alpha: float | Literal["auto"] = option(
        "auto",
        "Scaling of the adapter, applied as alpha / rank. auto is 2 × rank.",
        title="Alpha",
        differs="PEFT: 8 whatever the rank, so a larger rank learns more slowly.",
    )
    dropout: float = option(
        0.0, "Dropout probability of the adapter's inputs in training.", title="Dropout", ge=0, lt=1
    )
    target_modules: str | list[str] = option(
        "all-linear",
        "Modules that get an adapter: all-linear, or names such as [q_proj, v_proj].",
        title="Target modules",
        differs="PEFT's default is often q and v only, which learns less.",
    )
    rslora: bool = option(
        False, "Scale by alpha / √rank, which keeps large ranks stable (arXiv:2312.03732).", title="rsLoRA"
    )
    rank_pattern: str | dict[str, int] | None = option(
        None, "Different ranks for some modules, such as q_proj=32, v_proj=8.", title="Rank pattern"
    )
    alpha_pattern: str | dict[str, float] | None = option(
        None, "Different alphas for some modules, such as q_proj=64.", title="Alpha pattern"
    )
    layers_to_transform: str | int | list[int] | None = option(
        None, "Layers that get an adapter, counted from 0, such as 0-3, 28, 29; empty means all.",
        title="Layers to transform",
    )  # fmt: skip
    adapter: str | None = option(
        None,
        "Continue training this adapter: a run (name or id) or a folder. Its rank and layers are kept.",
        title="Existing adapter",
    )

    @field_validator("rank_pattern", "alpha_pattern", mode="before")
    @classmethod
    def _pattern(cls, value: object) -> object:
        if isinstance(value, dict) and len(value) > _MOST_PATTERNS:
            raise ValueError(f"{len(value):,} layers, and at most {_MOST_PATTERNS:,} are allowed")
        if not isinstance(value, str):
            return value
        if value.count("=") > _MOST_PATTERNS:
            raise ValueError(f"{value.count('='):,} layers, and at most {_MOST_PATTERNS:,} are allowed")
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if any(not name.strip() or not number.strip().replace(".", "", 1).isdigit() for name, _, number in pairs):
            raise ValueError("comma-separated layer=number, such as q_proj=32, v_proj=8")
        return {name.strip(): float(number) for name, _, number in pairs} or None

    @field_validator("layers_to_transform", mode="before")
    @classmethod
    def _blocks(cls, value: object) -> object:
        value = [value] if isinstance(value, int) else value
        if isinstance(value, list) and (not value or any(isinstance(one, int) and one < 0 for one in value)):
            raise ValueError("at least one number, counted from 0; leave it empty (null) for all blocks")
        if isinstance(value, list) and any(isinstance(one, int) and one >= _MOST_BLOCKS for one in value):
            raise ValueError(f"no model has a block {_MOST_BLOCKS:,} or above")
        if not isinstance(value, str):
            return value
        blocks: list[int] = []
        for part in filter(None, (part.strip() for part in value.split(","))):
            found = _RANGE.fullmatch(part)
            first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
            if last < first:
                raise ValueError("numbers (from 0) and ranges, such as 0-3, 28")
            if last >= _MOST_BLOCKS or len(blocks) > _MOST_BLOCKS:
                raise ValueError(f"no model has a block {_MOST_BLOCKS:,} or above")
            blocks += range(first, last + 1)
        return blocks or None

    @field_validator("alpha")
    @classmethod
    def _positive(cls, value: float | str) -> float | str:
        if value != "auto" and float(value) <= 0:
            raise ValueError("a number above 0, or auto")
        return value

    @field_validator("target_modules")
    @classmethod
    def _names(cls, value: str | list[str]) -> str | list[str]:
        # The form gives one line of text for what YAML gives as a list.
        if isinstance(value, str) and value != "all-linear":
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not value:
            raise ValueError("all-linear, or at least one layer name")
        return value


class WholeBaseOptions(Options):
    """What needs a base whose weights are not quantized."""

    init: Literal["default", "gaussian", "pissa", "olora", "orthogonal"] = option(
        "default",
        "How the adapter is initialized: default starts at the base model; pissa (arXiv:2404.02948) and olora "
        "(2406.01775) start at its principal directions and learn faster at first.",
        title="Adapter initialization",
    )
    modules_to_save: str | list[str] | None = option(
        None, "Modules fully trained along with the adapter and saved with it, such as lm_head, embed_tokens.",
        title="Modules to save",
    )  # fmt: skip
    merge_adapter: bool = option(
        False, "Merge the existing adapter into the weights first and train a new one on top.",
        title="Merge adapter first",
    )  # fmt: skip

    @field_validator("modules_to_save", mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] or None if isinstance(value, str) else value


class LoraPlusOptions(Options):
    """What goes with A and B alone, without lengths beside them."""

    lora_plus_ratio: float | None = option(
        None, "LoRA+ (arXiv:2402.12354): learning rate of B relative to that of A; 16 is usual, empty is 1.",
        title="LoRA+ ratio", ge=1, le=1000,
    )  # fmt: skip

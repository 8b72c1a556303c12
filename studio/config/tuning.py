"""Which of the model's numbers change: all of them, or a small adapter beside them."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from studio.config.option import Options, option

TuningName = Literal["full", "lora"]
ADAPTERS = ("lora",)


class TuningConfig(Options):
    """Section `tuning`. The terms are PEFT's (Hu et al. 2021, arXiv:2106.09685, for rank and alpha)."""

    name: TuningName = option(
        "lora",
        "lora: a small adapter beside frozen weights; full: every weight.",
        title="Tuning",
        tier="basic",
    )
    rank: int = option(
        16,
        "Size of the adapter: 8 simple, 16 usual, 32 complex, 64 most.",
        title="Rank",
        tier="basic",
        tunings=ADAPTERS,
        ge=1,
        le=1024,
        differs="PEFT: 8. 16 learned the demo in fewer steps.",
    )
    alpha: float | Literal["auto"] = option(
        "auto",
        "Strength of the adapter; it is scaled by alpha / rank. auto is 2 × rank.",
        title="Alpha",
        tunings=ADAPTERS,
        differs="PEFT: 8 whatever the rank, so that a larger rank learns more slowly.",
    )
    dropout: float = option(
        0.0, "Share of the adapter's inputs left out at random in training.", title="Dropout",
        tunings=ADAPTERS, ge=0, lt=1,
    )  # fmt: skip
    target_modules: str | list[str] = option(
        "all-linear",
        "Layers that get an adapter: all-linear, or names such as [q_proj, v_proj].",
        title="Layers",
        tunings=ADAPTERS,
        differs="PEFT's default by family is often q and v only, which learns less.",
    )

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

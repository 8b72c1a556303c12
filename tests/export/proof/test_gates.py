"""Verdicts and sizes of the GGUF types."""

from __future__ import annotations

import math
from typing import Any, get_args

import llama_cpp
import pytest

from studio.config.jobs import GgufType
from studio.export.proof.gates import TYPES, gate_of, largest_bytes, shortcomings


def test_every_type_that_can_be_asked_for_is_known_to_llama_cpp() -> None:
    assert set(TYPES) == set(get_args(GgufType))
    for info in TYPES.values():
        assert isinstance(getattr(llama_cpp, f"LLAMA_FTYPE_{info.constant}"), int)


def found(mean_kl: float, top1: float, prompts: int = 13, stops: bool = True, template: bool = True) -> dict[str, Any]:
    return {
        "overall": {"mean_kl": mean_kl, "top1": top1}, "differences": [], "prompts_compared": 13,
        "prompts_equal": prompts, "template_carried": template, "end_of_turn_stops": stops,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["f16", "q4_k_m"])
def test_a_file_inside_its_limits_is_accepted(kind: str) -> None:
    gate = gate_of(kind)
    assert shortcomings(found(gate.max_mean_kl, gate.min_top1), gate) == []


@pytest.mark.parametrize(
    "wrong",
    [found(0.26, 0.9), found(0.1, 0.79), found(0.1, 0.9, prompts=12), found(0.1, 0.9, stops=False),
     found(0.1, 0.9, template=False), found(math.nan, 0.9), found(0.1, math.nan), found(math.inf, 0.9)],
)  # fmt: skip
def test_anything_outside_is_a_shortcoming(wrong: dict[str, Any]) -> None:
    assert len(shortcomings(wrong, gate_of("q4_k_m"))) == 1


def test_a_coarse_reference_widens_the_limits() -> None:
    assert gate_of("f16", "bfloat16").max_mean_kl > gate_of("f16").max_mean_kl
    assert gate_of("f16", "bfloat16").min_top1 < gate_of("f16").min_top1


def test_the_size_bound_holds_for_widths_that_fall_back() -> None:
    # SmolLM2, measured: 270.9 MB in f16 become 105.5 MB in q4_k_m and 144.8 MB in q8_0.
    assert largest_bytes("q4_k_m", 270_885_728) > 105_453_920
    assert largest_bytes("q8_0", 270_885_728) * 1.01 > 144_810_848
    assert largest_bytes("f32", 100) == 200

"""Verdicts and sizes of the GGUF types."""

from __future__ import annotations

import math
from typing import Any, get_args

import llama_cpp
import pytest

from studio.config.jobs import GgufType
from studio.export.proof.gates import TYPES, gate_of, largest_bytes, losses, shortcomings


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


def test_where_an_adapters_answers_end_is_its_base_models() -> None:
    adapter = found(0.0, 1.0, stops=False) | {"ends_by_itself": False}
    assert shortcomings(adapter, gate_of("f32")) == [] != shortcomings(found(0.0, 1.0, stops=False), gate_of("f32"))


def test_few_bits_are_lossy_and_not_broken_beyond_the_limits() -> None:
    gate = gate_of("iq2_xs")
    far = found(2.5, 0.3)
    assert shortcomings(far, gate) == []
    assert losses(far, gate)[:2] == ["mean KL 2.5 is above 1", "the same next token in 30.0 %, below 50 %"]
    assert "check it on rows of your task" in losses(far, gate)[2]
    assert losses(found(0.9, 0.6), gate) == [] == losses(found(9.0, 0.1), gate_of("q4_k_m"))
    assert len(shortcomings(found(2.5, 0.3, prompts=12), gate)) == 1, "other token ids fail any type"
    assert shortcomings(found(math.nan, 0.3), gate) and shortcomings(found(2.5, math.nan), gate)


def test_a_coarse_reference_widens_the_limits() -> None:
    assert gate_of("f16", "bfloat16").max_mean_kl > gate_of("f16").max_mean_kl
    assert gate_of("f16", "bfloat16").min_top1 < gate_of("f16").min_top1


def test_the_size_bound_holds_for_widths_that_fall_back() -> None:
    # SmolLM2, measured: 270.9 MB in f16 become 105.5 MB in q4_k_m and 144.8 MB in q8_0.
    assert largest_bytes("q4_k_m", 270_885_728) > 105_453_920
    assert largest_bytes("q8_0", 270_885_728) * 1.01 > 144_810_848
    assert largest_bytes("q2_k", 270_885_728) > 88_200_000, "mostly embeddings, which stay at 8 bits"
    assert largest_bytes("iq2_xs", 16_000_000_000) < 4_200_000_000, "a large model is refused no disk that holds it"
    assert largest_bytes("f32", 100) == 200

"""Verdicts and sizes of the GGUF types."""

from __future__ import annotations

import math
from typing import get_args

import llama_cpp
import pytest

from studio.config.jobs import GgufType
from studio.export.proof.gates import TYPES, gate_of, judge, largest_bytes


def test_every_type_that_can_be_asked_for_is_known_to_llama_cpp() -> None:
    assert set(TYPES) == set(get_args(GgufType))
    for info in TYPES.values():
        assert isinstance(getattr(llama_cpp, f"LLAMA_FTYPE_{info.constant}"), int)


@pytest.mark.parametrize(("kind", "verdict"), [("f16", "as trained"), ("q4_k_m", "as expected")])
def test_a_file_inside_its_limits_is_accepted(kind: str, verdict: str) -> None:
    gate = gate_of(kind)
    assert judge(kind, gate, gate.max_mean_kl, gate.min_top1, True, True) == verdict


@pytest.mark.parametrize(
    ("mean_kl", "top1", "prompts", "stops"),
    [(0.26, 0.9, True, True), (0.1, 0.79, True, True), (0.1, 0.9, False, True), (0.1, 0.9, True, False),
     (math.nan, 0.9, True, True), (0.1, math.nan, True, True), (math.inf, 0.9, True, True)],
)  # fmt: skip
def test_anything_outside_differs(mean_kl: float, top1: float, prompts: bool, stops: bool) -> None:
    assert judge("q4_k_m", gate_of("q4_k_m"), mean_kl, top1, prompts, stops) == "differs"


def test_a_coarse_reference_widens_the_limits() -> None:
    assert gate_of("f16", "bfloat16").max_mean_kl > gate_of("f16").max_mean_kl
    assert gate_of("f16", "bfloat16").min_top1 < gate_of("f16").min_top1


def test_the_size_bound_holds_for_widths_that_fall_back() -> None:
    # SmolLM2, measured: 270.9 MB in f16 become 105.5 MB in q4_k_m and 144.8 MB in q8_0.
    assert largest_bytes("q4_k_m", 270_885_728) > 105_453_920
    assert largest_bytes("q8_0", 270_885_728) * 1.01 > 144_810_848
    assert largest_bytes("f32", 100) == 200

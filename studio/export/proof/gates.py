"""The GGUF types: how large each is, and how far from the trained model it may be.

The limits are about three times what was measured on SmolLM2-135M (docs/export.md). They catch breakage (a wrong rope,
tokenizer or permutation gives a divergence above 1 nat), they are no certificate of quality: larger models lose less,
and exact match on real rows says what a type costs. With three bits and less, quality and breakage cannot be told
apart by these numbers, so that beyond the limits a file is called lossy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

# lossy: right in everything that can be right or wrong, and far from the trained model by its few bits.
Verdict = Literal["as trained", "as the original", "as expected", "lossy", "differs"]
# What a reference computed in 16 bits adds by itself (bf16 against fp32: mean KL 1.4e-3, top-1 95.9 %), times three.
COARSE_KL, COARSE_TOP1 = 0.005, 0.05
SMALL_BYTES = 2e9  # in 16 bits


@dataclass(frozen=True)
class GgufTypeInfo:
    """One type.

    Attributes:
        constant: name of llama.cpp's file type, without its LLAMA_FTYPE_ prefix.
        bits: stored bits per weight when no tensor falls back to another type.
        max_mean_kl: largest mean KL divergence, nats per token.
        min_top1: smallest share of positions with the same most likely token.
        by_converter: written by the converter itself; the other types are quantised from its f16 file.
        firm: a file beyond the two limits is broken. Not so with three bits and less, where a whole file can be as far
            away as a broken one: it is lossy.
    """

    constant: str
    bits: float
    max_mean_kl: float
    min_top1: float
    by_converter: bool = False
    firm: bool = True


TYPES: dict[str, GgufTypeInfo] = {
    "f32": GgufTypeInfo("ALL_F32", 32.0, 1e-3, 0.98, True),
    "f16": GgufTypeInfo("MOSTLY_F16", 16.0, 1e-3, 0.98, True),
    "bf16": GgufTypeInfo("MOSTLY_BF16", 16.0, 3e-3, 0.96, True),
    "q8_0": GgufTypeInfo("MOSTLY_Q8_0", 8.5, 0.02, 0.92),
    "q6_k": GgufTypeInfo("MOSTLY_Q6_K", 6.6, 0.05, 0.88),
    "q5_k_m": GgufTypeInfo("MOSTLY_Q5_K_M", 5.7, 0.25, 0.80),
    "q5_k_s": GgufTypeInfo("MOSTLY_Q5_K_S", 5.5, 0.25, 0.80),
    "q4_k_m": GgufTypeInfo("MOSTLY_Q4_K_M", 4.9, 0.25, 0.80),
    "q4_k_s": GgufTypeInfo("MOSTLY_Q4_K_S", 4.6, 0.30, 0.78),
    "q4_0": GgufTypeInfo("MOSTLY_Q4_0", 4.6, 0.80, 0.55),
    "q3_k_m": GgufTypeInfo("MOSTLY_Q3_K_M", 3.9, 0.50, 0.65),
    "q2_k": GgufTypeInfo("MOSTLY_Q2_K", 3.0, 1.00, 0.50),
    "q5_0": GgufTypeInfo("MOSTLY_Q5_0", 5.6, 0.25, 0.80),
    "q3_k_l": GgufTypeInfo("MOSTLY_Q3_K_L", 4.3, 0.90, 0.60),
    "q3_k_s": GgufTypeInfo("MOSTLY_Q3_K_S", 3.6, 1.00, 0.50),
    "iq4_nl": GgufTypeInfo("MOSTLY_IQ4_NL", 4.7, 0.80, 0.55),
    "iq4_xs": GgufTypeInfo("MOSTLY_IQ4_XS", 4.5, 0.80, 0.55),
    "iq3_m": GgufTypeInfo("MOSTLY_IQ3_M", 3.8, 1.00, 0.50, firm=False),
    "iq3_s": GgufTypeInfo("MOSTLY_IQ3_S", 3.7, 1.00, 0.50, firm=False),
    "iq3_xs": GgufTypeInfo("MOSTLY_IQ3_XS", 3.5, 1.00, 0.50, firm=False),
    "iq3_xxs": GgufTypeInfo("MOSTLY_IQ3_XXS", 3.3, 1.00, 0.50, firm=False),
    "iq2_m": GgufTypeInfo("MOSTLY_IQ2_M", 2.9, 1.00, 0.50, firm=False),
    "iq2_s": GgufTypeInfo("MOSTLY_IQ2_S", 2.7, 1.00, 0.50, firm=False),
    "iq2_xs": GgufTypeInfo("MOSTLY_IQ2_XS", 2.6, 1.00, 0.50, firm=False),
    "iq2_xxs": GgufTypeInfo("MOSTLY_IQ2_XXS", 2.4, 1.00, 0.50, firm=False),
    "iq1_m": GgufTypeInfo("MOSTLY_IQ1_M", 2.1, 1.00, 0.50, firm=False),
    "iq1_s": GgufTypeInfo("MOSTLY_IQ1_S", 2.0, 1.00, 0.50, firm=False),
}


@dataclass(frozen=True)
class Gate:
    """The limits that one file is held to."""

    max_mean_kl: float
    min_top1: float
    firm: bool = True


def gate_of(kind: str, reference_dtype: str = "float32") -> Gate:
    """Return the limits of a type; wider when the reference itself had to be computed in 16 bits."""
    info = TYPES[kind]
    if reference_dtype == "float32":
        return Gate(info.max_mean_kl, info.min_top1, info.firm)
    return Gate(info.max_mean_kl + COARSE_KL, info.min_top1 - COARSE_TOP1, info.firm)


def near_tie(gate: Gate) -> float:
    """Return the preference for a token, in nats, that rounding may overturn without being a fault.

    A mean KL divergence of K means log-probabilities that move by about sqrt(2 K), and the difference of two of them
    by sqrt(4 K); this is three times that.

    Args:
        gate: limits that the model is held to.
    """
    return 3 * math.sqrt(4 * gate.max_mean_kl)


def shortcomings(found: dict[str, Any], gate: Gate) -> list[str]:
    """Say why something is not the trained model; nothing if it is.

    `prompts_equal` is of the run's own rows and of ordinary conversations; rare texts do not count, they are told.
    NaN fails: every comparison with it is written so that it must hold, not so that it must not.

    Args:
        found: what `verify` or `checkpoint` returned.
        gate: from `gate_of`.
    """
    numbers = found["overall"]
    said = [difference(one) for one in found["differences"] if not one["rare"]]
    if not said and found["prompts_equal"] != found["prompts_compared"]:
        said.append("it reads prompts as other tokens than the model it was made of")
    if not found["template_carried"]:
        said.append("the chat template in the file differs from the model's")
    if not found["end_of_turn_stops"] and found.get("ends_by_itself", True):
        said.append("the end-of-turn token does not end generation")
    finite = math.isfinite(numbers["mean_kl"]) and math.isfinite(numbers["top1"])
    return said + (_beyond(numbers, gate) if gate.firm or not finite else [])


def losses(found: dict[str, Any], gate: Gate) -> list[str]:
    """Say what a type of few bits lost beyond its limits, which fails nothing; nothing for other types.

    Args:
        found: what `verify` returned.
        gate: from `gate_of`.
    """
    beyond = [] if gate.firm else _beyond(found["overall"], gate)
    return [*beyond, "few bits may cost that much: check it on rows of your task"] if beyond else []


def _beyond(numbers: dict[str, float], gate: Gate) -> list[str]:
    said = []
    if not (numbers["mean_kl"] <= gate.max_mean_kl and math.isfinite(numbers["mean_kl"])):
        said.append(f"mean KL {numbers['mean_kl']:.3g} is above {gate.max_mean_kl:g}")
    if not numbers["top1"] >= gate.min_top1:
        said.append(f"the same next token in {100 * numbers['top1']:.1f} %, below {100 * gate.min_top1:g} %")
    return said


def difference(found: dict[str, Any]) -> str:
    """One difference of the tokens as a sentence without its fix: which prompts, the cause, an example."""
    names = ", ".join(found["prompts"][:3]) + (", …" if len(found["prompts"]) > 3 else "")
    kind = "rare texts" if found["rare"] and found.get("kind") != "chat format" else "prompts"
    return f"{kind} that llama.cpp tokenizes differently ({names}): {found['cause']}, for example {found['example']}"


def rare_differences(files: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the entries of a report say of rare texts, each once; reports of before 2026-12 say nothing."""
    found: list[dict[str, Any]] = []
    for file in files:
        found += [one for one in file.get("differences", []) if one["rare"] and one not in found]
    return found


def largest_bytes(kind: str, half_bytes: int) -> int:
    """Bytes that a file may take, from the size of the 16-bit file.

    Tensors whose width is no multiple of 256 fall back to wider types (SmolLM2 q4_k_m: 6.2 bits instead of 4.9),
    and embeddings may be kept wider, so up to 1.6 times the nominal size is allowed for, never more than q8_0; and that
    for small models, which are mostly embeddings (SmolLM2 q2_k: 5.2 bits instead of 3).
    """
    bits = TYPES[kind].bits
    if bits < 8.5:
        bits = 8.5 if half_bytes < SMALL_BYTES else min(bits * 1.6, 8.5)
    return int(half_bytes * bits / 16)

"""What jobs should take, by phase, for their bars and for the buttons that start them.

Taken from reports of exports and evaluations of SmolLM2-135M on two busy cores, and scaled by the model's size: good
for an order of size, and replaced by the pace of each step as soon as it has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Bytes in 16 bits of the model that was measured, and its parameters.
HALF_BYTES = 270e6
PARAMETERS = HALF_BYTES / 2
LOAD_SECONDS = 3.0
# A row each; a base model writes on where a tuned one ends.
ANSWER_SECONDS = {"base": 0.3, "tuned": 0.15}
ROWS, EXPORTED = 100, "q4_k_m"
# Imports and one reading of the checkpoint before a training; one adapter or model written after it.
PREPARE_SECONDS, LOAD_BYTES, SAVE_SECONDS = 2.0, 500e6, 3.0
# A trained row takes as long as so many that are validated: backward is two forwards.
TRAINED = 3


def training_seconds(seconds: float, weights: float, trained: int, validated: int) -> dict[str, float]:
    """Seconds by phase of a training.

    Args:
        seconds: of steps and validations, by the plan.
        weights: bytes of the model in memory.
        trained, validated: rows that are gone through in all.
    """
    share = TRAINED * trained / (TRAINED * trained + validated)
    return {
        "loading model": PREPARE_SECONDS + weights / LOAD_BYTES,
        "training": seconds * share,
        "validating": seconds * (1 - share),
        "saving": SAVE_SECONDS,
    }


def evaluation_seconds(rows: int, parameters: float = PARAMETERS) -> dict[str, float]:
    """Seconds by phase of an evaluation of so many rows."""
    size = parameters / PARAMETERS
    answering = {f"answers of the {side} model": rows * each * size for side, each in ANSWER_SECONDS.items()}
    return {"loading model": LOAD_SECONDS * size, **answering}


def export_seconds(
    half_bytes: float, types: Sequence[str], converted: Sequence[str], merges: bool, rows: bool, matrix: bool = False
) -> dict[str, float]:
    """Seconds by phase of an export.

    Args:
        half_bytes: of the model in 16 bits.
        types: GGUF types that are asked for.
        converted: those that the converter writes; the others are quantized from one of them.
        merges: an adapter is merged before.
        rows: each file answers rows, too.
        matrix: an importance matrix is made for some of the types.
    """
    size = half_bytes / HALF_BYTES
    steps = {"merging": 3 * size} if merges else {}
    steps |= {"converting" if len(converted) == 1 else f"converting {kind}": 2 + 2.5 * size for kind in converted}
    steps |= {"importance matrix": 5 + 20 * size} if matrix else {}
    searched = {kind: 50 if kind.startswith("iq") else 3.3 for kind in types}  # IQ types try the points of a grid
    steps |= {f"quantizing {kind}": searched[kind] * size for kind in types if kind not in converted}
    steps["running the trained model"] = 5 + 4.5 * size
    for kind in types:
        steps[f"verifying {kind}"] = 1.7 * size
        steps |= {f"evaluating {kind}": 20 * size} if rows else {}
    return steps


def lora_seconds(half_bytes: float, rows: bool) -> dict[str, float]:
    """Seconds by phase of an adapter as GGUF.

    Args:
        half_bytes: of the model in 16 bits.
        rows: it answers rows, too.
    """
    size = half_bytes / HALF_BYTES
    steps = {
        "reading the adapter": 3.0, "converting the base model": 4 + 3 * size, "converting the adapter": 5.0,
        "running the trained model": 5 + 20 * size, "verifying gguf-lora": 2 + 3 * size,
    }  # fmt: skip
    return steps | ({"evaluating gguf-lora": 5 + 20 * size} if rows else {})


def folder_seconds(kind: str, half_bytes: float, rows: bool) -> dict[str, float]:
    """Seconds by phase of an export that makes a folder.

    Args:
        kind: merged or adapter.
        half_bytes: of the model in 16 bits.
        rows: it answers rows, too.
    """
    size = half_bytes / HALF_BYTES
    asking = 5 + 20 * size
    steps = {"merging": 3 * size} if kind == "merged" else {}
    steps |= {"running the trained model": asking, f"verifying {kind}": asking}
    return steps | ({f"evaluating {kind}": asking} if rows else {})


def comparing_seconds(half_bytes: float) -> float:
    """Seconds in which the trained model answers a few rows that an export got wrong; `half_bytes` as above."""
    return 5 + 5 * half_bytes / HALF_BYTES


def next_steps(environment: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What evaluating, chatting with and exporting a trained model will take; empty where its plan is not known.

    Returns:
        evaluate (rows, seconds), chat (seconds, bytes of memory), export (type, seconds, bytes of the file).
    """
    plan = environment.get("plan")
    parameters = plan.get("parameters") if isinstance(plan, dict) else environment.get("parameters")
    if not isinstance(parameters, int) or parameters <= 0:
        return {}
    size = parameters / PARAMETERS
    export = export_seconds(2 * parameters, [EXPORTED], ["f16"], merges=True, rows=False)
    bits = 6.2 if parameters < 1e9 else 4.9  # tensors whose width is no multiple of 256 stay wider: small models
    return {
        "evaluate": {"rows": ROWS, "seconds": sum(evaluation_seconds(ROWS, parameters).values())},
        "chat": {"seconds": LOAD_SECONDS * (1 + size), "bytes": 2 * parameters},
        "export": {"type": EXPORTED, "seconds": sum(export.values()), "bytes": bits / 8 * parameters},
    }
